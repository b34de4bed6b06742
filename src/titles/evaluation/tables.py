"""Results on the test split: the numbers of metrics/ and the tables that DVC plots."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from titles.data.contract import LANGUAGES, QUALITIES, atomic_folder
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes, balanced_accuracy
from titles.evaluation import metrics
from titles.models.registry import AVERAGE
from titles.params import Evaluate

_OTHER = "(other)"
_HARDEST = 20
_CURVE_POINTS = 100
# Kinds of mistakes listed per model: bounds a file that lies in git.
_MOST_PAIRS = 5000
_HEADLINE = ("balanced_accuracy", "validation_balanced_accuracy", "accuracy", "loss")


def measures(
    outcomes: Mapping[str, Outcomes],
    as_trained: Mapping[str, Outcomes],
    validation: Mapping[str, Outcomes],
    settings: Evaluate,
    seed: int,
) -> dict[str, dict[str, float]]:
    """The measures of each model, the average first.

    Args:
        as_trained: outcomes of the networks on the same titles before calibration.
        validation: outcomes on the validation split, on which confidence thresholds are chosen.
    """
    found = {}
    for name, model in sorted(outcomes.items(), key=lambda named: named[0] != AVERAGE):
        held_out = validation[name]
        found[name] = metrics.summary(model, settings.bootstrap_samples, seed)
        found[name]["validation_balanced_accuracy"] = round(
            balanced_accuracy(held_out.labels_N, held_out.right_N), 6
        )
        found[name]["calibration_error"] = _calibration(model, settings).error
        if name != AVERAGE:  # its networks are calibrated, not the average itself
            error = _calibration(as_trained[name], settings).error
            found[name]["calibration_error_before"] = error
        found[name] |= metrics.abstention(held_out, model, settings.target_precision)
    return found


def pairs(
    outcomes: Mapping[str, Outcomes], settings: Evaluate, seed: int
) -> dict[str, dict[str, float]]:
    """The paired test of each network against each later one, as cnn_minus_mlp."""
    networks = [name for name in outcomes if name != AVERAGE]
    return {
        f"{one}_minus_{other}": metrics.paired_test(
            outcomes[one], outcomes[other], settings.bootstrap_samples, seed
        )
        for one, other in combinations(networks, 2)
    }


def headline(models: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The measures that experiments are compared by, under names such as cnn.accuracy.

    `dvc exp show` has a column for each, in this order.
    """
    return {
        f"{name}.{measure}": values[measure] for measure in _HEADLINE for name, values in models.items()
    }


def described(models: Mapping[str, Mapping[str, float]], target: float) -> str:
    """The result of `measures` as text; `target` is the precision asked for."""
    return "\n".join(_lines(name, values, target) for name, values in models.items())


def _lines(name: str, score: Mapping[str, float], target: float) -> str:
    before = score.get("calibration_error_before")
    lines = (
        f"{name:>8}: balanced accuracy {score['balanced_accuracy']:.4f} "
        f"[{score['balanced_accuracy_low']:.4f}, {score['balanced_accuracy_high']:.4f}], "
        f"accuracy {score['accuracy']:.4f}, top-5 {score['top_5']:.4f}, loss {score['loss']:.4f}\n"
        f"{'':>10}calibration error {score['calibration_error']:.4f}"
        f"{'' if before is None else f' ({before:.4f} before calibration)'}; "
    )
    if "precision_kept" in score:
        return lines + (
            f"{score['coverage']:.1%} of the titles have a confidence of at least "
            f"{score['threshold']:.3f}; {score['precision_kept']:.1%} of these are right"
        )
    return lines + (
        f"no threshold for a precision of {target:g} was found on validation"
        if score["threshold"] == 1
        else f"no title has a confidence of {score['threshold']:.3f}"
    )


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
    """Write the tables that dvc.yaml declares as plots; what the folder held before is gone.

    categories.csv: rows, recall, precision and F1 of each category; hardest.csv: of the average, the
    categories of least recall; confused_pairs.csv: mistakes by right and given category;
    confusion_<model>.csv: right and given category of each title of the most confused categories;
    reliability_<model>.csv: accuracy by confidence; coverage_<model>.csv: accuracy of the most confident
    titles, by their share.
    """
    with atomic_folder(folder) as partial:
        _write_categories(outcomes, labels, partial)
        mistakes = {
            name: metrics.confused_pairs(model.labels_N, model.predicted_N)
            for name, model in outcomes.items()
        }
        with_pairs = (
            (name, labels[right], labels[given], rows)
            for name, found in mistakes.items()
            for right, given, rows in found[:_MOST_PAIRS]
        )
        _write(partial / "confused_pairs.csv", ("model", "category", "given", "titles"), with_pairs)
        shown = _most_mistaken(outcomes[AVERAGE], settings.confused_categories)
        for name, model in outcomes.items():
            rows = (
                (labels[right], labels[given] if given in shown else _OTHER)
                for right, given in zip(model.labels_N.tolist(), model.predicted_N.tolist(), strict=True)
                if right in shown
            )
            _write(partial / f"confusion_{name}.csv", ("category", "given"), rows)
            bins = _calibration(model, settings)
            table = zip(
                bins.rows.tolist(),
                bins.confidence.round(6).tolist(),
                bins.accuracy.round(6).tolist(),
                strict=True,
            )
            _write(partial / f"reliability_{name}.csv", ("titles", "confidence", "accuracy"), table)
            header = ("coverage", "precision", "threshold")
            _write(partial / f"coverage_{name}.csv", header, _coverage_curve(model))
        _write(partial / "reliability_ideal.csv", ("confidence", "accuracy"), [(0, 0), (1, 1)])


def _calibration(model: Outcomes, settings: Evaluate) -> metrics.Calibration:
    return metrics.calibration(model.confidence_N, model.right_N, settings.calibration_bins)


def _coverage_curve(model: Outcomes) -> list[list[float]]:
    """Share kept, share of those that is right, and threshold, at each hundredth of the titles or so."""
    found = metrics.coverage(model.confidence_N, model.right_N)
    share_K = found.kept / len(model)
    shown = np.unique(np.searchsorted(share_K, np.arange(1, _CURVE_POINTS + 1) / _CURVE_POINTS))
    table = np.stack([share_K, found.precision, found.threshold], 1)[shown]
    return table.round(6).tolist()  # type: ignore[no-any-return]


def _write_categories(outcomes: Mapping[str, Outcomes], labels: Sequence[str], folder: Path) -> None:
    tables = {
        name: metrics.per_category(model.labels_N, model.predicted_N, len(labels))
        for name, model in outcomes.items()
    }
    measures = ("recall", "precision", "f1")
    rates = np.stack([getattr(t, m) for t in tables.values() for m in measures], 1).round(6)
    rows_C = tables[AVERAGE].rows
    header = ("category", "rows", *(f"{name}_{m}" for name in tables for m in measures))
    rows = (
        (label, count, *rate)
        for label, count, rate in zip(labels, rows_C.tolist(), rates.tolist(), strict=True)
    )
    _write(folder / "categories.csv", header, rows)
    recall_C = tables[AVERAGE].recall.round(6)
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
