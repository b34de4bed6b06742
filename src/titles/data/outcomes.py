"""Predictions of a classifier for titles with known categories.

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
    """Number of titles of each category, (C,); raises ValueError if there are no titles."""
    if len(labels_N) == 0:
        raise ValueError("there are no titles to measure")
    return np.bincount(labels_N)


@dataclass(frozen=True)
class Outcomes:
    """Predictions of a classifier for N titles with known categories.

    labels_N: the true category. predicted_N: the predicted category.
    confidence_N: probability of the predicted category.
    rank_N: number of categories with a higher probability than the true one; 0 is correct.
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
    """Mean recall over the categories that occur in `labels_N`.

    Raises:
        ValueError: there are no titles.
    """
    rows_C = category_rows(labels_N)
    right_C = np.bincount(labels_N[right_N], minlength=len(rows_C))
    return float(np.mean(right_C[rows_C > 0] / rows_C[rows_C > 0]))
