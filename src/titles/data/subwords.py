"""Character n-grams of words, hashed into a fixed number of buckets: Bojanowski et al. (2017),
"Enriching Word Vectors with Subword Information".

Legend: W words, G n-grams of all words together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import MOST_BUCKETS, MOST_LETTERS, SPECIAL_WORDS

Buckets = NDArray[np.int32]


class Ngrams(NamedTuple):
    """N-grams of words: buckets (G,), word by word, and the end of each word in them (W,)."""

    buckets: Buckets
    ends: NDArray[np.int64]

    def of(self, words: NDArray[np.integer[Any]]) -> Ngrams:
        """The n-grams of the words at these positions."""
        ends = self.ends[words]
        counts = ends - np.where(words > 0, self.ends[words - 1], 0)
        own_ends = np.cumsum(counts)
        return Ngrams(
            self.buckets[np.arange(counts.sum()) + np.repeat(ends - own_ends, counts)], own_ends
        )

    def followed_by(self, others: Ngrams) -> Ngrams:
        return Ngrams(
            np.concatenate([self.buckets, others.buckets]),
            np.concatenate([self.ends, others.ends + len(self.buckets)]),
        )


# Words hashed at a time: bounds the memory of intermediate arrays.
_SLAB_WORDS = 100_000


@dataclass(frozen=True)
class Subwords:
    """The character n-grams of "<word>", of `shortest` to `longest` characters, hashed into `buckets`.

    The markers < and > distinguish prefixes and suffixes from other n-grams.

    Raises:
        ValueError: not 1 <= shortest <= longest <= MOST_LETTERS, or not 1 <= buckets <= MOST_BUCKETS.
    """

    shortest: int
    longest: int
    buckets: int

    def __post_init__(self) -> None:
        # A model from elsewhere must not be able to exhaust the memory.
        if not (
            all(type(value) is int for value in (self.shortest, self.longest, self.buckets))
            and 1 <= self.shortest <= self.longest <= MOST_LETTERS
            and 1 <= self.buckets <= MOST_BUCKETS
        ):
            raise ValueError(f"{self} is out of range")

    def of(self, words: Sequence[str]) -> Ngrams:
        """The n-grams of words; empty words, and words shorter than `shortest` with markers, have
        none."""
        slabs = [words[i : i + _SLAB_WORDS] for i in range(0, len(words), _SLAB_WORDS)]
        found, ends = zip(*map(self._of_slab, slabs or [words]), strict=True)
        before = np.cumsum([0, *map(len, found[:-1])])
        return Ngrams(
            np.concatenate(found), np.concatenate([e + b for e, b in zip(ends, before, strict=True)])
        )

    def _of_slab(self, words: Sequence[str]) -> Ngrams:
        text = np.frombuffer("".join(f"<{word}>" for word in words).encode("utf-32-le"), np.uint32)
        lengths_W = np.fromiter((len(word) + 2 for word in words), np.int64, len(words))
        sizes = range(self.shortest, self.longest + 1)
        counts_WS = np.maximum(lengths_W[:, None] - np.array(sizes) + 1, 0)
        counts_WS[lengths_W == 2] = 0
        ends_W = np.cumsum(counts_WS.sum(axis=1))
        # Start of the n-grams of each size, word by word.
        starts_WS = np.cumsum(counts_WS).reshape(counts_WS.shape) - counts_WS
        place_L = np.arange(len(text)) - np.repeat(np.cumsum(lengths_W) - lengths_W, lengths_W)
        left_L = np.repeat(lengths_W, lengths_W) - place_L
        empty_L = np.repeat(lengths_W == 2, lengths_W)
        found = np.empty(int(counts_WS.sum()), np.int32)
        for column, size in enumerate(sizes):
            hashes = _hashes(text, size)
            whole = np.flatnonzero((left_L >= size)[: len(hashes)] & ~empty_L[: len(hashes)])
            starts = np.repeat(starts_WS[:, column], counts_WS[:, column])
            found[starts + place_L[whole]] = hashes[whole] % np.uint32(self.buckets)
        return Ngrams(found, ends_W)


def _hashes(text: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """FNV-1a over code points for each run of `size` characters, with one more mixing step."""
    count = max(len(text) - size + 1, 0)
    hashes = np.full(count, 2166136261, np.uint32)
    for place in range(size):
        hashes = (hashes ^ text[place : place + count]) * np.uint32(16777619)
    return hashes ^ (hashes >> np.uint32(15))


class VocabularySubwords:
    """The n-grams of the words of a vocabulary, computed once."""

    def __init__(self, subwords: Subwords, words: Sequence[str]) -> None:
        self.subwords = subwords
        self.vocabulary = len(words)
        # <pad> and <unk> are not words: they have no n-grams.
        self.ngrams = subwords.of([*("" for _ in SPECIAL_WORDS), *words[len(SPECIAL_WORDS) :]])
