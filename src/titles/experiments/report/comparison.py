"""Experiments against the first of them, on the titles that both were judged by. Pure.

Legend: N titles, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titles.data.outcomes import Flags, Ints, Outcomes
from titles.evaluation.metrics import paired_test
from titles.evaluation.predictions import MODELS, Predictions
from titles.experiments.report.experiments import Experiment

# A single title moves a category of fewer by more than 0.05.
LEAST_ROWS = 20
CATEGORIES = 10
TITLES = 12


@dataclass(frozen=True)
class CategoryChange:
    """Recall of a category before and after; won and lost: titles that became right and wrong."""

    category: str
    rows: int
    before: float
    after: float
    won: int
    lost: int

    @property
    def difference(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class TitleChange:
    """A title that one experiment got right and the other wrong; confidences lie in 0..1."""

    line: int
    title: str
    category: str
    before: str
    before_confidence: float
    after: str
    after_confidence: float


@dataclass(frozen=True)
class Pair:
    """An experiment against the baseline.

    note: how their test titles differ; empty if they are the same.
    rows: titles that both were judged by; 0 if they are too few, and all that follows is empty.
    tests: of each model, `metrics.paired_test` of the experiment against the baseline.
    gained, lost: the categories whose recall rose and fell most. repaired, broken: titles that became
        right and wrong, those with the surest new answers first.
    """

    experiment: Experiment
    note: str
    rows: int
    tests: dict[str, dict[str, float]]
    gained: Sequence[CategoryChange] = ()
    lost: Sequence[CategoryChange] = ()
    repaired: Sequence[TitleChange] = ()
    broken: Sequence[TitleChange] = ()


def differing_params(experiments: Sequence[Experiment]) -> list[tuple[str, list[Any]]]:
    """Names of the parameters that are not the same everywhere, with their values; None where one is not
    there."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.params)
    rows = [(name, [experiment.params.get(name) for experiment in experiments]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def compare(baseline: Experiment, experiment: Experiment, model: str) -> Pair:
    """Compare two experiments title by title.

    Only titles of the same line, words and category in both count, and only if they are the greater part
    of both test splits.

    Args:
        model: the one of MODELS whose categories and titles are shown.
    """
    old, new = baseline.predictions, experiment.predictions
    rows_old, rows_new = common_rows(old, new)
    common = len(rows_old)
    note = "" if common == len(old) == len(new) else _note(baseline, experiment, common)
    if 2 * common <= max(len(old), len(new)):
        return Pair(experiment, note, 0, {})
    labels = sorted({*old.labels, *new.labels})
    before = {name: _aligned(old, name, rows_old, labels) for name in MODELS}
    after = {name: _aligned(new, name, rows_new, labels) for name in MODELS}
    samples, seed = baseline.params["evaluate.bootstrap_samples"], baseline.params["seed"]
    tests = {name: paired_test(after[name], before[name], samples, seed) for name in MODELS}
    lines_N = old.lines_N[rows_old]
    titles = [old.titles[row] for row in rows_old]
    gained, lost = _categories(before[model], after[model], labels)

    def changed(flags_N: Flags) -> list[TitleChange]:
        return _titles(flags_N, before[model], after[model], lines_N, titles, labels)

    was_N, is_N = before[model].right_N, after[model].right_N
    return Pair(
        experiment,
        note,
        common,
        tests,
        gained,
        lost,
        repaired=changed(~was_N & is_N),
        broken=changed(was_N & ~is_N),
    )


def common_rows(one: Predictions, other: Predictions) -> tuple[Ints, Ints]:
    """Positions of the titles that both have, in each: those of the same line, words and category."""
    keys, others = _keys(one), _keys(other)
    if keys == others:
        return np.arange(len(keys)), np.arange(len(keys))
    places = {key: row for row, key in enumerate(keys)}
    pairs = [(places[key], row) for row, key in enumerate(others) if key in places]
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _keys(predictions: Predictions) -> list[tuple[int, str, str]]:
    labels_N = predictions.outcomes[MODELS[0]].labels_N
    categories = [predictions.labels[code] for code in labels_N]
    return list(zip(predictions.lines_N.tolist(), predictions.titles, categories, strict=True))


def _note(baseline: Experiment, experiment: Experiment, common: int) -> str:
    causes = [
        name
        for name, _ in differing_params([baseline, experiment])
        if name == "seed" or name.startswith("prepare.")
    ]
    why = f"they differ in {', '.join(causes)}" if causes else "their data differ"
    return (
        f"{experiment.name} was not judged by the same test titles as {baseline.name} ({why}): "
        f"{common:,} of its {len(experiment.predictions):,} titles are among the "
        f"{len(baseline.predictions):,} of {baseline.name}. Their scores are of different titles."
    )


def _aligned(predictions: Predictions, model: str, rows: Ints, labels: Sequence[str]) -> Outcomes:
    """What a model said of the given rows, with categories numbered by `labels`."""
    codes = {label: code for code, label in enumerate(labels)}
    code_C = np.array([codes[label] for label in predictions.labels], np.int64)
    found = predictions.outcomes[model]
    return Outcomes(
        code_C[found.labels_N[rows]],
        code_C[found.predicted_N[rows]],
        found.confidence_N[rows],
        found.rank_N[rows],
        found.loss_N[rows],
    )


def _categories(
    before: Outcomes, after: Outcomes, labels: Sequence[str]
) -> tuple[list[CategoryChange], list[CategoryChange]]:
    """The categories of LEAST_ROWS titles or more that gained most recall, and those that lost most."""

    def count(flags_N: Flags) -> Ints:
        return np.bincount(before.labels_N[flags_N], minlength=len(labels))

    was_N, is_N = before.right_N, after.right_N
    rows_C, was_C, is_C = count(np.ones(len(before), bool)), count(was_N), count(is_N)
    won_C, lost_C = count(is_N & ~was_N), count(was_N & ~is_N)
    changes = [
        CategoryChange(
            labels[code],
            int(rows_C[code]),
            was_C[code] / rows_C[code],
            is_C[code] / rows_C[code],
            int(won_C[code]),
            int(lost_C[code]),
        )
        for code in np.flatnonzero(rows_C >= LEAST_ROWS).tolist()
    ]
    ranked = sorted(changes, key=lambda change: (-change.difference, -change.rows))
    gained = [change for change in ranked if change.difference > 0]
    lost = [change for change in reversed(ranked) if change.difference < 0]
    return gained[:CATEGORIES], lost[:CATEGORIES]


def _titles(
    flags_N: Flags,
    before: Outcomes,
    after: Outcomes,
    lines_N: Ints,
    titles: Sequence[str],
    labels: Sequence[str],
) -> list[TitleChange]:
    """The flagged titles whose new answer is the surest."""
    flagged = np.flatnonzero(flags_N)
    surest = flagged[np.argsort(-after.confidence_N[flagged], kind="stable")][:TITLES]
    return [
        TitleChange(
            int(lines_N[row]),
            titles[row],
            labels[before.labels_N[row]],
            labels[before.predicted_N[row]],
            float(before.confidence_N[row]),
            labels[after.predicted_N[row]],
            float(after.confidence_N[row]),
        )
        for row in surest.tolist()
    ]
