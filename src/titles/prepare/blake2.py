"""BLAKE2b of many short texts in compiled code; hashlib takes longer to be called than to compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titles.data.compiled import compiled

_WORDS = NDArray[np.uint64]

# RFC 7693, 2.6 and 2.7.
_START = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    np.uint64,
)  # fmt: skip
_ORDER = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ]
)  # fmt: skip
# The four places of each mixing: columns, then diagonals.
_MIXED = np.array(
    [
        [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
        [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
    ]
)  # fmt: skip


def digests(text: NDArray[np.uint8], ends_N: NDArray[np.int64], digests_N: _WORDS) -> None:
    """Write `hashlib.blake2b(each, digest_size=8)` of N texts, concatenated, as little-endian numbers; 0
    for an empty one."""
    _digests(text, ends_N, _START, _ORDER, _MIXED, digests_N)


@compiled
def _digests(
    text: NDArray[np.uint8],
    ends_N: NDArray[np.int64],
    first: _WORDS,
    order: NDArray[np.int64],
    mixed: NDArray[np.int64],
    digests_N: _WORDS,
) -> None:
    state, work, block = np.empty(8, np.uint64), np.empty(16, np.uint64), np.empty(16, np.uint64)
    for number in range(len(ends_N)):
        at = ends_N[number - 1] if number else 0
        left = ends_N[number] - at
        if left == 0:
            digests_N[number] = 0
            continue
        state[:] = first
        state[0] ^= np.uint64(0x01010000 ^ 8)  # no key, 8 bytes
        done = 0
        while left > 0:
            taken = min(left, 128)
            for word in range(16):
                value = np.uint64(0)
                for byte in range(8):
                    if 8 * word + byte < taken:
                        value |= np.uint64(text[at + 8 * word + byte]) << np.uint64(8 * byte)
                block[word] = value
            at += taken
            left -= taken
            done += taken
            for word in range(8):
                work[word], work[word + 8] = state[word], first[word]
            work[12] ^= np.uint64(done)
            if left == 0:
                work[14] = ~work[14]
            for turn in range(12):
                for place in range(8):
                    a, b = work[mixed[place, 0]], work[mixed[place, 1]]
                    c, d = work[mixed[place, 2]], work[mixed[place, 3]]
                    a = a + b + block[order[turn, 2 * place]]
                    d ^= a
                    d = (d >> np.uint64(32)) | (d << np.uint64(32))
                    c = c + d
                    b ^= c
                    b = (b >> np.uint64(24)) | (b << np.uint64(40))
                    a = a + b + block[order[turn, 2 * place + 1]]
                    d ^= a
                    d = (d >> np.uint64(16)) | (d << np.uint64(48))
                    c = c + d
                    b ^= c
                    b = (b >> np.uint64(63)) | (b << np.uint64(1))
                    work[mixed[place, 0]], work[mixed[place, 1]] = a, b
                    work[mixed[place, 2]], work[mixed[place, 3]] = c, d
            for word in range(8):
                state[word] ^= work[word] ^ work[word + 8]
        digests_N[number] = state[0]
