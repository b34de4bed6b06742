"""Metrics of a classifier.

Legend: N titles, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from titles.data.outcomes import Flags, Floats, Ints, Outcomes, balanced_accuracy, category_rows

# Strata of the bootstrap that are drawn one by one; below it, results stay those of earlier versions.
_MOST_STRATA = 4_000
_DRAWS_AT_ONCE = 1 << 20  # of counts, of 24 bytes each


def bootstrap_interval(
    labels_N: Ints, score_N: NDArray[np.int8], samples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of the mean over categories of their mean score, by a stratified bootstrap.

    Each category is a stratum. A category of n titles is resampled n - 1 times, which keeps the variance
    unbiased for small n (Rao and Wu, 1988, "Resampling inference with complex survey data"). Categories
    of one title have no estimate of their variance and are pooled into one stratum. Resampling scores
    of -1, 0 and 1 gives multinomial counts, which are drawn directly; for many categories, those with
    equal counts together, since the sum of their draws is multinomial too.

    score_N: 1 where a classifier is correct and 0 elsewhere; to compare two, 1 and -1 where only the
    first or only the second is correct. Raises ValueError if there are no titles.
    """
    rows_C = category_rows(labels_N)
    counts_C3 = np.stack(
        [np.bincount(labels_N[score_N == score], minlength=len(rows_C)) for score in (-1, 0, 1)], 1
    )
    single_C = rows_C == 1
    counts_S3 = counts_C3[rows_C > 1]
    weight_S = np.ones(len(counts_S3))
    if single_C.any():
        counts_S3 = np.vstack([counts_S3, counts_C3[single_C].sum(axis=0)])
        weight_S = np.append(weight_S, single_C.sum())
    same_S = np.ones(len(counts_S3), np.int64)
    if len(counts_S3) > _MOST_STRATA:
        kinds_S4 = np.column_stack([counts_S3, weight_S.astype(np.int64)])
        kinds_S4, same_S = np.unique(kinds_S4, axis=0, return_counts=True)
        counts_S3, weight_S = kinds_S4[:, :3], kinds_S4[:, 3].astype(float)
    rows_S = counts_S3.sum(axis=1)
    draws_S = np.maximum(rows_S - 1, 1)
    random = np.random.default_rng(seed)
    size = max(1, _DRAWS_AT_ONCE // len(rows_S))
    mean_B = np.empty(samples)
    for start in range(0, samples, size):
        block_B = mean_B[start : start + size]
        shape = len(block_B), len(rows_S)
        drawn_BS3 = random.multinomial(same_S * draws_S, counts_S3 / rows_S[:, None], shape)
        mean_BS = (drawn_BS3[..., 2] - drawn_BS3[..., 0]) / draws_S
        block_B[:] = (mean_BS * weight_S).sum(axis=1)
    low, high = np.quantile(mean_B / (weight_S * same_S).sum(), (0.025, 0.975))
    return float(low), float(high)


def macro_f1(labels_N: Ints, predicted_N: Ints) -> float:
    """Mean F1 over the categories that occur as a label or a prediction."""
    size = int(max(labels_N.max(), predicted_N.max())) + 1
    found = per_category(labels_N, predicted_N, size)
    return float(np.mean(found.f1[found.rows + found.given > 0]))


def summary(outcomes: Outcomes, samples: int, seed: int) -> dict[str, float]:
    """The metrics of one classifier; shares are in 0..1, the loss is in nats per title."""
    low, high = bootstrap_interval(outcomes.labels_N, outcomes.right_N.astype(np.int8), samples, seed)
    return _rounded(
        balanced_accuracy=balanced_accuracy(outcomes.labels_N, outcomes.right_N),
        balanced_accuracy_low=low,
        balanced_accuracy_high=high,
        accuracy=outcomes.right_N.mean(),
        macro_f1=macro_f1(outcomes.labels_N, outcomes.predicted_N),
        top_3=np.mean(outcomes.rank_N < 3),
        top_5=np.mean(outcomes.rank_N < 5),
        loss=outcomes.loss_N.mean(),
    )


def _rounded(**values: float | np.floating[Any]) -> dict[str, float]:
    # Six digits are far finer than any interval, and hide rounding errors of sums.
    return {name: round(float(value), 6) for name, value in values.items()}


def paired_test(one: Outcomes, other: Outcomes, samples: int, seed: int) -> dict[str, float]:
    """Compare two classifiers on the same titles.

    difference: balanced accuracy of `one` minus that of `other`, with its 95 % bootstrap interval;
    only_one, only_other: titles that only one of them has correct; accuracy_p_value: McNemar's exact
    test of accuracy (two-sided).
    """
    assert np.array_equal(one.labels_N, other.labels_N), "not the same titles"
    score_N = one.right_N.astype(np.int8) - other.right_N.astype(np.int8)
    low, high = bootstrap_interval(one.labels_N, score_N, samples, seed)
    first, second = (balanced_accuracy(each.labels_N, each.right_N) for each in (one, other))
    wins, losses = int(np.sum(score_N == 1)), int(np.sum(score_N == -1))
    p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return {
        **_rounded(difference=first - second, difference_low=low, difference_high=high),
        **{"only_one": wins, "only_other": losses, "accuracy_p_value": float(f"{p_value:.3g}")},
    }


@dataclass(frozen=True)
class CategoryTable:
    """Counts and rates of each category, (C,); a rate without a denominator is 0."""

    rows: Ints
    given: Ints
    recall: Floats
    precision: Floats
    f1: Floats


def per_category(labels_N: Ints, predicted_N: Ints, categories: int) -> CategoryTable:
    rows = np.bincount(labels_N, minlength=categories)
    given = np.bincount(predicted_N, minlength=categories)
    right = np.bincount(labels_N[labels_N == predicted_N], minlength=categories)
    recall, precision = right / np.maximum(rows, 1), right / np.maximum(given, 1)
    return CategoryTable(rows, given, recall, precision, 2 * right / np.maximum(rows + given, 1))


def confused_pairs(labels_N: Ints, predicted_N: Ints) -> list[tuple[int, int, int]]:
    """(true category, predicted category, titles) of all mistakes, most frequent first."""
    wrong = labels_N != predicted_N
    pairs, counts = np.unique(
        np.stack([labels_N[wrong], predicted_N[wrong]], 1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [(int(a), int(b), int(n)) for (a, b), n in zip(pairs[order], counts[order], strict=True)]


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: number of titles, mean confidence and accuracy of each bin of confidence
    that has titles; and the expected calibration error (Naeini et al., 2015), the mean difference of
    the two weighted by titles."""

    rows: Ints
    confidence: Floats
    accuracy: Floats
    error: float


def calibration(confidence_N: Floats, right_N: Flags, bins: int) -> Calibration:
    place_N = np.minimum((confidence_N * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place_N, minlength=bins)
    occurs = rows > 0
    confidence = np.bincount(place_N, confidence_N, bins)[occurs] / rows[occurs]
    accuracy = np.bincount(place_N, right_N, bins)[occurs] / rows[occurs]
    error = float(np.sum(rows[occurs] * np.abs(confidence - accuracy)) / len(confidence_N))
    return Calibration(rows[occurs], confidence, accuracy, round(error, 6))


@dataclass(frozen=True)
class Coverage:
    """Titles kept when uncertain ones are set aside, for K decreasing thresholds of the confidence."""

    threshold: Floats  # the lowest confidence that is kept
    kept: Ints
    right: Ints  # correct ones among the kept

    @property
    def precision(self) -> Floats:
        return np.divide(self.right, self.kept)


def coverage(confidence_N: Floats, right_N: Flags) -> Coverage:
    """One threshold for each distinct confidence: titles of equal confidence stay together. N > 0."""
    order_N = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order_N]
    last_K = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    return Coverage(sorted_N[last_K], last_K + 1, np.cumsum(right_N[order_N], dtype=np.int64)[last_K])


def threshold(confidence_N: Floats, right_N: Flags, target: float) -> float | None:
    """The lowest confidence from which the precision reaches `target`, or None if there is none.

    The lower end of the one-sided 95 % interval of the precision (Wilson, 1927) must reach `target`, so
    that a few correct titles do not suffice: 0.95 needs at least 52.
    """
    found = coverage(confidence_N, right_N)
    enough = np.flatnonzero(wilson_low(found.right, found.kept) >= target)
    # Rounded down, so that the title at the threshold is kept.
    return float(np.floor(found.threshold[enough[-1]] * 1e6) / 1e6) if len(enough) else None


def wilson_low(right: Ints, rows: Ints) -> Floats:
    """Lower end of Wilson's one-sided 95 % interval of a share; rows are not 0."""
    z = float(norm.ppf(0.95))
    share = right / rows
    spread = z * np.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    low: Floats = (share + z**2 / (2 * rows) - spread) / (1 + z**2 / rows)
    return low


def abstention(unseen: Outcomes, test: Outcomes, target: float) -> dict[str, float]:
    """The confidence threshold chosen on titles that test does not have, and its effect on test.

    threshold: 1 if there is none. coverage: share of the test titles kept. precision_kept: accuracy of
    those; missing if none is kept.
    """
    found = threshold(unseen.confidence_N, unseen.right_N, target)
    if found is None:
        return {"threshold": 1.0, "coverage": 0.0}
    kept_N = test.confidence_N >= found
    measured = _rounded(threshold=found, coverage=kept_N.mean())
    return measured | (_rounded(precision_kept=test.right_N[kept_N].mean()) if kept_N.any() else {})
