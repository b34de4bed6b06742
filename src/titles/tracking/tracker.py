"""Where a training is recorded: DVCLive for curves that DVC plots, MLflow for runs side by side.

Tracking never decides over a training: if MLflow fails, at the start or in between, a warning is all
that comes of it. What only DVC knows, such as the results on the test split, is added to the runs
afterwards: mlflow_store.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from titles.data.contract import atomic_file, atomic_folder
from titles.params import Params

EXPERIMENT = "titles"
LIVE = "live"  # tag `source` of a run that was logged while it trained
_PARAMS_A_BATCH = 100  # more is refused by MLflow

# A server that is down is given up in seconds, not in the minutes that the defaults take.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow would print the address of each run, with the password that it may hold.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


class Tracker:
    """Records nothing; what records overrides it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of one epoch, under names such as train/loss."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """What the training came to."""

    def close(self, failed: bool) -> None:
        """The end, whatever it was."""


class DvcliveTracker(Tracker):
    """Curves as tables below folder/plots/metrics, one a metric, with the same epochs in all of them.

    Raises:
        ValueError: git has no commit yet.
    """

    def __init__(self, folder: Path) -> None:
        from dvclive.live import Live
        from scmrepo.exceptions import SCMError

        self._folder = folder
        # DVCLive adds to one table after the other; what a killed training leaves here is nobody's.
        self._growing = folder.with_name(f"{folder.name}.growing.partial")
        # The stage declares its plots and metrics itself: DVCLive must write neither dvc.yaml nor an
        # experiment of its own.
        try:
            self._live = Live(str(self._growing), dvcyaml=None, save_dvc_exp=False, report=None)
        except SCMError as error:
            raise ValueError(
                f"the git repository has no commit that curves could belong to ({error}): "
                "`git add . && git commit` first"
            ) from None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in metrics.items():
            self._live.log_metric(name, value)
        with atomic_folder(self._folder) as folder:
            shutil.copytree(self._growing / "plots", folder / "plots")

    def close(self, failed: bool) -> None:
        try:
            self._live.end()  # type: ignore[no-untyped-call]
        finally:
            shutil.rmtree(self._growing, ignore_errors=True)


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or the local store of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_project()}/mlflow.db"


def _project() -> Path:
    # DVC_ROOT is the project also in temporary workspaces, so that their runs land here too.
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def open_store() -> tuple[Any, str]:
    """A client of the store, and the id of the MLflow experiment that holds all runs."""
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = store_uri()
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    # Two processes that both create the local store would break it.
    with FileLock(_project() / "mlflow.db.lock", timeout=30) if local else nullcontext():
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            artifacts = (_project() / "mlruns").as_uri() if local else None
            return client, client.create_experiment(EXPERIMENT, artifacts)
    return client, experiment.experiment_id


def concealed(text: str) -> str:
    """`text` without the user and password that MLFLOW_TRACKING_URI may hold, nor other credentials."""
    authority = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2]
    login, _, _ = authority.rpartition("@")
    secrets = [login, login.partition(":")[2]]
    secrets += [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    secrets += [urllib.parse.unquote(secret) for secret in secrets]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class MlflowTracker(Tracker):
    """One MLflow run, in the local store of the project or at MLFLOW_TRACKING_URI."""

    def __init__(
        self, name: str, params: Params, note: Path | None = None, abandoned: Sequence[Path] = ()
    ) -> None:
        """See `tracked`."""
        self._client: Any = None
        self._logged: set[tuple[str, int]] = set()
        try:
            self._start(name, params, note, abandoned)
        except Exception as error:
            self._give_up(error)

    def _start(self, name: str, params: Params, note: Path | None, abandoned: Sequence[Path]) -> None:
        client, experiment_id = open_store()
        for path in abandoned:
            run = _noted(client, experiment_id, path)
            if run and run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
        experiment_name = os.environ.get("DVC_EXP_NAME", "")
        run_name = f"{experiment_name or 'workspace'} {name}"
        tags, values = _tags(name), flat(params.model_dump(mode="json"))
        run = _noted(client, experiment_id, note)
        if run and run.data.params.items() <= values.items():
            self._go_on(client, run, run_name, tags)
        else:
            if run and run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
            run = client.create_run(experiment_id, tags=tags, run_name=run_name)
        self._run = run.info.run_id
        if note:
            with atomic_file(note) as partial:
                partial.write_text(self._run, encoding="utf-8")
        log_params(client, self._run, values)
        self._client = client

    def _go_on(self, client: Any, run: Any, run_name: str, tags: Mapping[str, str]) -> None:
        """With the run of a training that was killed, of which some epochs may be logged already."""
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING", name=run_name)
        for key in run.data.tags:
            if not key.startswith("mlflow.") and key not in tags:
                client.delete_tag(run_id, key)
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        for key in run.data.metrics:
            self._logged |= {(key, point.step) for point in client.get_metric_history(run_id, key)}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._guarded(lambda: self._log(metrics, step))

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {key: value for key, value in metrics.items() if (key, step) not in self._logged}
        if new:
            self._client.log_batch(
                self._run, metrics=[Metric(key, value, now, step) for key, value in new.items()]
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
        print(f"warning: MLflow does not record this training: {concealed(str(error))}", file=sys.stderr)


def _noted(client: Any, experiment_id: str, note: Path | None) -> Any:
    """The run that a note names, or None where this store has none such."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(note.read_text(encoding="utf-8")) if note else None
    except FileNotFoundError:
        return None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    ours = run and run.info.experiment_id == experiment_id and run.info.lifecycle_stage == "active"
    return run if ours else None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as text under dotted names, addresses without user and password."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _without_login(str(value))
    return found


