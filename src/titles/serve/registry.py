"""Models of DVC's experiments as versions of models in MLflow's registry, and how to find them.

models:/titles has classifiers as `titles predict` uses them: the average of the networks of an
experiment. Single networks are versions of models of their own, such as models:/titles-cnn: each alias
`best` is then given among models of the same kind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from titles.data.contract import MODELS, SETS_FILE
from titles.experiments import mlflow_datasets
from titles.experiments.mlflow_parents import PARENT
from titles.experiments.mlflow_sync import RESULT, Runs, all_results, opened
from titles.experiments.mlflow_writing import SCORE, is_active, log_metrics, score
from titles.experiments.results import VALIDATION, Result, results_at
from titles.experiments.store import WORKSPACE, find
from titles.models.registry import AVERAGE, CLASSIFIERS, NETWORKS
from titles.serve import mlflow_model
from titles.tracking.mlflow import (
    LIVE,
    as_default,
    concealed,
    page,
    restoring,
    served_by,
    store_uri,
)

BEST = "best"
_SPLIT = f"data.{VALIDATION}"


def registered_name(model: str) -> str:
    """The registered model that has versions of a network or of the average."""
    return "titles" if model == AVERAGE else f"titles-{model}"


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
        versions = [v for model in CLASSIFIERS for v in _versions(runs.client, registered_name(model))]
        if whole := runs.parents.of(results):
            lines.append(_run_line(runs, "experiment", "", whole))
        for result in results:
            for run in runs.active(result) or runs.of(result)[-1:]:
                lines.append(_run_line(runs, result.model, run.data.tags.get("source", LIVE), run))
                lines += [
                    f"{'':10} {_line(v)}\n{'':10} {_page(v)}"
                    for v in versions
                    if v.run_id == run.info.run_id
                ]
    if not lines:
        raise ValueError(
            f"MLflow at {concealed(store_uri())} has no run of {name}: `titles mlflow sync` writes it"
        )
    return "\n".join([*lines, *filter(None, [served_by()])])


def register(name: str | None = None, model: str = AVERAGE) -> str:
    """Make the classifier of an experiment, or of the best of all, a version in the registry.

    Models are ranked by balanced accuracy on validation, never on test. The alias `best` goes to the
    best version of the same kind that was evaluated on the same validation split: others cannot be
    compared. MLflow is brought up to date first. What is already registered is left as it is.

    Args:
        name: of an experiment or commit; None takes the best of all that were evaluated on the
            workspace's validation split.
        model: AVERAGE, all networks as `titles predict` uses them, or the name of one.

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
        if chosen and all(result.revision != chosen for result in results):
            results = [*results_at(chosen), *results]  # a commit without experiments
        runs.sync(results)
        of_kind = [r for r in (results_at(chosen) if chosen else results) if r.model == model]
        found = [
            (result, score(result, _evaluation(results, result)))
            for result in (of_kind if chosen else _comparable(results, of_kind))
        ]
        if not found:
            raise ValueError(_nothing(name, model))
        result, value = max(found, key=_rank)
        active = runs.active(result)
        if not active:
            raise ValueError(
                f"the run of the {model} of {result.revision.name} "
                + (
                    f"was deleted in MLflow: `{_restoring(deleted[-1])}` before it is registered"
                    if (deleted := runs.of(result))
                    else "is not in MLflow, as the warning above says: it cannot be registered"
                )
            )
        registered = registered_name(model)
        known = [v for v in _versions(runs.client, registered) if v.tags.get(RESULT) == result.key]
        version = known[0] if known else _register(runs, result, value, active[-1])
        best = _point_at_best(runs.client, registered, model, result.split)
        whole = runs.parents.of(results_at(result.revision))
    lines = [
        f"the {model} of {result.revision.name} {'is registered already' if known else 'is registered'}",
        f"  {_line(version)}",
        f"  {_page(version)}",
    ]
    if best:
        lines += [f"models:/{registered}@{BEST} is", f"  {_line(best)}"]
    if value is None or not result.split:
        lines.append(
            f"the alias {BEST} passes it by: it has no score on a validation split that is known"
        )
    if whole:
        lines.append(f"runs: {_address(runs, whole)}")
    return "\n".join([*lines, *filter(None, [served_by()])])


def _nothing(name: str | None, model: str) -> str:
    """Why there is nothing to register."""
    made = "no evaluation has" if model == AVERAGE else f"no training of the {model} has"
    where = f"in {name}" if name else "in a saved run on the workspace's data"
    remedy = "`dvc exp save` or commit what is here"
    if name:
        single = f"`--model {next(iter(NETWORKS))}` registers a single network"
        remedy = single if model == AVERAGE else "`titles table` shows what has run"
    return f"nothing to register: {made} run to its end {where}; {remedy}"


