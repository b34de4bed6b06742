"""The test split through trained models: metrics, and tables that DVC plots."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from titles import metrics
from titles.contract import LANGUAGES, QUALITIES
from titles.data import EncodedTitles
from titles.outcomes import Outcomes, balanced_accuracy
from titles.params import Evaluate

_OTHER = "(other)"
_HARDEST = 20


def headline(
    outcomes: Mapping[str, Outcomes], settings: Evaluate, seed: int
) -> dict[str, dict[str, float]]:
    """The measures of each model, and the paired test of the CNN against the MLP."""
    found = {}
    for name, model in outcomes.items():
        bins = metrics.calibration(model.confidence_N, model.right_N, settings.calibration_bins)
        found[name] = metrics.summary(model, settings.bootstrap_samples, seed) | {
            "calibration_error": bins.error
        }
    found["cnn_less_mlp"] = metrics.paired_test(
        outcomes["cnn"], outcomes["mlp"], settings.bootstrap_samples, seed
    )
    return found


def by_group(outcomes: Mapping[str, Outcomes], titles: EncodedTitles) -> dict[str, Any]:
    """Rows and balanced accuracy of each language and each label quality that occurs."""
    groups = {
        "language": [(name, titles.languages == code) for code, name in enumerate(LANGUAGES)],
        "label_quality": [(name, titles.qualities == code) for code, name in enumerate(QUALITIES)],
    }
    return {
        kind: {
            group: {"rows": int(flags_N.sum())}
            | {
                name: round(balanced_accuracy(model.labels_N[flags_N], model.right_N[flags_N]), 6)
                for name, model in outcomes.items()
            }
            for group, flags_N in members
            if flags_N.any()
        }
        for kind, members in groups.items()
    }


def write_tables(
    outcomes: Mapping[str, Outcomes], labels: Sequence[str], settings: Evaluate, folder: Path
) -> None:
    """Write, below `folder`, the tables that dvc.yaml declares as plots.

    categories.csv: rows, recall, precision and F1 of each category; hardest.csv: of the average, the
    categories of least recall; confused_pairs.csv: all mistakes by kind; confusion_<model>.csv: right
    and given category of titles of the categories most often mistaken; reliability_<model>.csv.
    """
    _write_categories(outcomes, labels, folder)
    with_pairs = (
        (name, labels[right], labels[given], rows)
        for name, model in outcomes.items()
        for right, given, rows in metrics.confused_pairs(model.labels_N, model.predicted_N)
    )
    _write(folder / "confused_pairs.csv", ("model", "category", "given", "titles"), with_pairs)
    shown = _most_mistaken(outcomes["average"], settings.confused_categories)
    for name, model in outcomes.items():
        rows = (
            (labels[right], labels[given] if given in shown else _OTHER)
            for right, given in zip(model.labels_N.tolist(), model.predicted_N.tolist(), strict=True)
            if right in shown
        )
        _write(folder / f"confusion_{name}.csv", ("category", "given"), rows)
        bins = metrics.calibration(model.confidence_N, model.right_N, settings.calibration_bins)
        table = zip(
            bins.rows.tolist(),
            bins.confidence.round(6).tolist(),
            bins.accuracy.round(6).tolist(),
            strict=True,
        )
        _write(folder / f"reliability_{name}.csv", ("titles", "confidence", "accuracy"), table)
    _write(folder / "reliability_ideal.csv", ("confidence", "accuracy"), [(0, 0), (1, 1)])


def _write_categories(outcomes: Mapping[str, Outcomes], labels: Sequence[str], folder: Path) -> None:
    tables = {
        name: metrics.per_category(model.labels_N, model.predicted_N, len(labels))
        for name, model in outcomes.items()
    }
    measures = ("recall", "precision", "f1")
    rates = np.stack([getattr(t, m) for t in tables.values() for m in measures], 1).round(6)
    rows_C = tables["average"].rows
    header = ("category", "rows", *(f"{name}_{m}" for name in tables for m in measures))
    rows = (
        (label, count, *rate)
        for label, count, rate in zip(labels, rows_C.tolist(), rates.tolist(), strict=True)
    )
    _write(folder / "categories.csv", header, rows)
    recall_C = tables["average"].recall.round(6)
    occurs = np.flatnonzero(rows_C)
    hardest = occurs[np.argsort(recall_C[occurs], kind="stable")][:_HARDEST].tolist()
    _write(
        folder / "hardest.csv",
        ("category", "recall", "rows"),
        ((labels[code], float(recall_C[code]), int(rows_C[code])) for code in hardest),
    )


def _most_mistaken(outcomes: Outcomes, count: int) -> set[int]:
    """The categories that take part in the most frequent kinds of mistake."""
    shown: list[int] = []
    for right, given, _ in metrics.confused_pairs(outcomes.labels_N, outcomes.predicted_N):
        shown += [code for code in (right, given) if code not in shown]
        if len(shown) >= count:
            break
    return set(shown[:count])


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
