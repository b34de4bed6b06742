"""A project whose experiments MLflow has, and what tests ask of its store."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import small_project
from mlflow_server import closed_port

CURVES = {
    "train/loss",
    "train/set_aside",
    "validation/loss",
    "validation/accuracy",
    "validation/balanced_accuracy",
    "learning_rate",
}
PACE = {"pace/titles_per_second", "pace/seconds_left"}
PASSWORD = "hush%2Ehush"


def unheard(base: Path, folder: Path) -> Path:
    """The project with an experiment more, that MLflow heard nothing of."""
    project = small_project.copy(base, folder / "project")
    with closed_port() as port:
        uri = f"http://me:{PASSWORD}@127.0.0.1:{port}"
        told = experiment(project, "unheard", "mlp.hidden_layers=[9]", uri=uri)
    assert "warning: MLflow does not record this training" in told
    assert "hush" not in told
    return project


def titles(folder: Path, *arguments: str, uri: str = "", code: int = 0) -> str:
    """Output of the command."""
    ran = subprocess.run(
        [sys.executable, "-m", "titles.cli", *arguments],
        cwd=folder,
        env=small_project.environment() | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == code, output
    assert "Traceback" not in output
    assert "hush" not in output
    return output


def experiment(folder: Path, name: str, setting: str, uri: str = "") -> str:
    """Output of an experiment that MLflow records; the workspace is as committed afterwards."""
    return small_project.experiment(folder, name, setting, mlflow=True, MLFLOW_TRACKING_URI=uri)


def show(folder: Path, name: str, file: str) -> Any:
    """A metrics file of an experiment, as git has it."""
    commits = small_project.run(
        folder, "git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps"
    )
    (commit,) = [line.split()[0] for line in commits.splitlines() if line.endswith(f"/{name}")]
    return json.loads(small_project.run(folder, "git", "show", f"{commit}:metrics/{file}.json"))


def local(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def all_runs(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    number = client.get_experiment_by_name("titles").experiment_id
    return list(client.search_runs([number], run_view_type=view, max_results=1000))


def runs(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """Those of trainings and evaluations."""
    return [run for run in all_runs(client, view) if run.data.tags.get("kind") != "experiment"]


def parents(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """Those of experiments and commits, by name."""
    found = [run for run in all_runs(client, view) if run.data.tags.get("kind") == "experiment"]
    named = {run.data.tags["experiment"]: run for run in found}
    assert len(named) == len(found)
    return named


def run_of(client: MlflowClient, name: str, model: str) -> Run:
    """The only run of a network of an experiment or commit."""
    (run,) = [
        run
        for run in runs(client)
        if name in run.data.tags.get("dvc.experiments", "").split(", ")
        and run.data.tags["model"] == model
    ]
    return run


def address(run: Run) -> str:
    """Of its page, after the name of the server."""
    place = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"/#/{place}?workflowType=machine_learning"


def curves(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        metric: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric))
        for metric in CURVES & set(run.data.metrics)
    }


def pace(run: Run) -> set[tuple[str, float]]:
    """What is logged live, and stands in no file."""
    assert run.data.tags["source"] == "backfill" or set(run.data.metrics) >= PACE
    return {(name, run.data.metrics[name]) for name in PACE & set(run.data.metrics)}


def dump(database: Path) -> list[str]:
    with sqlite3.connect(database) as store:
        return list(store.iterdump())


def restore(project: Path, told: str) -> None:
    """Run the command that a message names, which restores what was deleted."""
    (shown,) = re.findall("`([^`]+ restore [^`]+)`", told)
    small_project.run(project, "sh", "-c", shown)


def validation(folder: Path, name: str, model: str) -> float:
    """Balanced accuracy on validation, from DVC's metrics."""
    return float(show(folder, name, "details")["models"][model]["validation_balanced_accuracy"])
