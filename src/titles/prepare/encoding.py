"""Word ids of the source to those of the vocabulary and of each split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titles.data import vocabulary
from titles.data.contract import UNK
from titles.data.encoded import EncodedTitles
from titles.params import Prepare
from titles.prepare import reading, split
from titles.prepare.reading import Rows


def build_vocabulary(
    rows: Rows, train_N: split.Flags, settings: Prepare
) -> tuple[vocabulary.Vocabulary, NDArray[np.int32]]:
    """The vocabulary of the flagged rows, and the id in it of each of rows.words."""
    counts_V = np.zeros(len(rows.words), np.int64)
    for slab, ids in rows.slabs():
        in_train = np.repeat(train_N[slab], rows.lengths_N[slab])
        counts_V += np.bincount(ids[in_train], minlength=len(counts_V))
    return vocabulary.build(rows.words, counts_V, settings.min_count, settings.max_vocabulary)


def encode(
    rows: Rows, labels_N: NDArray[np.int32], chosen_N: split.Flags, new_ids: NDArray[np.int32]
) -> EncodedTitles:
    """The chosen rows, in file order. new_ids: id in the vocabulary of each of rows.words."""
    ends = np.cumsum(rows.lengths_N[chosen_N])
    word_ids = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
    unknown = np.zeros(len(rows.words), bool)
    stop = 0
    for slab, ids in rows.slabs():
        found = ids[np.repeat(chosen_N[slab], rows.lengths_N[slab])]
        start, stop = stop, stop + len(found)
        word_ids[start:stop] = found
        unknown[found] = True
    # Ids of unknown words hold for one split: the other splits must not learn the words of test.
    unknown &= new_ids == UNK
    numbers = np.where(unknown, -np.cumsum(unknown, dtype=np.int32), new_ids)
    for start in range(0, len(word_ids), reading.SLAB_ROWS):
        part = slice(start, start + reading.SLAB_ROWS)
        word_ids[part] = numbers[word_ids[part]]
    return EncodedTitles(
        word_ids,
        ends,
        labels_N[chosen_N],
        rows.languages_N[chosen_N],
        rows.qualities_N[chosen_N],
        rows.lines_N[chosen_N],
        [rows.words[position] for position in np.flatnonzero(unknown)],
    )
