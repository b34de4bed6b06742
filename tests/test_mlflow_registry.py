"""Networks in MLflow's registry, from real DVC experiments: in the local store and on a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import small_project
from mlflow_project import (
    CURVES,
    PASSWORD,
    address,
    curves,
    dump,
    experiment,
    local,
    pace,
    parents,
    restore,
    run_of,
    runs,
    show,
    titles,
    validation,
)
from mlflow_server import running
from titles.data import processor
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.models.parts import saved
from titles.predict.classifier import Classifier
from titles.serve import mlflow_model, registry
from titles.serve.mlflow_model import EXAMPLE

pytestmark = pytest.mark.pipeline

LOAD = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[3]}@best")
import titles
answers = model.predict(json.loads(sys.argv[2]), params={"k": 3})
print(json.dumps({"code": titles.__file__, "answers": answers.to_dict("list")}))
"""


def loaded(folder: Path, uri: str, name: str = "titles") -> Any:
    """What the best version says in a process that has nothing of the project at hand."""
    environment = {k: v for k, v in small_project.environment().items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, uri, json.dumps(EXAMPLE), name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["code"].endswith("code/titles/__init__.py")
    assert "hush" not in ran.stdout + ran.stderr
    return found["answers"]


def said(folder: Path, name: str, models: list[str], into: Path) -> Any:
    """What the classifier says, with the networks as DVC has them; `titles predict` reads several in the
    order of the registry."""
    import torch

    networks = []
    for model in models:
        place = into / name / model
        place.parent.mkdir(parents=True, exist_ok=True)
        small_project.run(
            folder, "dvc", "get", ".", f"models/{model}", "--rev", name, "-f", "-o", str(place)
        )
        networks.append(saved.read(place, {"cnn": TitleCNN, "mlp": TitleMLP}))
    ranked = Classifier(networks, torch.device("cpu")).top(EXAMPLE, 3)
    labels = networks[0].labels
    return {
        "category": [[labels[c] for c in row] for row in ranked.categories_NK.tolist()],
        "probability": ranked.probabilities_NK.tolist(),
        "problem": [""] * len(EXAMPLE),
    }


def assert_same(answers: Any, expected: Any) -> None:
    """Probabilities are the same to the last digit where products do not depend on threads and batch."""
    if processor.portable():
        assert answers == expected
        return
    assert {**answers, "probability": None} == {**expected, "probability": None}
    assert np.array(answers["probability"]) == pytest.approx(
        np.array(expected["probability"]), rel=1e-6, abs=1e-8
    )


def without_models(project: Path) -> MlflowClient:
    """A client of a store in which other tests have registered nothing."""
    client = local(project)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    return client


@pytest.mark.parametrize("model", ["average", "mlp"])
def test_what_predict_uses_is_registered_once_and_a_single_network_by_name(
    synced: tuple[Path, str], tmp_path: Path, model: str
) -> None:
    project, _ = synced
    client = without_models(project)
    option = () if model == "average" else ("--model", model)
    name = "titles" if model == "average" else f"titles-{model}"
    first = titles(project, "mlflow", "register", "unheard", *option)
    assert f"the {model} of unheard is registered\n  models:/{name}/1: " in first
    page = f"http://127.0.0.1:5000/#/models/{name}/versions/1?workflowType=machine_learning"
    assert f"  {page}\n" in first
    assert f"runs: http://127.0.0.1:5000{address(parents(client)['unheard'])}\n" in first
    before = dump(project / "mlflow.db")
    assert "registered already" in titles(project, "mlflow", "register", "unheard", *option)
    assert dump(project / "mlflow.db") == before
    (version,) = client.search_model_versions(f"name = '{name}'")
    run = run_of(client, "unheard", model)
    assert version.run_id == run.info.run_id
    assert version.tags["dvc.result"] == run.data.tags["dvc.result"]
    assert version.tags["dvc.get"] in ("dvc exp apply unheard", run.data.tags["dvc.get"])
    assert client.get_model_version_by_alias(name, "best").version == version.version
    assert f"models:/{name}/1" in titles(project, "mlflow", "find", "unheard")
    uri = f"sqlite:///{project}/mlflow.db"
    networks = ["cnn", "mlp"] if model == "average" else [model]
    assert_same(loaded(tmp_path, uri, name), said(project, "unheard", networks, tmp_path / "model"))
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.source_run_id == run.info.run_id
    # MLflow's own would tell of the machine and of git's remote, whose address can hold a password.
    mine = {key for key in logged.tags if key.startswith("mlflow.")}
    assert mine <= {"mlflow.modelVersions", "mlflow.source.name"}
    measured = {metric.key: metric for metric in logged.metrics}
    scores = show(project, "unheard", "details")["models"][model]
    assert measured["test/balanced_accuracy"].value == scores["balanced_accuracy"]
    assert measured["test/balanced_accuracy"].dataset_name.endswith(" test")
    score = measured["validation_balanced_accuracy"]
    assert score.value == float(version.tags[score.key]) == scores[score.key]
    assert score.dataset_digest == version.tags["data.data/prepared/validation"]
    assert client.get_run(run.info.run_id).data.metrics == run.data.metrics
    assert len(client.get_metric_history(run.info.run_id, score.key)) == 1


@pytest.mark.endures
def test_the_alias_follows_validation_whatever_is_registered_last(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = without_models(project)
    titles(project, "mlflow", "register")
    titles(project, "mlflow", "register", "slow")
    titles(project, "mlflow", "register", "narrow")
    titles(project, "mlflow", "register", "narrow", "--model", "cnn")
    best = client.get_model_version_by_alias("titles", "best")
    versions = client.search_model_versions("name = 'titles'")
    assert {version.tags["model"] for version in versions} == {"average"}
    scores = [float(version.tags["validation_balanced_accuracy"]) for version in versions]
    assert float(best.tags["validation_balanced_accuracy"]) == max(scores)
    names = ("narrow", "slow", "unheard")
    assert max(scores) >= max(validation(project, name, "average") for name in names)
    alone = client.get_model_version_by_alias("titles-cnn", "best")
    assert float(alone.tags["validation_balanced_accuracy"]) == validation(project, "narrow", "cnn")
    refused = titles(project, "mlflow", "register", "workspace", code=1)
    assert "only what is saved can be registered" in refused


def test_a_single_network_under_the_name_of_the_average_does_not_keep_the_alias(
    synced: tuple[Path, str],
) -> None:
    """Versions of the project before this one registered networks there."""
    project, _ = synced
    client = without_models(project)
    run = run_of(client, "narrow", "mlp")
    client.create_registered_model("titles")
    tags = {
        "model": "mlp",
        "dvc.result": run.data.tags["dvc.result"],
        "validation_balanced_accuracy": "0.99",
        "data.data/prepared/validation": run.data.tags["data.data/prepared/validation"],
    }
    old = client.create_model_version(
        "titles", f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags
    )
    client.set_registered_model_alias("titles", "best", old.version)
    titles(project, "mlflow", "register", "narrow")
    best = client.get_model_version_by_alias("titles", "best")
    assert (int(best.version), best.tags["model"]) == (2, "average")
    assert client.get_model_version("titles", old.version).tags == tags


def test_a_network_whose_run_was_deleted_in_mlflow_is_not_registered(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    for model, option in (("average", ()), ("mlp", ("--model", "mlp"))):
        number = run_of(client, "unheard", model).info.run_id
        client.delete_run(number)
        told = titles(project, "mlflow", "register", "unheard", *option, code=1)
        assert f"the run of the {model} of unheard was deleted in MLflow" in told
        assert "does not answer" not in told
        restore(project, told)
        assert client.get_run(number).info.lifecycle_stage == "active"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server, with user and password in it, and its folder."""
    folder = tmp_path_factory.mktemp("server")
    with running(folder) as (address, _):
        yield address.replace("http://", f"http://me:{PASSWORD}@"), folder


@pytest.mark.endures
def test_a_server_is_filled_by_a_clone_that_pulled_and_by_what_runs_live(
    synced: tuple[Path, str], server: tuple[str, Path], tmp_path: Path
) -> None:
    project, _ = synced
    uri, kept = server
    small_project.run(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    small_project.run(clone, "dvc", "pull", "-q")
    small_project.run(clone, "dvc", "exp", "pull", "-q", "--no-cache", "origin", "narrow")
    titles(clone, "mlflow", "sync", uri=uri)
    assert not (clone / "mlflow.db").exists()
    client = MlflowClient(uri)
    assert {run.data.tags["source"] for run in runs(client)} == {"backfill"}
    for name, model in (("narrow", "cnn"), ("narrow", "mlp")):
        ours, theirs = run_of(client, name, model), run_of(local(project), name, model)
        assert curves(client, ours) == curves(local(project), theirs)
        assert len(curves(client, ours)) == len(CURVES)
        assert ours.data.params == theirs.data.params
        assert ours.data.metrics.items() == theirs.data.metrics.items() - pace(theirs)
        assert ours.data.tags["dvc.result"] == theirs.data.tags["dvc.result"]

    away = tmp_path / "away"
    for name in (".dvc/cache", "remote"):
        shutil.move(clone / name, away / name)
    refused = titles(clone, "mlflow", "register", "narrow", uri=uri, code=1)
    for name in (".dvc/cache", "remote"):
        shutil.move(away / name, clone / name)
    assert "neither in DVC's cache nor in a remote" in refused
    assert not client.search_registered_models()

    shutil.copytree(project / ".dvc/cache", clone / ".dvc/cache", dirs_exist_ok=True)
    experiment(clone, "live", "mlp.epochs=1", uri=uri)
    count = len(runs(client))
    titles(clone, "mlflow", "sync", uri=uri)
    assert len(runs(client)) == count + 1  # the evaluation
    run = run_of(client, "live", "mlp")
    assert run.data.tags["source"] == "live"
    assert run.data.metrics["test/loss"] == show(clone, "live", "details")["models"]["mlp"]["loss"]
    assert titles(clone, "mlflow", "sync", uri=uri).startswith(f"{count + 1} runs were up to date\n")
    host = uri.rpartition("@")[2]
    found = titles(clone, "mlflow", "find", "live", uri=uri)
    assert f"http://{host}{address(run)}\n" in found
    assert "serves the pages" not in found

    told = titles(clone, "mlflow", "register", "live", uri=uri)
    assert f"  http://{host}/#/models/titles/versions/1?" in told
    assert_same(loaded(tmp_path, uri), said(clone, "live", ["cnn", "mlp"], tmp_path / "model"))

    files = [path for path in kept.rglob("*") if path.is_file() and path.name != "server.log"]
    assert any("mlartifacts" in path.parts for path in files)
    for path in files:
        assert not re.search(rb"hush", path.read_bytes()), path


@pytest.mark.parametrize(
    "error", [MlflowException("the artifacts are no good"), OSError(28, "No space left on device")]
)
def test_an_export_that_fails_is_no_server_that_does_not_answer(
    synced: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    project, _ = synced
    client = without_models(project)

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_model, "save_model", fails)
    with pytest.raises((ValueError, OSError)) as caught:
        registry.register("unheard")
    assert str(error) in str(caught.value)
    assert "answer" not in str(caught.value)
    assert not client.search_registered_models()