def _without_login(text: str) -> str:
    return re.sub(r"(\w[\w+.-]*://)\S*@", r"\1", text)


def log_params(client: Any, run: str, params: Mapping[str, str]) -> None:
    """Log any number of parameters."""
    from mlflow.entities import Param

    all_of_them = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(all_of_them), _PARAMS_A_BATCH):
        client.log_batch(run, params=all_of_them[start : start + _PARAMS_A_BATCH])


def _tags(name: str) -> dict[str, str]:
    """What leads from the run back to code, data and experiment."""
    tags = {
        "model": name,
        "source": LIVE,
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
    """Hashes of the data, as DVC has written them down by now."""
    if "DVC_STAGE" not in os.environ:  # run by hand, nothing says that the lock fits the data
        return {}
    try:
        return data_hashes(yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


def data_hashes(stages: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the source and of what the stages before training made, of the stages in a dvc.lock."""
    return {
        _without_login(item["path"]): item["md5"]
        for stage in ("prepare", "embed")
        for item in stages[stage].get("deps", []) + stages[stage].get("outs", [])
        if "md5" in item and not item["path"].startswith("src/")
    }


class _All(Tracker):
    def __init__(self, trackers: Sequence[Tracker]) -> None:
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
def tracked(
    name: str,
    params: Params,
    plots: Path,
    note: Path | None = None,
    abandoned: Sequence[Path] = (),
) -> Iterator[Tracker]:
    """Record a training of the model `name`; curves go to the folder `plots`.

    With TITLES_MLFLOW=off in the environment MLflow is not even imported.

    Args:
        note: file for the id of the MLflow run. Where it names one already, of a training that was
            killed, this training goes on with that run.
        abandoned: notes of trainings that were killed; MLflow is told so of each.

    Raises:
        ValueError: TITLES_MLFLOW is neither on nor off; see also `DvcliveTracker`.
    """
    choice = os.environ.get("TITLES_MLFLOW") or "on"
    if choice not in ("on", "off"):
        raise ValueError(f"TITLES_MLFLOW is {choice!r}, expected on or off")
    trackers: list[Tracker] = [DvcliveTracker(plots)]
    if choice == "on":
        trackers.append(MlflowTracker(name, params, note, abandoned))
    tracker = _All(trackers)
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed)
