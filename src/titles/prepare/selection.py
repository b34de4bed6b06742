"""Which rows are used, and in which split: duplicates, rare categories, given and stratified splits.

All but `read_like_held_out` follow from raw titles, however they are read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import QUALITIES
from titles.params import Prepare
from titles.prepare import split
from titles.prepare.reading import SLAB_ROWS, RejectedFile, Rows

RELIABLE = QUALITIES.index("reliable")


def duplicates(rows: Rows, rejected: RejectedFile) -> NDArray[np.int64]:
    """For each row, the row that is kept of all with its title; the others are rejected.

    A test row is kept before one of train, then a reliable row, then the first. A test or validation
    split that the source gives keeps its own duplicates, so that published metrics stay comparable.
    """
    rank_of_split = np.zeros(256, np.uint8)
    rank_of_split[[split.VALIDATION, split.TRAIN]] = 2, 4
    rank_N = rank_of_split[rows.splits_N] + (rows.qualities_N != RELIABLE).astype(np.uint8)
    kept_N = split.first_of_each(rows.keys_N, rank_N)
    held_out_N = np.isin(rows.splits_N, (split.VALIDATION, split.TEST))
    own_N = held_out_N & (rows.splits_N == rows.splits_N[kept_N])
    kept_N[own_N] = np.flatnonzero(own_N)

    def same_as(row: int) -> str:
        file, line = rows.place(kept_N[row])
        return f"same title as line {line} of {file}"

    rejected.add_rows(rows, kept_N != np.arange(len(kept_N)), "duplicate", same_as)
    return kept_N


def frequent_categories(rows: Rows, used_N: split.Flags, min_rows: int) -> list[str]:
    """Sorted names of the categories with enough rows; in train, where splits are given."""
    counted_N = used_N & np.isin(rows.splits_N, (split.TRAIN, split.DROPPED))
    rows_C = np.bincount(rows.categories_N[counted_N], minlength=len(rows.categories))
    return sorted(rows.categories[code] for code in np.flatnonzero(rows_C >= min_rows))


def splits(
    rows: Rows,
    used_N: split.Flags,
    categories_N: NDArray[np.int32],
    settings: Prepare,
) -> split.Splits:
    """The split of each row: the given one, or else one that is stratified by these categories, in both
    cases with a share of validation for calibration; DROPPED if it is not used."""
    splits_N = np.where(used_N, rows.splits_N, np.uint8(split.DROPPED))
    free_N = used_N & (rows.splits_N == split.DROPPED)
    if free_N.any():
        splits_N[free_N] = split.stratified(
            categories_N[free_N],
            rows.qualities_N[free_N] == RELIABLE,
            rows.keys_N[free_N],
            validation_fraction=settings.validation_fraction,
            test_fraction=settings.test_fraction,
            prefer_reliable=settings.holdout_quality == "reliable",
            seed=settings.split_seed,
        )
    split.set_aside(
        splits_N,
        categories_N,
        rows.keys_N,
        share=settings.calibration_share,
        seed=settings.split_seed,
    )
    return splits_N


def read_like_held_out(
    rows: Rows, splits_N: split.Splits, read_keys_N: split.Keys, rejected: RejectedFile
) -> split.Flags:
    """The train rows whose titles are read like one that is held out; they are rejected.

    Different titles can have the same words, such as "Funda" and "Funda - envío gratis". Train gives
    way, since held-out titles must be the same however titles are read.

    Args:
        read_keys_N: `split.sequence_keys` of the words.
    """
    held_out = np.flatnonzero(np.isin(splits_N, (split.VALIDATION, split.CALIBRATION, split.TEST)))
    if not len(held_out):
        return np.zeros(len(splits_N), bool)
    keys, first = np.unique(read_keys_N[held_out], return_index=True)
    seen_N = np.zeros(len(splits_N), bool)
    # np.isin would sort all rows, with five times the memory.
    for start in range(0, len(splits_N), SLAB_ROWS):
        slab = slice(start, start + SLAB_ROWS)
        place = np.minimum(np.searchsorted(keys, read_keys_N[slab]), len(keys) - 1)
        seen_N[slab] = (splits_N[slab] == split.TRAIN) & (keys[place] == read_keys_N[slab])

    def like(row: int) -> str:
        place = np.searchsorted(keys, read_keys_N[row])
        file, line = rows.place(held_out[first[place]])
        return f"same words as line {line} of {file}, under these parameters"

    rejected.add_rows(rows, seen_N, "same_words_as_held_out", like)
    return seen_N
