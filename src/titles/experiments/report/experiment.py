"""The parts of an experiment that a report shows."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from titles.data.contract import METRICS, PREDICTIONS
from titles.evaluation import predictions
from titles.experiments.measures import measures
from titles.experiments.store import DETAILS, Curve, Revision, Scores, Stages, find, stages_of
from titles.models.registry import AVERAGE
from titles.tracking.provenance import without_login

CURVES = ("train/loss", "validation/loss", "validation/balanced_accuracy")
VALIDATION = "validation_balanced_accuracy"
_SCORES = ("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "accuracy", "loss")
_BEST = ("best_epoch", "train_loss", "validation_loss", VALIDATION)


@dataclass(frozen=True)
class Inputs:
    """What the stages of a run read, as its dvc.lock has it.

    read: by path and stage, the hash. made: paths that stages of the run made themselves. machines: by
    network, the class of machine that trained it.
    """

    read: Mapping[str, Mapping[str, str]]
    made: frozenset[str] = frozenset()
    machines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A run of the pipeline.

    name: as it was asked for. commit: its hash, empty for the workspace. params: values of params.yaml
    under dotted names. scores: measures on the test split, by model. best: metrics of the epoch that was
    kept, and curves: those in CURVES, by network; without networks of which they cannot be had.
    predictions, inputs: None if they cannot be had. notes: a line for each part that is missing.
    """

    name: str
    commit: str
    params: dict[str, Any]
    scores: Scores
    best: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Curve]]
    predictions: predictions.Predictions | None
    notes: Sequence[str] = ()
    inputs: Inputs | None = None

    def validation(self, model: str) -> float | None:
        """Balanced accuracy of a model on validation; None where an older version did not write it."""
        for found in (self.scores, self.best):
            value = found.get(model, {}).get(VALIDATION)
            if _is_number(value):
                return value
        return None


def load(name: str) -> Experiment:
    """Read an experiment, a git revision or the workspace of the project around the current folder.

    Versions before wrote fewer files, and DVC may no longer have some: what is missing is left out.

    Raises:
        ValueError: it does not exist, has no scores, or a file is damaged.
    """
    at = replace(find(name), name=name)  # messages use the name that was given
    scores = at.scores
    for model, found in scores.items():
        measures(found, f"{DETAILS} of {name}, {model}", _SCORES)
    made = Experiment(name, at.commit, at.params, scores, {}, {}, None)
    notes: list[str] = []
    machines: dict[str, str] = {}
    for network in [model for model in scores if model != AVERAGE]:
        path = METRICS / f"{network}.json"
        try:
            written = at.json(path)
            if network not in written:
                raise ValueError(f"{path} of {name} has no {network}")
            made.best[network] = measures(written[network], f"{path} of {name}, {network}", _BEST)
            used = written.get("used")
            if isinstance(used, dict) and "machine" in used:
                machines[network] = str(used["machine"])
        except ValueError as error:
            notes.append(str(error))
        try:
            made.curves[network] = _curves(at, network)
        except ValueError as error:
            notes.append(str(error))
    inputs = None
    try:
        lock = at.read(Path("dvc.lock"))
    except ValueError:  # the report says that inputs are unknown
        pass
    else:
        try:
            inputs = replace(inputs_of(stages_of(lock, f"dvc.lock of {name}"), name), machines=machines)
        except ValueError as error:
            notes.append(str(error))
    predicted = None
    try:
        content = at.read(PREDICTIONS)
    except ValueError as error:
        notes.append(str(error))
    else:
        try:
            predicted = predictions.read(io.BytesIO(content))
        except ValueError as error:
            raise ValueError(f"{PREDICTIONS} of {name}: {error}") from None
    return replace(made, predictions=predicted, notes=notes, inputs=inputs)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _curves(at: Revision, network: str) -> dict[str, Curve]:
    found = at.curves(network)
    if missing := [curve for curve in CURVES if curve not in found]:
        raise ValueError(f"{at.name} has no curve {', '.join(missing)} of {network}")
    return found


def inputs_of(stages: Stages, name: str) -> Inputs:
    """The inputs in the dvc.lock of a run; raises ValueError if a stage is not as DVC writes it."""
    read: dict[str, dict[str, str]] = {}
    made = set()
    try:
        for stage, values in stages.items():
            for item in values.get("deps") or []:
                # Outside the project, DVC has other kinds than md5: etag, checksum.
                value = item.get("md5") or item.get("etag") or item.get("checksum") or ""
                read.setdefault(without_login(str(item["path"])), {})[str(stage)] = str(value)
            made |= {str(item["path"]) for item in values.get("outs") or []}
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"dvc.lock of {name} is damaged: a stage lacks its parts") from None
    return Inputs(read, frozenset(made))
