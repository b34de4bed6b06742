"""MLflow filled from real DVC experiments: in the local store and on a server, and the ways between."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

import small_project
from mlflow_server import closed_port, running
from titles.data import processor
from titles.experiments import mlflow_sync
from titles.experiments.store import Revision
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.models.parts import saved
from titles.predict.classifier import Classifier
from titles.serve import mlflow_model, registry
from titles.serve.mlflow_model import EXAMPLE

pytestmark = pytest.mark.pipeline

CURVES = {
    "train/loss",
    "validation/loss",
    "validation/accuracy",
    "validation/balanced_accuracy",
    "learning_rate",
}
PACE = {"pace/titles_per_second", "pace/seconds_left"}
PASSWORD = "hush%2Ehush"
LOAD = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/titles@best")
import titles
answers = model.predict(json.loads(sys.argv[2]), params={"k": 3})
print(json.dumps({"code": titles.__file__, "answers": answers.to_dict("list")}))
"""


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


def runs(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    number = client.get_experiment_by_name("titles").experiment_id
    return list(client.search_runs([number], run_view_type=view, max_results=1000))


def run_of(client: MlflowClient, name: str, model: str) -> Run:
    """The only run of a network of an experiment or commit."""
    (run,) = [
        run
        for run in runs(client)
        if name in run.data.tags.get("dvc.experiments", "").split(", ")
        and run.data.tags["model"] == model
    ]
    return run


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


@pytest.fixture(scope="module")
def project(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with an experiment more, that MLflow heard nothing of."""
    folder = small_project.copy(base, tmp_path_factory.mktemp("mlflow") / "project")
    with closed_port() as port:
        uri = f"http://me:{PASSWORD}@127.0.0.1:{port}"
        told = experiment(folder, "unheard", "mlp.hidden_layers=[9]", uri=uri)
    assert "warning: MLflow does not record this training" in told
    assert "hush" not in told
    return folder


@pytest.fixture(scope="module")
def synced(project: Path) -> tuple[Path, str]:
    return project, titles(project, "mlflow", "sync")


def test_live_runs_get_the_results_of_their_network_on_the_test_split(synced: tuple[Path, str]) -> None:
    project, _ = synced
    for name, model in (("narrow", "cnn"), ("slow", "mlp")):
        run = run_of(local(project), name, model)
        assert run.data.tags["source"] == "live"
        assert run.data.tags["dvc.experiment"] == name
        scores = show(project, name, "details")["models"][model]
        assert {"balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"} < set(scores)
        found = {k: v for k, v in run.data.metrics.items() if k.startswith("test/")}
        assert found == {f"test/{key}": value for key, value in scores.items()}


def test_a_run_leads_to_its_experiment(synced: tuple[Path, str]) -> None:
    project, _ = synced
    tags = run_of(local(project), "narrow", "cnn").data.tags
    head = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    assert tags["dvc.baseline"] == tags["git.revision"] == head
    assert tags["dvc.get"] == "dvc exp apply narrow"
    assert small_project.run(project, "git", "rev-parse", f"{tags['dvc.commit']}^").strip() == head
    shown = small_project.run(project, "git", "show", f"{tags['dvc.commit']}:params.yaml")
    assert "filter_count: 5" in shown


def test_a_training_that_several_experiments_share_is_one_run(synced: tuple[Path, str]) -> None:
    project, told = synced
    head = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    tags = run_of(local(project), "slow", "cnn").data.tags
    assert tags["dvc.experiments"].split(", ") == [head[:7], "slow", "unheard"]
    assert tags["dvc.commit"] == head
    assert tags["dvc.get"] == f"git checkout {head} && dvc checkout"
    # Four revisions: two CNNs, three MLPs, four evaluations of a pair.
    assert len(runs(local(project))) == 9
    assert "4 runs got their results and links\n5 runs were written from what DVC holds\n" in told


def test_what_mlflow_did_not_hear_of_is_backfilled_and_says_so(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    live, filled = (run_of(client, name, "mlp") for name in ("slow", "unheard"))
    assert filled.data.tags["source"] == "backfill"
    assert filled.info.run_name == "unheard mlp"
    assert filled.info.status == "FINISHED"
    assert filled.data.params == live.data.params | {
        "mlp.hidden_layers": "[9]",
        "mlp.learning_rate": filled.data.params["mlp.learning_rate"],
    }
    assert filled.data.metrics.keys() == live.data.metrics.keys() - PACE
    assert live.data.metrics.keys() >= PACE
    hashes = {key for key in live.data.tags if key.startswith("data.")}
    assert {key: filled.data.tags[key] for key in hashes} == {key: live.data.tags[key] for key in hashes}
    committed = int(
        small_project.run(project, "git", "show", "-s", "--format=%ct", filled.data.tags["dvc.commit"])
    )
    assert filled.info.start_time == committed * 1000
    small_project.run(project, "dvc", "get", ".", "plots/mlp.json", "--rev", "unheard", "-o", "got.json")
    records = json.loads((project / "got.json").read_text())
    (project / "got.json").unlink()
    for metric, points in curves(client, filled).items():
        assert points == [(one["epoch"], one[metric.replace("/", "_")]) for one in records]
        assert len(points) == small_project.QUICK["epochs"]


def test_both_networks_together_have_a_run_of_their_evaluation(synced: tuple[Path, str]) -> None:
    project, _ = synced
    run = run_of(local(project), "narrow", "average")
    scores = show(project, "narrow", "details")
    assert run.data.metrics["test/loss"] == scores["models"]["average"]["loss"]
    difference = scores["pairs"]["cnn_minus_mlp"]["difference"]
    assert run.data.metrics["test/cnn_minus_mlp/difference"] == difference
    assert not (CURVES | PACE) & set(run.data.metrics)


def test_a_second_call_changes_nothing(synced: tuple[Path, str]) -> None:
    project, _ = synced
    before = dump(project / "mlflow.db")
    assert titles(project, "mlflow", "sync").startswith("9 runs were up to date\n")
    assert dump(project / "mlflow.db") == before
    assert small_project.run(project, "git", "status", "--porcelain") == ""
    small_project.run(project, "dvc", "status", "-q")


@pytest.mark.endures
def test_an_experiment_from_the_cache_is_one_more_name_of_its_run(synced: tuple[Path, str]) -> None:
    project, _ = synced
    before = runs(local(project))
    told = experiment(project, "again", "cnn.filter_count=5")
    assert "Stage 'train_cnn' is cached - skipping run" in told
    titles(project, "mlflow", "sync")
    assert {run.info.run_id for run in runs(local(project))} == {run.info.run_id for run in before}
    tags = run_of(local(project), "again", "cnn").data.tags
    assert tags["dvc.experiments"] == "narrow, again"
    assert tags["dvc.get"] == "dvc exp apply narrow"
    small_project.run(project, "dvc", "exp", "remove", "narrow")
    titles(project, "mlflow", "sync")
    tags = run_of(local(project), "again", "cnn").data.tags
    assert (tags["dvc.experiments"], tags["dvc.get"]) == ("again", "dvc exp apply again")
    small_project.run(project, "dvc", "exp", "rename", "again", "narrow")
    titles(project, "mlflow", "sync")


def test_find_gives_the_runs_of_an_experiment(synced: tuple[Path, str]) -> None:
    project, _ = synced
    told = titles(project, "mlflow", "find", "slow")
    for model in ("cnn", "mlp", "average"):
        run = run_of(local(project), "slow", model)
        page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        assert re.search(rf"^{model} .*{run.info.run_id}  http://127.0.0.1:5000{page}$", told, re.M)
    assert "no experiment, branch, tag or commit" in titles(project, "mlflow", "find", "nobody", code=1)


def test_a_run_that_was_deleted_in_mlflow_is_not_written_again(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    run = run_of(client, "unheard", "average")
    client.delete_run(run.info.run_id)
    assert "1 runs were deleted in MLflow and stay so" in titles(project, "mlflow", "sync")
    assert len(runs(client, ViewType.ALL)) == 9
    told = titles(project, "mlflow", "find", "unheard")
    (line,) = [line for line in told.splitlines() if run.info.run_id in line]
    assert line.startswith("average ")
    assert "deleted in MLflow" in line
    assert told.count("deleted in MLflow") == 1
    _do(project, line)
    assert "deleted" not in titles(project, "mlflow", "find", "unheard")
    assert run_of(client, "unheard", "average").info.run_id == run.info.run_id


def _do(project: Path, told: str) -> None:
    """Run the command that a message names."""
    (shown,) = re.findall("`([^`]+ restore [^`]+)`", told)
    small_project.run(project, "sh", "-c", shown)


def test_a_network_whose_run_was_deleted_in_mlflow_is_not_registered(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    deleted = [run_of(client, "unheard", model).info.run_id for model in ("cnn", "mlp")]
    for number in deleted:
        client.delete_run(number)
    told = titles(project, "mlflow", "register", "unheard", code=1)
    assert "was deleted in MLflow" in told
    assert "does not answer" not in told
    _do(project, told)
    assert sum(client.get_run(n).info.lifecycle_stage == "active" for n in deleted) == 1
    for number in deleted:
        if client.get_run(number).info.lifecycle_stage != "active":
            client.restore_run(number)


@pytest.mark.parametrize("command", [["sync"], ["find", "slow"], ["register", "slow"]])
def test_an_experiment_deleted_in_mlflow_is_told_with_the_command_that_restores_it(
    synced: tuple[Path, str], command: list[str]
) -> None:
    project, _ = synced
    client = local(project)
    client.delete_experiment(client.get_experiment_by_name("titles").experiment_id)
    told = titles(project, "mlflow", *command, code=1)
    assert "error: MLflow's experiment 'titles' was deleted: restore it" in told
    assert "does not answer" not in told
    _do(project, told)
    assert len(runs(client)) == 9


def test_a_backfill_that_was_cut_off_is_written_to_its_end(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    whole = run_of(client, "unheard", "mlp")
    # As it stands when the process ends after its first metrics.
    kept = ("model", "source", "git.revision", "dvc.stage", "dvc.experiment", "dvc.result")
    tags = {key: value for key, value in whole.data.tags.items() if key in kept or key[:5] == "data."}
    cut = client.create_run(whole.info.experiment_id, whole.info.start_time, tags, "unheard mlp")
    client.log_param(cut.info.run_id, "seed", whole.data.params["seed"])
    client.log_metric(
        cut.info.run_id,
        "best/best_epoch",
        whole.data.metrics["best/best_epoch"],
        whole.info.start_time,
        0,
    )
    with sqlite3.connect(project / "mlflow.db") as store:  # forgotten, not deleted by a user
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            store.execute(f"delete from {table} where run_uuid = ?", (whole.info.run_id,))
    assert "1 runs were written from what DVC holds" in titles(project, "mlflow", "sync")
    mended = run_of(client, "unheard", "mlp")
    assert mended.info.run_id == cut.info.run_id
    assert mended.info.status == "FINISHED"
    assert mended.data.metrics == whole.data.metrics
    assert mended.data.params == whole.data.params
    assert [len(points) for points in curves(client, mended).values()] == [2] * len(CURVES)


def test_metrics_that_do_not_fit_the_lock_are_left_out(synced: tuple[Path, str]) -> None:
    project, _ = synced
    file = project / "metrics/details.json"
    scores = json.loads(file.read_text())
    scores["models"]["mlp"]["balanced_accuracy"] = 0.99
    file.write_text(json.dumps(scores))
    before = dump(project / "mlflow.db")
    titles(project, "mlflow", "sync")
    small_project.run(project, "git", "checkout", "-q", "metrics")
    assert dump(project / "mlflow.db") == before


def test_a_run_whose_curves_are_out_of_reach_is_written_later(
    synced: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Versions before this one kept curves in DVC's cache."""
    project, _ = synced
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with monkeypatch.context() as patched:

        def unreachable(revision: Revision, network: str) -> Any:
            raise ValueError(f"plots of {revision.name} are away")

        patched.setattr(Revision, "curves", unreachable)
        told = mlflow_sync.sync()
    assert "4 runs were written from what DVC holds\n5 runs are not written yet" in told
    assert "warning: plots of slow are away" in capsys.readouterr().err
    assert "5 runs were written from what DVC holds\n4 runs were up to date" in mlflow_sync.sync()


def better(folder: Path, names: list[str]) -> tuple[str, str]:
    """Experiment and network of the highest balanced accuracy on validation, from DVC's metrics."""
    scores = {
        (name, model): show(folder, name, model)[model] for name in names for model in ("cnn", "mlp")
    }
    return max(
        scores, key=lambda k: (scores[k]["validation_balanced_accuracy"], -scores[k]["validation_loss"])
    )


def loaded(folder: Path, uri: str) -> Any:
    """What models:/titles@best says in a process that has nothing of the project at hand."""
    environment = {k: v for k, v in small_project.environment().items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, uri, json.dumps(EXAMPLE)],
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


def said(folder: Path, name: str, model: str, into: Path) -> Any:
    """What the classifier says, with the network as DVC has it."""
    import torch

    small_project.run(folder, "dvc", "get", ".", f"models/{model}", "--rev", name, "-o", str(into))
    network = saved.read(into, {"cnn": TitleCNN, "mlp": TitleMLP})
    ranked = Classifier([network], torch.device("cpu")).top(EXAMPLE, 3)
    return {
        "category": [[network.labels[c] for c in row] for row in ranked.categories_NK.tolist()],
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


def test_the_better_network_of_an_experiment_is_registered_once(
    synced: tuple[Path, str], tmp_path: Path
) -> None:
    project, _ = synced
    client = local(project)
    if client.search_registered_models():  # by another test
        client.delete_registered_model("titles")
    _, model = better(project, ["unheard"])
    first = titles(project, "mlflow", "register", "unheard")
    assert f"the {model} of unheard is registered\n  models:/titles/1: " in first
    assert "registered already" in titles(project, "mlflow", "register", "unheard")
    (version,) = client.search_model_versions("name = 'titles'")
    run = run_of(client, "unheard", model)
    assert version.run_id == run.info.run_id
    assert version.tags["dvc.result"] == run.data.tags["dvc.result"]
    assert version.tags["dvc.get"] in ("dvc exp apply unheard", run.data.tags["dvc.get"])
    assert client.get_model_version_by_alias("titles", "best").version == version.version
    assert "models:/titles/1" in titles(project, "mlflow", "find", "unheard")
    uri = f"sqlite:///{project}/mlflow.db"
    assert_same(loaded(tmp_path, uri), said(project, "unheard", model, tmp_path / "model"))
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.source_run_id == run.info.run_id
    # MLflow's own would tell of the machine and of git's remote, whose address can hold a password.
    assert {key for key in logged.tags if key.startswith("mlflow.")} <= {"mlflow.modelVersions"}


@pytest.mark.endures
def test_the_alias_follows_validation_whatever_is_registered_last(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    titles(project, "mlflow", "register")
    titles(project, "mlflow", "register", "slow")
    titles(project, "mlflow", "register", "narrow")
    best = client.get_model_version_by_alias("titles", "best")
    scores = [
        float(version.tags["validation_balanced_accuracy"])
        for version in client.search_model_versions("name = 'titles'")
    ]
    assert float(best.tags["validation_balanced_accuracy"]) == max(scores)
    name, model = better(project, ["narrow", "slow", "unheard"])
    assert max(scores) >= show(project, name, model)[model]["validation_balanced_accuracy"]
    refused = titles(project, "mlflow", "register", "workspace", code=1)
    assert "only what is saved can be registered" in refused


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
    page = f"http://{host}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert page in titles(clone, "mlflow", "find", "live", uri=uri)

    titles(clone, "mlflow", "register", "live", uri=uri)
    _, model = better(clone, ["live"])
    assert_same(loaded(tmp_path, uri), said(clone, "live", model, tmp_path / "model"))

    files = [path for path in kept.rglob("*") if path.is_file() and path.name != "server.log"]
    assert any("mlartifacts" in path.parts for path in files)
    for path in files:
        assert not re.search(rb"hush", path.read_bytes()), path


each_command = pytest.mark.parametrize(
    "command",
    [
        ["sync"],
        pytest.param(["find", "slow"], marks=pytest.mark.endures),
        pytest.param(["register"], marks=pytest.mark.endures),
    ],
    ids=lambda command: command[0],
)


@each_command
def test_without_a_server_each_command_says_what_is_wrong(
    synced: tuple[Path, str], command: list[str]
) -> None:
    project, _ = synced
    with closed_port() as port:
        uri = f"http://me:{PASSWORD}@127.0.0.1:{port}"
        told = titles(project, "mlflow", *command, uri=uri, code=1)
    assert f"error: MLflow at http://***@127.0.0.1:{port} does not answer or refuses" in told
    assert "mlflow.db in this folder is used" in told


@pytest.mark.parametrize(
    "error", [MlflowException("the artifacts are no good"), OSError(28, "No space left on device")]
)
def test_an_export_that_fails_is_no_server_that_does_not_answer(
    synced: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    project, _ = synced
    client = local(project)
    if client.search_registered_models():  # by another test
        client.delete_registered_model("titles")

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


@each_command
def test_elsewhere_than_in_the_project_the_commands_say_so(tmp_path: Path, command: list[str]) -> None:
    assert "project" in titles(tmp_path, "mlflow", *command, code=1)
    assert not list(tmp_path.iterdir())
