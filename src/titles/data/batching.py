"""Batches of encoded titles.

Legend: B titles, L tokens of the longest, T tokens of all, U distinct tokens, G n-grams of those,
M distinct n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from titles.data.contract import PAD, UNK, Batch
from titles.data.encoded import EncodedTitles, map_oov
from titles.data.subwords import VocabularySubwords

# Shuffled titles are sorted by length within a pool of this many batches: almost no padding is left, and
# batches are still random.
_POOL_BATCHES = 64


def ordered(
    titles: EncodedTitles,
    batch_size: int,
    shuffle: np.random.Generator | None = None,
    among: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each batch; every row occurs once.

    Args:
        shuffle: random generator of the order; None sorts by length, which needs least padding.
        among: the rows to yield; None for all.
    """
    lengths = titles.lengths
    rows = np.arange(len(titles)) if among is None else among
    total = len(rows)
    if shuffle is None:
        order = rows[np.argsort(lengths[rows], kind="stable")]
        starts = np.arange(0, total, batch_size)
    else:
        order = shuffle.permutation(rows)
        for pool in range(0, total, batch_size * _POOL_BATCHES):
            rows = order[pool : pool + batch_size * _POOL_BATCHES]
            order[pool : pool + batch_size * _POOL_BATCHES] = rows[
                np.argsort(lengths[rows], kind="stable")
            ]
        starts = shuffle.permutation(np.arange(0, total, batch_size))
    for start in starts:
        yield order[start : start + batch_size]


class Batcher:
    """Makes batches from the titles of a split for one network.

    Args:
        subwords: n-grams of the network's vocabulary; None makes all unknown words the same.

    Raises:
        ValueError: an id refers to an unknown word that does not exist.
    """

    def __init__(
        self, titles: EncodedTitles, subwords: VocabularySubwords | None, device: torch.device
    ) -> None:
        self._titles = titles
        self._device = device
        self._words = _Distinct()
        self._subwords = subwords
        if subwords:
            named = -int(titles.word_ids.min(initial=0))
            if named > len(titles.unknown_words):
                raise ValueError(
                    f"the prepared data is damaged: it refers to {named} unknown words but has "
                    f"{len(titles.unknown_words)}. Run `dvc repro prepare`, or `dvc pull`"
                )
            self._unknown = subwords.subwords.of(titles.unknown_words)
            self._distinct_ngrams = _Distinct()

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        ids_T, inside_BL = self._titles.words(rows)
        if self._subwords is None:
            tokens_U, index_T = self._words(map_oov(ids_T))
            ngrams: tuple[NDArray[Any], ...] = (np.empty(0, np.int64),) * 3
        else:
            # Unknown words get the ids after the vocabulary and come last.
            vocabulary = self._subwords.vocabulary
            numbers_U, index_T = self._words(np.where(ids_T < 0, vocabulary - 1 - ids_T, ids_T))
            order_U = np.argsort(numbers_U >= vocabulary, kind="stable")
            place_U = np.empty(len(order_U), np.int32)
            place_U[order_U] = np.arange(len(order_U), dtype=np.int32)
            numbers_U, index_T = numbers_U[order_U], place_U[index_T]
            first = int((numbers_U < vocabulary).sum())
            tokens_U = np.append(numbers_U[:first], np.full(len(numbers_U) - first, UNK))
            found = self._subwords.ngrams.of(numbers_U[:first])
            if first < len(numbers_U):
                found = found.followed_by(self._unknown.of(numbers_U[first:] - vocabulary))
            ngrams = (*self._distinct_ngrams(found.buckets), np.append(0, found.ends))
        index_BL = np.zeros(inside_BL.shape, np.int64)
        index_BL[inside_BL] = index_T + 1
        labels_B = self._titles.labels[rows]
        arrays = (index_BL, np.append(PAD, tokens_U), *ngrams, labels_B)
        return Batch(*(torch.from_numpy(a).to(self._device, torch.int64) for a in arrays))


class _Distinct:
    """Distinct values of small integers, unsorted, in linear time."""

    def __init__(self) -> None:
        self._place = np.empty(0, np.int32)

    def __call__(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The distinct values, and the position of each of `ids` among them."""
        largest = int(ids.max(initial=0))
        if largest >= len(self._place):
            self._place = np.empty(2 * largest + 1, np.int32)
        # Of equal ids, the position of the last one remains.
        numbers = np.arange(len(ids), dtype=np.int32)
        self._place[ids] = numbers
        distinct = ids[self._place[ids] == numbers]
        self._place[distinct] = numbers[: len(distinct)]
        return distinct, self._place[ids]
