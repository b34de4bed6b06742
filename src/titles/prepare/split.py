"""Duplicates and the stratified split, as pure functions of arrays.

Legend: N rows, W words of all rows, C categories.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, CALIBRATION, TEST, DROPPED = 0, 1, 2, 3, 255  # positions in contract.SPLITS

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Splits = NDArray[np.uint8]

_SLAB = 1_000_000  # rows at a time: bounds memory
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Of the order by which validation is divided: not that by which its rows were taken.
_DIVISION = np.uint64(0xD1B54A32D192ED03)


def _mixed(x: Keys) -> Keys:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit depends on every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def word_keys(words: Sequence[str]) -> Keys:
    """A 64-bit key per word, a function of its letters: the same in every run and on every machine."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def sequence_keys(word_keys_W: Keys, lengths_N: NDArray[np.integer[Any]]) -> Keys:
    """A 64-bit key per title, from its words and their order; 0 for a title without words."""
    keys_N = np.zeros(len(lengths_N), np.uint64)
    if len(word_keys_W) == 0:
        return keys_N
    starts_N = np.cumsum(lengths_N) - lengths_N
    position_W = np.arange(len(word_keys_W)) - np.repeat(starts_N, lengths_N)
    placed_W = _mixed(word_keys_W + position_W.astype(np.uint64) * _GOLDEN)
    has_words_N = lengths_N > 0  # reduceat would give an empty title the next word
    keys_N[has_words_N] = _mixed(np.add.reduceat(placed_W, starts_N[has_words_N]))
    return keys_N


def first_of_each(keys_N: Keys, rank_N: NDArray[np.uint8]) -> Ints:
    """For each row, the row to keep among those with its key: the lowest rank, then the first."""
    order_N = np.lexsort((rank_N, keys_N))  # stable: equal rows stay in file order
    opens_N = np.ones(len(keys_N), bool)
    sorted_N = keys_N[order_N]
    opens_N[1:] = sorted_N[1:] != sorted_N[:-1]
    del sorted_N  # some arrays of 64 bits a row are most of the memory of `prepare`
    first_K, kept_N, opened = order_N[opens_N], np.empty(len(keys_N), np.int64), 0
    for start in range(0, len(keys_N), _SLAB):
        slab = slice(start, start + _SLAB)
        place = np.cumsum(opens_N[slab]) + (opened - 1)
        kept_N[order_N[slab]] = first_K[place]
        opened = int(place[-1]) + 1
    return kept_N


def stratified(
    labels_N: NDArray[np.int32],
    reliable_N: Flags,
    keys_N: Keys,
    *,
    validation_fraction: float,
    test_fraction: float,
    prefer_reliable: bool,
    seed: int,
) -> Splits:
    """Assign each row TRAIN, VALIDATION or TEST, by the same fractions in each category.

    The order of rows within a category follows from the titles' keys and the seed, not from positions
    in the file: rows that are added later do not change it for the others.

    A category of one row goes to train, of two to train and test; with three or more it has all three.
    With `prefer_reliable`, a category that has reliable rows gives at most half of them to test, and
    no other rows; validation likewise takes remaining reliable rows; train gets the rest.
    """
    rows_C = np.bincount(labels_N)
    test_C = np.where(rows_C >= 2, np.maximum(1, np.rint(rows_C * test_fraction)), 0)
    validation_C = np.where(rows_C >= 3, np.maximum(1, np.rint(rows_C * validation_fraction)), 0)
    # Two fractions of 0.4, both rounded up, would leave train no row of a category of four.
    validation_C = np.minimum(validation_C, np.maximum(0, rows_C - test_C - 1))
    trusted_N = reliable_N & prefer_reliable
    if prefer_reliable:
        reliable_C = np.bincount(labels_N, weights=reliable_N, minlength=len(rows_C))
        test_C = np.where(reliable_C > 0, np.minimum(test_C, np.ceil(reliable_C / 2)), test_C)
        left_C = reliable_C - test_C
        validation_C = np.where(left_C > 0, np.minimum(validation_C, left_C), validation_C)
    shuffle_key_N = _shuffled(keys_N, seed)
    order_N = np.lexsort((shuffle_key_N, ~trusted_N, labels_N))
    del shuffle_key_N
    split_N = np.full(len(labels_N), TRAIN, np.uint8)
    at = 0
    for rows, test, validation in zip(
        rows_C.tolist(), test_C.astype(int).tolist(), validation_C.astype(int).tolist(), strict=True
    ):
        split_N[order_N[at : at + test]] = TEST
        split_N[order_N[at + test : at + test + validation]] = VALIDATION
        at += rows
    return split_N


def set_aside(
    splits_N: Splits, labels_N: NDArray[np.int32], keys_N: Keys, *, share: float, seed: int
) -> None:
    """Turn a share of the VALIDATION rows of each category into CALIBRATION, in place.

    Validation keeps at least one title of each category that it has: the choice of the best epoch needs
    rows of all categories, sets of answers only of categories of each size. So a category of one row has
    none in calibration. Rows are chosen by their titles' keys, and rows with the same title stay
    together.
    """
    held_V = np.flatnonzero(splits_N == VALIDATION)
    labels_V, shuffle_V = labels_N[held_V], _shuffled(keys_N[held_V], seed, _DIVISION)
    order_V = np.lexsort((shuffle_V, labels_V))
    labels_V, shuffle_V = labels_V[order_V], shuffle_V[order_V]
    rows_C = np.bincount(labels_V)
    start_C = np.cumsum(rows_C) - rows_C
    # Of three rows, two stay: halves of a row are validation's.
    kept_C = np.maximum(1, rows_C - np.ceil(rows_C * share - 0.5).astype(np.int64))
    opens_V = np.ones(len(held_V), bool)
    opens_V[1:] = (labels_V[1:] != labels_V[:-1]) | (shuffle_V[1:] != shuffle_V[:-1])
    place_V = np.flatnonzero(opens_V)[np.cumsum(opens_V) - 1]  # of the first row with the same title
    splits_N[held_V[order_V[place_V - start_C[labels_V] >= kept_C[labels_V]]]] = CALIBRATION


def _shuffled(keys_N: Keys, seed: int, stream: np.uint64 = _GOLDEN) -> Keys:
    return _mixed(keys_N ^ _mixed(np.full(1, seed, np.uint64) + stream))
