"""What a classifier said of titles whose category is known. Pure.

Legend: N titles, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def category_rows(labels_N: Ints) -> Ints:
    """Titles of each category, (C,); raises ValueError if there are none."""
    if len(labels_N) == 0:
        raise ValueError("there are no titles to measure")
    return np.bincount(labels_N)


@dataclass(frozen=True)
class Outcomes:
    """What a classifier said about N titles whose category is known.

    labels_N: the right category. predicted_N: the category given.
    confidence_N: probability of the category given.
    rank_N: how many categories got a higher probability than the right one; 0 is right.
    loss_N: cross-entropy in nats.
    """

    labels_N: Ints
    predicted_N: Ints
    confidence_N: Floats
    rank_N: Ints
    loss_N: Floats

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def right_N(self) -> Flags:
        return np.equal(self.predicted_N, self.labels_N)

    def where(self, flags_N: Flags) -> Outcomes:
        return Outcomes(*(values[flags_N] for values in vars(self).values()))


def balanced_accuracy(labels_N: Ints, right_N: Flags) -> float:
    """Mean over the categories that occur in `labels_N` of the share that is right.

    Raises:
        ValueError: there are no titles.
    """
    rows_C = category_rows(labels_N)
    right_C = np.bincount(labels_N[right_N], minlength=len(rows_C))
    return float(np.mean(right_C[rows_C > 0] / rows_C[rows_C > 0]))
