"""MLflow's store of the project, and the tracker that writes a run into it.

An MLflow failure never affects a training: it only causes a warning, at the start or later. Results that
only DVC knows, such as those on the test split, are added afterwards: experiments/mlflow_sync.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any

from titles.data.documents import parse_yaml, read_bytes
from titles.data.files import atomic_file
from titles.params import Params
from titles.tracking import local_store
from titles.tracking.provenance import data_hashes, flat_text, project_folder
from titles.tracking.tracker import Tracker

EXPERIMENT = "titles"
LIVE = "live"  # tag `source` of a run that was logged while it trained
_PARAMS_PER_BATCH = 100  # MLflow refuses more
# Of the MLflow experiment; the first makes its pages those of trainings.
_ABOUT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "A run for each experiment or commit of DVC, its trainings nested in it. "
    "`titles mlflow sync` updates them.",
}
_LOCAL_PAGES = "http://127.0.0.1:5000"  # of `make mlflow`

# Give up on a server that is down within seconds; MLflow's defaults take minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Its messages about its inner steps say nothing to users, and its bars are drawn into files too.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
if not sys.stderr.isatty():
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow would print the address of each run, including its password.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or the local store of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_store.uri(project_folder() / "mlflow.db")


def open_store() -> tuple[Any, str]:
    """Return a client of the store and the id of the MLflow experiment that holds all runs.

    Raises:
        ValueError: the experiment was deleted in MLflow, or the local store is not whole.
    """
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = store_uri()
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    # Two processes that create the local store at the same time would break it.
    with FileLock(project_folder() / "mlflow.db.lock", timeout=30) if local else nullcontext():
        artifacts = (project_folder() / "mlruns").as_uri() if local else None
        if artifacts:
            _make_local(project_folder() / "mlflow.db", artifacts)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return client, client.create_experiment(EXPERIMENT, artifacts, tags=dict(_ABOUT))
    if experiment.lifecycle_stage != "active":
        raise ValueError(
            f"MLflow's experiment {EXPERIMENT!r} was deleted: restore it, with its runs, by "
            f"`{restoring('experiments', '--experiment-id', experiment.experiment_id)}`"
        )
    return client, experiment.experiment_id


def describe(client: Any, experiment_id: str) -> None:
    """Give an MLflow experiment that an older version made, or a person, what it lacks."""
    known = client.get_experiment(experiment_id).tags
    for name, value in _ABOUT.items():
        if name not in known:
            client.set_experiment_tag(experiment_id, name, value)


def _make_local(store: Path, artifacts: str) -> None:
    """Make the local store, unless it is there."""
    try:
        missing = not store.exists() or local_store.schema(store) is None
    except ValueError as error:
        raise ValueError(
            f"{store} is no whole store of MLflow ({error}): `titles doctor` says how to mend it"
        ) from None
    if missing:
        local_store.make(store, artifacts)


def restoring(kind: str, option: str, number: str) -> str:
    """The command that restores what was deleted in MLflow: "experiments" or "runs"."""
    uri = "" if os.environ.get("MLFLOW_TRACKING_URI") else f"MLFLOW_TRACKING_URI={quote(store_uri())} "
    return f"{uri}mlflow {kind} restore {option} {number}"


def page(place: str) -> str:
    """The address of one of MLflow's pages, such as "models/titles", without user and password."""
    scheme, _, rest = store_uri().partition("://")
    served = f"{scheme}://{rest.rpartition('@')[2]}" if scheme in ("http", "https") else _LOCAL_PAGES
    # MLflow would else begin with its pages for language models.
    return f"{served.rstrip('/')}/#/{place}?workflowType=machine_learning"


def served_by() -> str:
    """The command that serves the pages, as a line; "" if a server does."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and uri.startswith(("http://", "https://")):
        return ""
    command = f"mlflow ui --backend-store-uri {quote(concealed(uri))}" if uri else "make mlflow"
    return f"`{command}` serves the pages"


@contextmanager
def as_default() -> Iterator[None]:
    """Let functions of MLflow that take no store use this one: by default they make a folder named like
    the current one, but quoted."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(store_uri())  # also in the environment
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def concealed(text: str) -> str:
    """Replace the credentials of MLFLOW_TRACKING_URI and its companion variables in `text`."""
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
        self,
        name: str,
        params: Params,
        note: Path | None = None,
        abandoned: Sequence[Path] = (),
        used: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """See `tracked`."""
        self._client: Any = None
        self._logged: set[tuple[str, int]] = set()
        try:
            values = flat_text(params.model_dump(mode="json")) | used_params(used)
            self._start(name, values, note, abandoned)
        except Exception as error:
            self._give_up(error)

    def _start(
        self, name: str, values: Mapping[str, str], note: Path | None, abandoned: Sequence[Path]
    ) -> None:
        client, experiment_id = open_store()

        def kill(run: Any) -> None:
            if run and run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")

        for path in abandoned:
            kill(_noted(client, experiment_id, path))
        run_name = f"{os.environ.get('DVC_EXP_NAME') or 'workspace'} {name}"
        tags = _tags(name) | {
            "mlflow.source.name": f"dvc.yaml: train_{name}",
            "mlflow.source.type": "LOCAL",
        }
        run = _noted(client, experiment_id, note)
        if run and run.data.params.items() <= values.items():
            self._resume(client, run, run_name, tags)
        else:
            kill(run)
            run = client.create_run(experiment_id, tags=tags, run_name=run_name)
        self._run = run.info.run_id
        if note:
            with atomic_file(note) as partial:
                partial.write_text(self._run, encoding="utf-8")
        log_params(client, self._run, values)
        self._client = client

    def _resume(self, client: Any, run: Any, run_name: str, tags: Mapping[str, str]) -> None:
        """Continue the run of a killed training; some of its epochs may be logged already."""
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

    def log_pace(self, metrics: Mapping[str, float], step: int) -> None:
        self._guarded(lambda: self._log({f"pace/{k}": v for k, v in metrics.items()}, step))

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
    """The run that a note names, or None if this store does not have it."""
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


def used_params(used: Mapping[str, object]) -> dict[str, str]:
    """What a training used where a parameter leaves it open, as MLflow names it."""
    return {f"used.{name}": str(value) for name, value in used.items()}


def log_params(client: Any, run: str, params: Mapping[str, str]) -> None:
    """Log any number of parameters."""
    from mlflow.entities import Param

    values = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(values), _PARAMS_PER_BATCH):
        client.log_batch(run, params=values[start : start + _PARAMS_PER_BATCH])


def _tags(name: str) -> dict[str, str]:
    """Tags that link the run to its code, data and experiment."""
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
    # Where there is no commit, git fails and prints "HEAD" all the same.
    return "" if found.returncode else found.stdout.strip()


def _data_hashes() -> dict[str, str]:
    """Hashes of the data in the current dvc.lock."""
    if "DVC_STAGE" not in os.environ:  # run by hand: the lock may not fit the data
        return {}
    try:
        return data_hashes(parse_yaml(read_bytes(Path("dvc.lock")))["stages"])
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