@as_default()
def _register(runs: Runs, result: Result, value: float | None, run: Run) -> Any:
    """Log the networks as one model of their run, and make it a version."""
    client, at, source = runs.client, result.revision, run.info.run_id
    run = client.get_run(source)  # with what the sync has added
    networks = _networks(result)
    tags = {
        "model": result.model,
        "networks": ", ".join(networks),
        "experiment": run.data.tags.get("experiment", at.name),
        RESULT: result.key,
        "dvc.experiments": run.data.tags.get("dvc.experiments", at.name),
        "dvc.commit": at.commit,
        "dvc.get": at.get,
        SCORE: "" if value is None else str(value),
        _SPLIT: result.split,
    }
    tags = {key: value for key, value in tags.items() if value}
    name = registered_name(result.model)
    with tempfile.TemporaryDirectory() as made:
        folders, out = [Path(made) / network for network in networks], Path(made) / "mlflow"
        for folder in folders:
            at.fetch(MODELS / folder.name, folder)
        evaluated = at.stages.get("evaluate", {}).get("outs", [])
        if any(each["path"] == (MODELS / SETS_FILE).as_posix() for each in evaluated):
            at.fetch(MODELS / SETS_FILE, Path(made) / SETS_FILE)
        logged = client.create_logged_model(
            runs.experiment,
            name,
            source,
            tags=tags | {"mlflow.source.name": "titles mlflow register"},
            params=result.params,
            model_type="classifier",
        )
        number = logged.model_id
        model = Model(logged.artifact_location, source, model_uuid=number, model_id=number)
        try:
            mlflow_model.write(folders, out, model)
            client.log_model_artifacts(number, str(out))
            client.finalize_logged_model(number, "READY")
        except BaseException:
            client.delete_logged_model(number)
            raise
    for holder in filter(None, [source, run.data.tags.get(PARENT)]):
        if is_active(client.get_run(holder)):
            client.log_outputs(holder, [LoggedModelOutput(number, step=0)])
    _link_metrics(client, run, result, number)
    try:
        client.create_registered_model(name, description=_about(result.model))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    what = (
        f"The weighted average of {', '.join(networks)}" if len(networks) > 1 else f"The {networks[0]}"
    )
    return client.create_model_version(
        name,
        f"models:/{number}",
        source,
        tags=tags,
        model_id=number,
        description=f"{what} of {at.name}. `{at.get}` brings its files back.",
    )


def _networks(result: Result) -> list[str]:
    """The networks of a result, in the order in which `titles predict` averages them.

    Raises:
        ValueError: this version of the project does not know one of them.
    """
    names = set(result.scores["models"]) - {AVERAGE} if result.model == AVERAGE else {result.model}
    if unknown := sorted(names - set(NETWORKS)):
        raise ValueError(
            f"{result.revision.name} has networks that this version does not know: {', '.join(unknown)}"
        )
    return [name for name in NETWORKS if name in names]


def _link_metrics(client: MlflowClient, run: Run, result: Result, number: str) -> None:
    """Make the metrics of a run those of a model on the split that they were measured on."""
    splits = mlflow_datasets.datasets(result)
    metrics = []
    for key in run.data.metrics:
        dataset = splits.get("test" if key.startswith("test/") else "validation" if key == SCORE else "")
        if dataset:
            point = client.get_metric_history(run.info.run_id, key)[-1]
            # An equal point adds nothing to the run.
            link = {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
            metrics.append(
                Metric(key, point.value, point.timestamp, point.step, model_id=number, **link)
            )
    log_metrics(client, run.info.run_id, metrics)


def _about(model: str) -> str:
    """The description of a registered model."""
    what = (
        "The weighted average of all networks of an experiment, as `titles predict` uses it"
        if model == AVERAGE
        else f"The {model} of an experiment"
    )
    return (
        f"Categories of marketplace titles. {what}. The alias `{BEST}` is the version with the highest "
        "balanced accuracy on validation, among those evaluated on the same validation split."
    )


def _point_at_best(client: MlflowClient, name: str, model: str, split: str) -> Any:
    """Put the alias on the best version evaluated on a validation split, and return that version; None
    if no version has a score there."""
    # Versions before this one registered single networks under the name of the average.
    comparable = [
        v
        for v in _versions(client, name)
        if split and v.tags.get(_SPLIT) == split and v.tags.get("model") == model and SCORE in v.tags
    ]
    best = max(comparable, key=lambda version: float(version.tags[SCORE]), default=None)
    if best and client.get_registered_model(name).aliases.get(BEST) != best.version:
        client.set_registered_model_alias(name, BEST, best.version)
    return best


def _versions(client: MlflowClient, name: str) -> list[Any]:
    """All versions of a registered model, oldest first."""
    found = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return sorted(found, key=lambda version: int(version.version))


def _evaluation(results: Sequence[Result], of: Result) -> Result | None:
    """The evaluation at the revision of a result."""
    return next((r for r in results if r.revision == of.revision and r.model == AVERAGE), None)


def _comparable(results: Sequence[Result], candidates: Sequence[Result]) -> list[Result]:
    """The saved candidates that were evaluated on the workspace's validation split."""
    now = next((r.split for r in results if r.revision.name == WORKSPACE), "")
    if not now:
        raise ValueError(
            "the workspace has no trained network, so the validation split to compare on is unknown: "
            "name an experiment, or `dvc repro` first"
        )
    return [r for r in candidates if r.revision.commit and r.split == now]


def _rank(found: tuple[Result, float | None]) -> float:
    return -1.0 if found[1] is None else found[1]


def _line(version: Any) -> str:
    tags = version.tags
    return (
        f"models:/{version.name}/{version.version}: {tags.get('model', '?')} of "
        f"{tags.get('dvc.experiments', '?')}, balanced accuracy on validation {tags.get(SCORE, '?')}"
    )


def _page(version: Any) -> str:
    return page(f"models/{version.name}/versions/{version.version}")


def _run_line(runs: Runs, model: str, source: str, run: Run) -> str:
    place = _address(runs, run) if is_active(run) else f"deleted in MLflow, see `{_restoring(run)}`"
    return f"{model:10} {source:9} {run.info.run_id}  {place}"


def _restoring(run: Run) -> str:
    return restoring("runs", "--run-id", run.info.run_id)


def _address(runs: Runs, run: Run) -> str:
    return page(f"experiments/{runs.experiment}/runs/{run.info.run_id}")
