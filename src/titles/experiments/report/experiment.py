"""The parts of an experiment that a report shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from titles.data.contract import METRICS, PREDICTIONS
from titles.evaluation import predictions
from titles.experiments.measures import measures
from titles.experiments.store import DETAILS, Curve, Revision, Scores, find
from titles.models.registry import AVERAGE

SCORES = ("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "accuracy", "loss")
BEST = ("best_epoch", "train_loss", "validation_loss", "validation_balanced_accuracy")
CURVES = ("train/loss", "validation/loss", "validation/balanced_accuracy")


@dataclass(frozen=True)
class Experiment:
    """A run of the pipeline.

    name: as it was asked for. commit: its hash, empty for the workspace. params: values of params.yaml
    under dotted names. scores: measures on the test split, by model. best: metrics of the epoch that was
    kept, and curves: those in CURVES, by network; without networks of which they cannot be had.
    predictions: None if they cannot be had. notes: a line for each part that is missing.
    """

    name: str
    commit: str
    params: dict[str, Any]
    scores: Scores
    best: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Curve]]
    predictions: predictions.Predictions | None
    notes: Sequence[str] = ()


def load(name: str) -> Experiment:
    """Read an experiment, a git revision or the workspace of the project around the current folder.

    Versions before wrote fewer files, and DVC may no longer have some: what is missing is left out.

    Raises:
        ValueError: it does not exist, has no scores, or a file is damaged.
    """
    at = replace(find(name), name=name)  # messages use the name that was given
    scores, notes = at.scores, []
    for model, found in scores.items():
        measures(found, f"{DETAILS} of {name}, {model}", SCORES)
    best, curves = {}, {}
    for network in [model for model in scores if model != AVERAGE]:
        path = METRICS / f"{network}.json"
        try:
            found_best = at.json(path)[network]
            best[network] = measures(found_best, f"{path} of {name}, {network}", BEST)
        except (ValueError, KeyError) as error:
            notes.append(
                str(error) if isinstance(error, ValueError) else f"{path} of {name} has no {network}"
            )
        try:
            curves[network] = _curves(at, network)
        except ValueError as error:
            notes.append(str(error))
    try:
        content = at.read(PREDICTIONS)
    except ValueError as error:
        notes.append(str(error))
        return Experiment(name, at.commit, at.params, scores, best, curves, None, notes)
    try:
        predicted = predictions.read(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"{PREDICTIONS} of {name}: {error}") from None
    return Experiment(name, at.commit, at.params, scores, best, curves, predicted, notes)


def _curves(at: Revision, network: str) -> dict[str, Curve]:
    found = at.curves(network)
    if missing := [curve for curve in CURVES if curve not in found]:
        raise ValueError(f"{at.name} has no curve {', '.join(missing)} of {network}")
    return found
