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
    "train/set_aside",
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
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[3]}@best")
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
        validation = scores.pop("validation_balanced_accuracy")
        assert found == {f"test/{key}": value for key, value in scores.items()}
        assert run.data.metrics["validation_balanced_accuracy"] == validation


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


def test_each_experiment_and_commit_has_a_run_with_its_trainings_in_it(synced: tuple[Path, str]) -> None:
    project, told = synced
    client = local(project)
    head = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    found = parents(client)
    assert found.keys() == {head[:7], "narrow", "slow", "unheard"}
    children: dict[str, set[str]] = {run.info.run_id: set() for run in found.values()}
    for run in runs(client):
        children[run.data.tags["mlflow.parentRunId"]].add(run.info.run_name)
    assert {name: children[run.info.run_id] for name, run in found.items()} == {
        head[:7]: {f"{head[:7]} {model}" for model in ("cnn", "mlp", "average")},
        "narrow": {"narrow cnn", "narrow average"},
        "slow": {"slow mlp", "slow average"},
        "unheard": {"unheard mlp", "unheard average"},
    }
    assert run_of(client, "slow", "cnn").data.tags["shared by"] == "slow, unheard"
    assert "shared by" not in run_of(client, "slow", "mlp").data.tags
    assert found[head[:7]].info.run_name == f"{head[:7]} (main)"
    assert {name: run.data.tags["changes"] for name, run in found.items()} == {
        head[:7]: "none",
        "narrow": "cnn.filter_count=5",
        "slow": "mlp.learning_rate=0.001",
        "unheard": "mlp.hidden_layers=[9]",
    }
    for name, run in found.items():
        assert run.info.status == "FINISHED"
        average = run_of(client, name, "average")
        assert run.data.metrics == average.data.metrics
        assert (
            run.data.metrics["validation_balanced_accuracy"]
            == validation(project, name if name != head[:7] else "slow", "average")
            or name == head[:7]
        )
        assert run.data.params.items() >= average.data.params.items()
        (_, batch), *_ = [(k, v) for k, v in run.data.params.items() if k == "used.batch_size"]
        assert re.fullmatch(r"\d+(, \d+)*", batch)
    assert found["narrow"].data.params["cnn.filter_count"] == "5"
    pages = f"runs: http://127.0.0.1:5000/#/experiments/{found['narrow'].info.experiment_id}/runs"
    assert f"{pages}?workflowType=machine_learning\n" in told


def test_splits_are_datasets_of_the_runs_that_read_them(synced: tuple[Path, str]) -> None:
    project, _ = synced
    client = local(project)
    made = small_project.outs(project, "prepare")
    rows = show(project, "narrow", "prepare")["rows"]
    expected = {
        "training": {"train", "validation"},
        "evaluation": {"validation", "calibration", "test"},
        "experiment": {"train", "validation", "calibration", "test"},
    }
    for run in all_runs(client):
        inputs = {tag.value: one.dataset for one in run.inputs.dataset_inputs for tag in one.tags}
        assert inputs.keys() == expected[run.data.tags["kind"]]
        for split, dataset in inputs.items():
            assert dataset.digest == made[f"data/prepared/{split}"]
            assert dataset.name == f"sample.csv.gz {split}"
            assert json.loads(dataset.source) == {"uri": "data/raw/sample.csv.gz"}
            profile = json.loads(dataset.profile)
            assert profile["num_rows"] == rows[split]
            labels = (project / "data/prepared/labels.txt").read_text().splitlines()
            assert profile["num_categories"] == len(labels)


def test_a_store_of_the_version_before_gets_what_it_lacks_without_a_run_twice(
    synced: tuple[Path, str], tmp_path: Path
) -> None:
    """There, all runs stood side by side, with other names and fewer tags."""
    project = small_project.copy(synced[0], tmp_path / "project")
    client = local(project)
    whole = {run.info.run_id: run for run in all_runs(client)}
    gone = [run.info.run_id for run in parents(client).values()]
    new = ("kind", "experiment", "shared by", "mlflow.parentRunId", "mlflow.user")
    with sqlite3.connect(project / "mlflow.db") as store:
        for number in gone:
            for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
                store.execute(f"delete from {table} where run_uuid = ?", (number,))
        for key in (*new, "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"):
            store.execute("delete from tags where key = ?", (key,))
        for table in ("inputs", "input_tags", "datasets", "experiment_tags"):
            store.execute(f"delete from {table}")
        for table in ("metrics", "latest_metrics"):
            key = "validation_balanced_accuracy"
            store.execute(f"update {table} set key = 'test/{key}' where key = '{key}'")
    for run in runs(client):  # as they were named live
        if run.data.tags["source"] == "live" and "dvc.experiment" not in run.data.tags:
            client.update_run(run.info.run_id, name=f"workspace {run.data.tags['model']}")
    mine = run_of(client, "narrow", "mlp").info.run_id
    client.update_run(mine, name="my own name")
    old = {run.info.run_id: run for run in all_runs(client)}
    assert len(old) == 9
    assert titles(project, "mlflow", "sync").startswith("9 runs got their results and links\n")
    now = {run.info.run_id: run for run in all_runs(client)}
    assert len(now) == len(whole)
    assert parents(client).keys() == {whole[number].data.tags["experiment"] for number in gone}
    for number, before in old.items():
        after = now[number]
        assert after.data.params == before.data.params
        assert after.data.metrics.items() >= before.data.metrics.items()
        kept = before.data.tags.items() - {("mlflow.runName", before.info.run_name)}
        assert after.data.tags.items() >= kept
        assert after.data.tags.keys() == whole[number].data.tags.keys()
        name = whole[number].info.run_name if number != mine else "my own name"
        assert after.info.run_name == name
    assert titles(project, "mlflow", "sync").startswith("9 runs were up to date\n")


