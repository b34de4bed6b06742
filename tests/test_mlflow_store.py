"""MLflow's local store, filled from real DVC experiments, and the ways between the two."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType

import small_project
from mlflow_project import (
    CURVES,
    PACE,
    PASSWORD,
    address,
    all_runs,
    curves,
    dump,
    experiment,
    local,
    parents,
    restore,
    run_of,
    runs,
    show,
    titles,
    validation,
)
from mlflow_server import closed_port
from titles.experiments import mlflow_sync
from titles.experiments.store import Revision

pytestmark = pytest.mark.pipeline


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
    restore(project, line)
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
    restore(project, line)
    assert "deleted" not in titles(project, "mlflow", "find", "unheard")
    assert run_of(client, "unheard", "average").info.run_id == run.info.run_id


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
    restore(project, told)
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


@each_command
def test_elsewhere_than_in_the_project_the_commands_say_so(tmp_path: Path, command: list[str]) -> None:
    assert "project" in titles(tmp_path, "mlflow", *command, code=1)
    assert not list(tmp_path.iterdir())
