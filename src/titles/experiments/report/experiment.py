"""The parts of an experiment that a report shows."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

from titles.data.contract import METRICS, PREDICTIONS
from titles.evaluation import predictions
from titles.experiments.store import Curve, Scores, find
from titles.models.registry import AVERAGE

CURVES = ("train/loss", "validation/loss", "validation/balanced_accuracy")


@dataclass(frozen=True)
class Experiment:
    """A run of the pipeline.

    name: as it was asked for. commit: its hash, empty for the workspace. params: values of params.yaml
    under dotted names. scores: measures on the test split, by model. best: metrics of the epoch that was
    kept, and curves: those in CURVES, by network.
    """

    name: str
    commit: str
    params: dict[str, Any]
    scores: Scores
    best: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Curve]]
    predictions: predictions.Predictions


def load(name: str) -> Experiment:
    """Read an experiment, a git revision or the workspace of the project around the current folder.

    Raises:
        ValueError: it does not exist, lacks a file, or a file is damaged or cannot be had.
    """
    at = replace(find(name), name=name)  # messages use the name that was given
    content = at.read(PREDICTIONS)
    try:
        predicted = predictions.read(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"{PREDICTIONS} of {name}: {error}") from None
    networks = [model for model in at.scores if model != AVERAGE]
    curves = {network: at.curves(network) for network in networks}
    for network, found in curves.items():
        if missing := [curve for curve in CURVES if curve not in found]:
            raise ValueError(f"{name} has no curve {', '.join(missing)} of {network}")
    best = {network: at.json(METRICS / f"{network}.json")[network] for network in networks}
    return Experiment(name, at.commit, at.params, at.scores, best, curves, predicted)
