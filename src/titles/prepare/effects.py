"""Parameters of `prepare` that the rows of a source leave without effect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titles.params import Prepare
from titles.prepare import split
from titles.prepare.reading import Rows
from titles.prepare.selection import RELIABLE

_OF_THE_SPLIT = ("validation_fraction", "test_fraction", "holdout_quality")
_GIVEN = "the source gives its own splits"


def without_effect(
    settings: Prepare,
    rows: Rows,
    used_N: split.Flags,
    labels_N: NDArray[np.int32],
    splits_N: split.Splits,
) -> dict[str, str]:
    """Names of parameters, each with the reason.

    Args:
        used_N: rows that are no duplicates. labels_N: their categories; negative for rare ones.
        splits_N: their splits.
    """
    found = settings.without_effect()
    free_N = used_N & (labels_N >= 0) & (rows.splits_N == split.DROPPED)
    given = not free_N.any()
    divided = bool(np.any(splits_N == split.CALIBRATION))
    if settings.calibration_share and not divided:
        found["calibration_share"] = "no category has enough rows in validation"
    if given:
        found |= dict.fromkeys(_OF_THE_SPLIT, _GIVEN)
        return found if divided else found | {"split_seed": _GIVEN}
    reliable_N = rows.qualities_N == RELIABLE
    if not np.isin(labels_N[free_N & reliable_N], labels_N[free_N & ~reliable_N]).any():
        found["holdout_quality"] = "no category has reliable rows beside others"
    return found
