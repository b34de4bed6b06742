"""Records a training with DVCLive, whose curves DVC plots, and in MLflow, where runs are compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from titles.params import Params
from titles.tracking import trial
from titles.tracking.curves import DvcliveTracker
from titles.tracking.mlflow import MlflowTracker
from titles.tracking.tracker import Tracker


class _All(Tracker):
    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(metrics, step)

    def log_pace(self, metrics: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log_pace(metrics, step)

    def finish(self, summary: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.finish(summary)

    def close(self, failed: bool) -> None:
        with ExitStack() as stack:  # all are closed, even if one fails to
            for tracker in self._trackers:
                stack.callback(tracker.close, failed)


@contextmanager
def tracked(
    name: str,
    params: Params,
    plots: Path,
    note: Path | None,
    abandoned: Sequence[Path],
    used: Mapping[str, object],
) -> Iterator[Tracker]:
    """Record a training of the model `name`; curves go to the file `plots`.

    With TITLES_MLFLOW=off in the environment MLflow is not even imported.

    Args:
        note: file for the id of the MLflow run. If it already names the run of a killed training, this
            training continues that run.
        abandoned: notes of killed trainings; their MLflow runs are marked as killed.
        used: what the training uses where a parameter leaves it open; MLflow gets it beside the
            parameters, as used.<name>.

    Raises:
        ValueError: TITLES_MLFLOW is neither on nor off; see also `DvcliveTracker`.
    """
    choice = os.environ.get("TITLES_MLFLOW") or "on"
    if choice not in ("on", "off"):
        raise ValueError(f"TITLES_MLFLOW is {choice!r}, expected on or off")
    trackers: list[Tracker] = [DvcliveTracker(plots)]
    if choice == "on":
        trackers.append(MlflowTracker(name, params, note, abandoned, used))
    if folder := os.environ.get(trial.VARIABLE):
        # Last: it may end the training, once others have logged.
        planned = used["epochs"]
        assert isinstance(planned, int)
        trackers.append(trial.TrialTracker(name, Path(folder), planned))
    tracker = _All(trackers)
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed)
