"""The results of runs for a search: their scores, and why some have none."""

from __future__ import annotations

import math
import re

from titles.data.contract import METRICS
from titles.experiments.commands import git
from titles.experiments.search.space import ACCURACY
from titles.experiments.search.task import Task, reference
from titles.experiments.store import Revision, experiments
from titles.experiments.suite.state import differing_params
from titles.models.registry import AVERAGE
from titles.params import Params

_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full")


def made(baseline: str, name: str) -> Revision | None:
    """The experiment of a name on a commit, or None if it is not finished."""
    commit = git("for-each-ref", "--format=%(objectname)", reference(baseline, name)).strip()
    return Revision(name, commit, baseline, 0) if commit else None


def names(search: str, baseline: str) -> list[str]:
    """Experiments on a commit that have names of trials, or of confirmations, of a search."""
    form = re.compile(rf"{re.escape(search)}-(confirm-\d+-)?\d+")
    return [found.name for found in experiments(baseline) if form.fullmatch(found.name)]


def finished(task: Task, params: Params) -> Revision | None:
    """The experiment of a task with these parameters, if a call before has made it.

    Raises:
        ValueError: the name is taken by an experiment with others.
    """
    experiment = made(task.baseline, task.name)
    if experiment and (differing := differing_params(params, experiment.params)):
        raise ValueError(f"the name {task.name} is taken ({differing}): `dvc exp remove {task.name}`")
    return experiment


def curve(experiment: Revision, network: str) -> list[float]:
    """Balanced accuracy on the validation split after each epoch; raises ValueError if there is none."""
    try:
        return [score for _, score in experiment.curves(network)["validation/balanced_accuracy"]]
    except (KeyError, ValueError) as error:
        raise ValueError(f"its curve of the {network} is damaged: {error}") from None


def accuracy(experiment: Revision, network: str) -> float:
    """Balanced accuracy on the validation split. Figures of the test split are not read.

    Args:
        network: or the average.

    Raises:
        ValueError: there is none, or it is not finite.
    """
    try:
        if network == AVERAGE:
            score = experiment.json(METRICS / "evaluate.json")[f"{AVERAGE}.{ACCURACY}"]
        else:
            score = experiment.json(METRICS / f"{network}.json")[network][ACCURACY]
        found = float(score)
    except (KeyError, TypeError) as error:
        raise ValueError(f"its metrics have no {ACCURACY} of the {network}: {error}") from None
    if not math.isfinite(found):
        raise ValueError(f"its {ACCURACY} is {found}")
    return found


def cause(log: str, code: int) -> str:
    """Why a run failed, in a few words, as far as its output shows."""
    if "exited with -9" in log or "exited with 137" in log or code in (-9, 137):
        return "killed, probably out of memory"
    for line in reversed(log.splitlines()):
        if "out of memory" in line.lower() or line.startswith("error: "):
            return line.strip()
    return f"exit code {code}"


def refuse_full_disk(log: str) -> None:
    """Raise ValueError if a run failed for lack of space, as all that follow would."""
    for words in _FULL:
        if words in log:
            raise ValueError(f"{words}: make room, and the same command goes on with what was running")
