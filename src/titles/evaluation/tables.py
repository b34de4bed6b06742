"""Results on the test split: the numbers of metrics/ and the tables that DVC plots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titles.data.contract import LANGUAGES, QUALITIES
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder
from titles.data.outcomes import Floats, Outcomes, balanced_accuracy
from titles.evaluation import metrics
from titles.models.registry import AVERAGE
from titles.params import Evaluate

_TAG = re.compile("<(?=[a-z/!?])", re.I)
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
    unseen: Mapping[str, Outcomes],
    settings: Evaluate,
    seed: int,
) -> dict[str, dict[str, float]]:
    """The measures of each model, the average first.

    as_trained: outcomes before calibration. unseen: those on which thresholds are chosen, of titles that
        no training has looked at where there are any.
    """
    found = {}
    for name in sorted(outcomes, key=lambda name: name != AVERAGE):
        model, held_out = outcomes[name], validation[name]
        found[name] = metrics.summary(model, settings.bootstrap_samples, seed)
        found[name]["validation_balanced_accuracy"] = _accuracy(held_out)
        found[name]["calibration_error"] = _calibration(model, settings).error
        if name != AVERAGE:  # its networks are calibrated, not the average itself
            found[name]["calibration_error_before"] = _calibration(as_trained[name], settings).error
        found[name] |= metrics.abstention(unseen[name], model, settings.target_precision)
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
    """The columns of `dvc exp show`, in their order, with names such as cnn.accuracy."""
    return {
        f"{name}.{measure}": values[measure] for measure in _HEADLINE for name, values in models.items()
    }


def described(models: Mapping[str, Mapping[str, float]], target: float) -> str:
    """The result of `measures` as text; `target` is the precision asked for."""
    return "\n".join(_described(name, values, target) for name, values in models.items())


def _described(name: str, score: Mapping[str, float], target: float) -> str:
    before = score.get("calibration_error_before")
    if "precision_kept" in score:
        kept = (
            f"{score['coverage']:.1%} of the titles have a confidence of at least "
            f"{score['threshold']:.3f}; {score['precision_kept']:.1%} of these are right"
        )
    elif score["threshold"] == 1:
        kept = f"no threshold for a precision of {target:g} was found"
    else:
        kept = f"no title has a confidence of {score['threshold']:.3f}"
    return (
        f"{name:>8}: balanced accuracy {score['balanced_accuracy']:.4f} "
        f"[{score['balanced_accuracy_low']:.4f}, {score['balanced_accuracy_high']:.4f}], "
        f"accuracy {score['accuracy']:.4f}, top-5 {score['top_5']:.4f}, loss {score['loss']:.4f}\n"
        f"{'':>10}calibration error {score['calibration_error']:.4f}"
        f"{'' if before is None else f' ({before:.4f} before calibration)'}; {kept}"
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
            | {name: _accuracy(model.where(flags_N)) for name, model in outcomes.items()}
            for group, flags_N in members
            if flags_N.any()
        }
        for kind, members in groups.items()
    }


def _accuracy(model: Outcomes) -> float:
    return round(balanced_accuracy(model.labels_N, model.right_N), 6)


def write_tables(
    outcomes: Mapping[str, Outcomes],
    labels: Sequence[str],
    settings: Evaluate,
    folder: Path,
    sets: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the tables that dvc.yaml declares as plots; replaces the folder.

    categories.csv: rows, recall, precision and F1 of each category; hardest.csv: the categories of least
    recall of the average; confused_pairs.csv: mistakes by true and given category;
    confusion_<model>.csv: true and given category of each title of the most confused categories;
    reliability_<model>.csv: accuracy by confidence; coverage_<model>.csv: accuracy of the most confident
    titles, by their share; sets_<model>.csv: the tables of `sets.by_tenth`.
    """
    labels = [_in_pages(name) for name in labels]
    names_C = np.array(labels, object)
    by_category = {
        name: metrics.per_category(model.labels_N, model.predicted_N, len(labels))
        for name, model in outcomes.items()
    }
    rates = {
        f"{name}_{rate}": getattr(found, rate)
        for name, found in by_category.items()
        for rate in ("recall", "precision", "f1")
    }
    rows_C, recall_C = by_category[AVERAGE].rows, by_category[AVERAGE].recall.round(6)
    occurs = np.flatnonzero(rows_C)
    hardest = occurs[np.argsort(recall_C[occurs], kind="stable")][:_HARDEST]
    mistakes = {
        name: metrics.confused_pairs(model.labels_N, model.predicted_N)
        for name, model in outcomes.items()
    }
    named = [
        (name, labels[right], labels[given], titles)
        for name, found in mistakes.items()
        for right, given, titles in found[:_MOST_PAIRS]
    ]
    confused = dict.fromkeys(code for *pair, _ in mistakes[AVERAGE] for code in pair)
    shown = list(confused)[: settings.confused_categories]
    with atomic_folder(folder) as partial:

        def save(table: str, columns: Any) -> None:
            frame = pd.DataFrame(columns).round(6)
            frame.to_csv(partial / f"{table}.csv", index=False, lineterminator="\n")

        save("categories", {"category": labels, "rows": rows_C, **rates})
        worst = {"category": names_C[hardest], "recall": recall_C[hardest], "rows": rows_C[hardest]}
        save("hardest", worst)
        save("confused_pairs", pd.DataFrame(named, columns=["model", "category", "given", "titles"]))
        for name, model in outcomes.items():
            concerns_N = np.isin(model.labels_N, shown)
            right, given = model.labels_N[concerns_N], model.predicted_N[concerns_N]
            given_names = np.where(np.isin(given, shown), names_C[given], _OTHER)
            save(f"confusion_{name}", {"category": names_C[right], "given": given_names})
            bins = _calibration(model, settings)
            reliability = {"confidence": bins.confidence, "accuracy": bins.accuracy}
            save(f"reliability_{name}", {"titles": bins.rows, **reliability})
            save(f"coverage_{name}", _coverage_curve(model))
            save(f"sets_{name}", sets[name])


def _in_pages(name: str) -> str:
    """A name that looks the same, with an invisible word joiner after each < that could open a tag: DVC
    writes plots into a script of its page as they are, which </script> would end."""
    return _TAG.sub("<\u2060", name)


def _calibration(model: Outcomes, settings: Evaluate) -> metrics.Calibration:
    return metrics.calibration(model.confidence_N, model.right_N, settings.calibration_bins)


def _coverage_curve(model: Outcomes) -> dict[str, Floats]:
    """Share kept, precision of those, and threshold, at about each hundredth of the titles."""
    found = metrics.coverage(model.confidence_N, model.right_N)
    share_K = found.kept / len(model)
    shown = np.unique(np.searchsorted(share_K, np.arange(1, _CURVE_POINTS + 1) / _CURVE_POINTS))
    return {
        "coverage": share_K[shown],
        "precision": found.precision[shown],
        "threshold": found.threshold[shown],
    }
