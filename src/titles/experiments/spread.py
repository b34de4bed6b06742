"""The spread of a measure over repeated runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """Of n values. deviation: of the sample, over n - 1. low, high: interval of the mean, by t.

    Only the mean is known of a single value; the others are None.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float], tail: float = 0.025) -> Summary:
    """Raises ValueError if there are no values.

    Args:
        tail: probability on each side of the interval.
    """
    if not values:
        raise ValueError("there are no values to summarise")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Summary(1, mean, None, None, None)
    from scipy.special import stdtrit  # quantiles of Student's t; scipy.stats takes seconds to import

    deviation = statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 1 - tail)) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, mean - half, mean + half)


class Components(NamedTuple):
    """Standard deviations; None where the runs do not allow an estimate.

    seed: between trainings on one split. split: between splits, without what the seeds of their
    trainings add.
    """

    seed: float | None
    split: float | None


def components(values: Mapping[int, Sequence[float]]) -> Components:
    """Separate the variance between splits from that between trainings within a split.

    The estimators of the one-way random effects analysis of variance, for any number of runs in each
    split (Searle, Casella and McCulloch, 1992, "Variance Components", section 3.6). A variance between
    splits that comes out negative counts as 0.

    Args:
        values: of the runs on each split, at least one for each.
    """
    runs, splits = sum(map(len, values.values())), len(values)
    if runs == splits:  # no split has two runs
        return Components(None, None)
    means = {split: statistics.fmean(found) for split, found in values.items()}
    squares = math.fsum((y - means[split]) ** 2 for split, found in values.items() for y in found)
    within = squares / (runs - splits)
    if splits == 1:
        return Components(math.sqrt(within), None)
    mean = statistics.fmean(y for found in values.values() for y in found)
    between = math.fsum(len(found) * (means[split] - mean) ** 2 for split, found in values.items())
    between /= splits - 1
    size = (runs - sum(len(found) ** 2 for found in values.values()) / runs) / (splits - 1)
    return Components(math.sqrt(within), math.sqrt(max(0.0, (between - within) / size)))
