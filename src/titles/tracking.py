"""Where a training is recorded: DVCLive for curves that DVC plots, MLflow for runs side by side.

Tracking never decides over a training: if MLflow fails, at the start or in between, a warning is all
that comes of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from titles.params import Params

EXPERIMENT = "titles"
_PARAMS_A_BATCH = 100  # more is refused by MLflow

# A server that is down is given up in seconds, not in the minutes that the defaults take.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class Tracker:
    """Records nothing; what records overrides it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of one epoch, under names such as train/loss."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """What the training came to."""

    def close(self, failed: bool) -> None:
        """The end, whatever it was."""


class DvcliveTracker(Tracker):
    """Curves as tables below folder/plots/metrics, one a metric."""

    def __init__(self, folder: Path) -> None:
        from dvclive.live import Live

        # The stage declares its plots and metrics itself: DVCLive must write neither dvc.yaml nor an
        # experiment of its own.
        self._live = Live(str(folder), dvcyaml=None, save_dvc_exp=False, report=None)
        self._summary = folder / "metrics.json"

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in metrics.items():
            self._live.log_metric(name, value)
        self._live.make_summary()  # type: ignore[no-untyped-call]

    def close(self, failed: bool) -> None:
        self._live.end()  # type: ignore[no-untyped-call]
        # It holds the last epoch, which reads like the result and is not: that is the best epoch's.
        self._summary.unlink(missing_ok=True)


class MlflowTracker(Tracker):
    """One MLflow run, in the local store of the project or at MLFLOW_TRACKING_URI."""

    def __init__(self, name: str, params: Params) -> None:
        self._client: Any = None
        try:
            self._start(name, params)
        except Exception as error:
            self._give_up(error)

    def _start(self, name: str, params: Params) -> None:
        from filelock import FileLock
        from mlflow import MlflowClient

        # DVC_ROOT is the project also in temporary workspaces, so that their runs land here too.
        root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        # Two processes that both create the local store would break it.
        with nullcontext() if uri else FileLock(root / "mlflow.db.lock", timeout=30):
            client = MlflowClient(uri or f"sqlite:///{root}/mlflow.db")
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                artifacts = None if uri else (root / "mlruns").as_uri()
                experiment_id = client.create_experiment(EXPERIMENT, artifacts)
            else:
                experiment_id = experiment.experiment_id
        experiment_name = os.environ.get("DVC_EXP_NAME", "")
        run_name = f"{experiment_name or 'workspace'} {name}"
        run = client.create_run(experiment_id, tags=_tags(name), run_name=run_name)
        self._client, self._run = client, run.info.run_id
        self._log_params(params)

    def _log_params(self, params: Params) -> None:
        from mlflow.entities import Param

        flat = [Param(key, str(value)) for key, value in _flat(params.model_dump(mode="json"))]
        for start in range(0, len(flat), _PARAMS_A_BATCH):
            self._client.log_batch(self._run, params=flat[start : start + _PARAMS_A_BATCH])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._guarded(lambda: self._log(metrics, step))

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[Metric(key, value, now, step) for key, value in metrics.items()]
        )

    def finish(self, summary: Mapping[str, float]) -> None:
        self._guarded(lambda: self._log({f"best/{k}": v for k, v in summary.items()}, 0))

    def close(self, failed: bool) -> None:
        status = "FAILED" if failed else "FINISHED"
        self._guarded(lambda: self._client.set_terminated(self._run, status))

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._client is None:
            return
        try:
            action()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        print(f"warning: MLflow does not record this training: {error}", file=sys.stderr)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _tags(name: str) -> dict[str, str]:
    """What leads from the run back to code, data and experiment."""
    tags = {
        "model": name,
        "git.revision": _git_revision(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
    tags |= {f"data.{path}": digest for path, digest in _data_hashes().items()}
    return {key: value for key, value in tags.items() if value}


def _git_revision() -> str:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _data_hashes() -> dict[str, str]:
    """Hashes of the source and of what earlier stages made, as DVC has written them down by now."""
    if "DVC_STAGE" not in os.environ:  # run by hand, nothing says that the lock fits the data
        return {}
    try:
        stages = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
        return {
            item["path"]: item["md5"]
            for stage in ("prepare", "embed")
            for item in stages[stage]["deps"] + stages[stage]["outs"]
            if "md5" in item and not item["path"].startswith("src/")
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


class _Both(Tracker):
    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(metrics, step)

    def finish(self, summary: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.finish(summary)

    def close(self, failed: bool) -> None:
        with ExitStack() as stack:  # all are closed, even if one fails to
            for tracker in self._trackers:
                stack.callback(tracker.close, failed)


@contextmanager
def tracked(name: str, params: Params, plots: Path) -> Iterator[Tracker]:
    """Record a training of the model `name`; curves go to the folder `plots`."""
    tracker = _Both(DvcliveTracker(plots), MlflowTracker(name, params))
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed)