def test_the_run_of_an_experiment_that_was_deleted_or_named_in_mlflow_stays_so(
    synced: tuple[Path, str], tmp_path: Path
) -> None:
    project = small_project.copy(synced[0], tmp_path / "project")
    client = local(project)
    whole = parents(client)
    client.delete_run(whole["slow"].info.run_id)
    client.update_run(whole["narrow"].info.run_id, name="my own name")
    titles(project, "mlflow", "sync")
    assert parents(client).keys() == whole.keys() - {"slow"}
    assert parents(client)["narrow"].info.run_name == "my own name"
    told = titles(project, "mlflow", "find", "slow")
    (line,) = [line for line in told.splitlines() if "deleted in MLflow" in line]
    assert line.startswith("experiment ")
    _do(project, line)
    assert parents(client).keys() == whole.keys()


@pytest.mark.endures
def test_the_run_of_the_workspace_becomes_that_of_its_commit(
    synced: tuple[Path, str], tmp_path: Path
) -> None:
    project = small_project.copy(synced[0], tmp_path / "project")
    client = local(project)
    before = parents(client)
    params = (project / "params.yaml").read_text()
    changed = re.sub(r"(bootstrap_samples:) \d+", r"\1 177", params)
    assert changed != params
    (project / "params.yaml").write_text(changed)
    small_project.run(project, "dvc", "repro")
    titles(project, "mlflow", "sync")
    found = parents(client)
    here = found["workspace"]
    assert found.keys() == before.keys() | {"workspace"}
    assert run_of(client, "workspace", "average").data.tags["mlflow.parentRunId"] == here.info.run_id
    for message in ("results", "words about them"):
        (project / "notes.txt").write_text(message)
        small_project.commit(project, message)
        titles(project, "mlflow", "sync")
        # Another commit with equal results adds no run.
        assert len(parents(client)) == len(found)
    head = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    kept = client.get_run(here.info.run_id)
    assert kept.data.tags["dvc.commit"] == head
    assert kept.info.run_name == f"{head[:7]} (main)"
    child = run_of(client, head[:7], "average")
    assert child.info.run_name == f"{head[:7]} average"
    assert child.data.tags["mlflow.parentRunId"] == here.info.run_id


def test_a_second_call_changes_nothing(synced: tuple[Path, str]) -> None:
    project, _ = synced
    before = dump(project / "mlflow.db")
    assert titles(project, "mlflow", "sync").startswith("9 runs were up to date\n")
    assert dump(project / "mlflow.db") == before
    assert small_project.run(project, "git", "status", "--porcelain") == ""
    small_project.run(project, "dvc", "status", "-q")


@pytest.mark.endures
def test_an_experiment_from_the_cache_is_one_more_name_of_its_run(
    synced: tuple[Path, str], tmp_path: Path
) -> None:
    project = small_project.copy(synced[0], tmp_path / "project")
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


def test_find_gives_the_runs_of_an_experiment(synced: tuple[Path, str]) -> None:
    project, _ = synced
    told = titles(project, "mlflow", "find", "slow")
    for model in ("cnn", "mlp", "average"):
        run = run_of(local(project), "slow", model)
        page = re.escape(address(run))
        assert re.search(rf"^{model} .*{run.info.run_id}  http://127.0.0.1:5000{page}$", told, re.M)
    whole = parents(local(project))["slow"]
    assert f"{whole.info.run_id}  http://127.0.0.1:5000{address(whole)}\n" in told
    assert told.endswith("`make mlflow` serves the pages\n")
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
    for model, option in (("average", ()), ("mlp", ("--model", "mlp"))):
        number = run_of(client, "unheard", model).info.run_id
        client.delete_run(number)
        told = titles(project, "mlflow", "register", "unheard", *option, code=1)
        assert f"the run of the {model} of unheard was deleted in MLflow" in told
        assert "does not answer" not in told
        _do(project, told)
        assert client.get_run(number).info.lifecycle_stage == "active"


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


def validation(folder: Path, name: str, model: str) -> float:
    """Balanced accuracy on validation, from DVC's metrics."""
    return float(show(folder, name, "details")["models"][model]["validation_balanced_accuracy"])


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


@each_command
def test_elsewhere_than_in_the_project_the_commands_say_so(tmp_path: Path, command: list[str]) -> None:
    assert "project" in titles(tmp_path, "mlflow", *command, code=1)
    assert not list(tmp_path.iterdir())
