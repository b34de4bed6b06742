"""Parameters of `prepare` that the rows of a source leave without effect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titles.params import Prepare, note_without_effect
from titles.prepare import split
from titles.prepare.reading import Rows
from titles.prepare.selection import RELIABLE

_OF_THE_SPLIT = ("validation_fraction", "test_fraction", "split_seed", "holdout_quality")


def without_effect(rows: Rows, used_N: split.Flags, labels_N: NDArray[np.int32]) -> dict[str, str]:
    """Names of parameters, each with the reason.

    Args:
        used_N: rows that are no duplicates. labels_N: their categories; negative for rare ones.
    """
    free_N = used_N & (labels_N >= 0) & (rows.splits_N == split.DROPPED)
    if not free_N.any():
        return dict.fromkeys(_OF_THE_SPLIT, "the source gives its own splits")
    reliable_N = rows.qualities_N == RELIABLE
    if not np.isin(labels_N[free_N & reliable_N], labels_N[free_N & ~reliable_N]).any():
        return {"holdout_quality": "no category has reliable rows beside others"}
    return {}


def note(settings: Prepare, rows: Rows, used_N: split.Flags, labels_N: NDArray[np.int32]) -> None:
    """Name on stderr the parameters that change nothing with these rows; see `without_effect`."""
    found = settings.without_effect() | without_effect(rows, used_N, labels_N)
    note_without_effect("prepare", found)
