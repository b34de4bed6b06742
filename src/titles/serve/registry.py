"""Networks of DVC's experiments as versions of a model in MLflow's registry, and how to find them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from titles.data.contract import MODELS
from titles.experiments.mlflow_sync import RESULT, Runs, all_results, opened
from titles.experiments.results import VALIDATION, Result, results_at
from titles.experiments.store import WORKSPACE, Revision, find
from titles.models.registry import AVERAGE
from titles.serve import mlflow_model
from titles.tracking.mlflow import LIVE, as_default, concealed, restoring, store_uri

REGISTERED = "titles"
BEST = "best"
_MEASURE = "validation_balanced_accuracy"
_SPLIT = f"data.{VALIDATION}"
_LOCAL_UI = "http://127.0.0.1:5000"


def described(name: str) -> str:
    """Describe the runs and registered versions of an experiment or another revision; of runs that were
    deleted in MLflow, how to restore them.

    Raises:
        ValueError: there is no such revision, nothing has run there, MLflow has no run of it, or as
            `mlflow_sync.sync`.
    """
    results = results_at(find(name))
    if not results:
        raise ValueError(f"{name} has no results: no stage has run there, or not to its end")
    lines = []
    with opened() as runs:
        for result in results:
            active = runs.active(result)
            for run in active or runs.of(result)[-1:]:
                source, number = run.data.tags.get("source", LIVE), run.info.run_id
                place = _address(runs, run) if active else f"deleted in MLflow, see `{_restoring(run)}`"
                lines.append(f"{result.model:8} {source:9} {number}  {place}")
                lines += [f"{'':8} {_line(v)}" for v in _versions(runs.client) if v.run_id == number]
    if not lines:
        raise ValueError(
            f"MLflow at {concealed(store_uri())} has no run of {name}: `titles mlflow sync` writes it"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        lines.append(f"`make mlflow` serves {_LOCAL_UI}")
    return "\n".join(lines)


def register(name: str | None = None) -> str:
    """Make the best network of an experiment, or of all experiments, a version of models:/titles.

    Networks are ranked by balanced accuracy on validation, never on test. The alias `best` goes to the
    best version evaluated on the same validation split: other versions cannot be compared. MLflow is
    brought up to date first. A network that is already registered is left as it is.

    Args:
        name: of an experiment or commit; None takes the best of all that were evaluated on the
            workspace's validation split.

    Returns:
        A summary for people.

    Raises:
        ValueError: there is nothing to register, its files cannot be had, or as `mlflow_sync.sync`.
    """
    if name == WORKSPACE:
        raise ValueError(
            "only what is saved can be registered, so that it can be restored: "
            "`dvc exp save --name NAME`, or commit, then register that"
        )
    chosen = find(name) if name else None
    with opened() as runs:
        results = all_results()
        runs.sync(results)
        result = _best_of(chosen) if chosen else _best_comparable(results)
        if result is None:
            raise ValueError(
                f"nothing to register: no network was trained to its end in {name or 'a saved run'}"
                + ("" if name else " on the workspace's data; `dvc exp save` or commit what is here")
            )
        found = runs.active(result)
        if not found:
            raise ValueError(
                f"the run of the {result.model} of {result.revision.name} "
                + (
                    f"was deleted in MLflow: `{_restoring(deleted[-1])}` before it is registered"
                    if (deleted := runs.of(result))
                    else "is not in MLflow, as the warning above says: its network cannot be registered"
                )
            )
        known = [v for v in _versions(runs.client) if v.tags.get(RESULT) == result.key]
        version = known[0] if known else _register(runs, result, found[-1])
        best = _point_at_best(runs.client, result.data[VALIDATION])
    told = "is registered already" if known else "is registered"
    return (
        f"the {result.model} of {result.revision.name} {told}\n  {_line(version)}\n"
        f"models:/{REGISTERED}@{BEST} is\n  {_line(best)}"
    )


@as_default()
def _register(runs: Runs, result: Result, run: Run) -> Any:
    """Log the network as a model of its run, and make it a version."""
    client, at, source = runs.client, result.revision, run.info.run_id
    tags = {
        "model": result.model,
        RESULT: result.key,
        "dvc.experiments": run.data.tags.get("dvc.experiments", at.name),
        "dvc.commit": at.commit,
        "dvc.get": at.get,
        _MEASURE: str(result.scores[_MEASURE]),
        _SPLIT: result.data[VALIDATION],
    }
    tags = {key: value for key, value in tags.items() if value}
    with tempfile.TemporaryDirectory() as made:
        folder, out = Path(made) / result.model, Path(made) / "mlflow"
        at.fetch(MODELS / result.model, folder)
        logged = client.create_logged_model(
            runs.experiment, REGISTERED, source, tags=tags, params=result.params
        )
        number = logged.model_id
        model = Model(logged.artifact_location, source, model_uuid=number, model_id=number)
        try:
            mlflow_model.write([folder], out, model)
            client.log_model_artifacts(number, str(out))
            client.finalize_logged_model(number, "READY")
        except BaseException:
            client.delete_logged_model(number)
            raise
    client.log_outputs(source, [LoggedModelOutput(number, step=0)])
    try:
        client.create_registered_model(
            REGISTERED, description="Titles to categories; `best` is the best on validation."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        REGISTERED, f"models:/{number}", source, tags=tags, model_id=number
    )


def _point_at_best(client: MlflowClient, split: str) -> Any:
    """Put the alias on the best version evaluated on a validation split, and return that version."""
    comparable = [v for v in _versions(client) if v.tags.get(_SPLIT) == split]
    best = max(comparable, key=lambda version: float(version.tags[_MEASURE]))
    if client.get_registered_model(REGISTERED).aliases.get(BEST) != best.version:
        client.set_registered_model_alias(REGISTERED, BEST, best.version)
    return best


def _versions(client: MlflowClient) -> list[Any]:
    """All registered versions, oldest first."""
    found = client.search_model_versions(f"name = '{REGISTERED}'", max_results=1000)
    return sorted(found, key=lambda version: int(version.version))


def _best_of(revision: Revision) -> Result | None:
    trained = [result for result in results_at(revision) if result.model != AVERAGE]
    return max(trained, key=_rank, default=None)


def _best_comparable(results: list[Result]) -> Result | None:
    """The best saved training of those evaluated on the workspace's validation split."""
    trained = [result for result in results if result.model != AVERAGE]
    now = next((r.data[VALIDATION] for r in trained if r.revision.name == WORKSPACE), None)
    if now is None:
        raise ValueError(
            "the workspace has no trained network, so the validation split to compare on is unknown: "
            "name an experiment, or `dvc repro` first"
        )
    saved = [r for r in trained if r.revision.commit and r.data[VALIDATION] == now]
    return max(saved, key=_rank, default=None)


def _rank(result: Result) -> tuple[float, float]:
    # As a training ranks its epochs.
    return result.scores[_MEASURE], -result.scores["validation_loss"]


def _line(version: Any) -> str:
    tags = version.tags
    return (
        f"models:/{REGISTERED}/{version.version}: {tags.get('model', '?')} of "
        f"{tags.get('dvc.experiments', '?')}, balanced accuracy on validation {tags.get(_MEASURE, '?')}"
    )


def _restoring(run: Run) -> str:
    return restoring("runs", "--run-id", run.info.run_id)


def _address(runs: Runs, run: Run) -> str:
    """URL of a run in MLflow's pages."""
    scheme, _, rest = store_uri().partition("://")
    base = f"{scheme}://{rest.rpartition('@')[2]}" if scheme in ("http", "https") else _LOCAL_UI
    return f"{base.rstrip('/')}/#/experiments/{runs.experiment}/runs/{run.info.run_id}"
