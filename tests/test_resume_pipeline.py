"""`dvc repro` and `dvc exp run` that are killed and repeated, in a real project."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from small_project import commit, copy, environment, outs, run

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

EPOCHS = 40
OURS = "lifecycle_stage = 'active'"


@pytest.fixture(scope="module")
def project(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared and embedded; the networks are still to train. MLflow has no run that counts."""
    folder = copy(base, tmp_path_factory.mktemp("resume") / "project")
    with closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        store.execute("update runs set lifecycle_stage = 'deleted'")
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(
        re.sub(r"(?m)^(  (epochs|min_steps):) \w+", lambda m: f"{m[1]} {EPOCHS}", params)
    )
    commit(folder, "longer")
    return folder


def killed(folder: Path, number: signal.Signals, after: str, *command: str) -> str:
    """Start a command, kill it with all that it started after it has told three epochs of the network
    `after`; its whole output."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(mlflow=True) | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if output.count(f"{after} epoch ") == 3:
            break
    else:
        raise AssertionError(output)
    os.killpg(process.pid, number)
    output += process.stdout.read()
    assert process.wait() != 0
    return output


def statuses(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return [
            status
            for (status,) in store.execute(f"select status from runs where {OURS} order by start_time")
        ]


def points(folder: Path) -> list[int]:
    """Steps of each run's train/loss in MLflow's store, of all runs in turn."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        rows = store.execute(
            "select m.step from metrics m join runs r using (run_uuid) "
            f"where m.key = 'train/loss' and {OURS} order by r.start_time, m.step"
        )
        return [step for (step,) in rows]


def test_a_pipeline_killed_and_repeated_ends_with_the_bytes_of_an_unbroken_one(
    project: Path, tmp_path: Path
) -> None:
    run(tmp_path, "cp", "-r", str(project), "unbroken")
    run(tmp_path, "cp", "-r", str(project), "broken")
    run(tmp_path / "unbroken", "dvc", "repro", "train_mlp", "train_cnn", mlflow=True)
    broken = tmp_path / "broken"
    # One at a time: which of two stages comes first is up to DVC.
    mlp, cnn = ("dvc", "repro", "train_mlp"), ("dvc", "repro", "train_cnn")
    told = [
        killed(broken, signal.SIGKILL, "mlp", *mlp),
        killed(broken, signal.SIGKILL, "mlp", *mlp),
        killed(broken, signal.SIGINT, "mlp", *mlp),
        run(broken, *mlp, mlflow=True),
        killed(broken, signal.SIGKILL, "cnn", *cnn),
        killed(broken, signal.SIGTERM, "cnn", *cnn),
        run(broken, *cnn, mlflow=True),
    ]
    resumed = re.findall(r"(cnn|mlp): resumed after epoch (\d+) of", "".join(told))
    assert [name for name, _ in resumed] == ["mlp"] * 3 + ["cnn"] * 2
    epochs = [int(epoch) for _, epoch in resumed]
    assert 2 <= epochs[0] < epochs[1] < epochs[2]
    assert 2 <= epochs[3] < epochs[4]
    for stage in ("train_cnn", "train_mlp"):
        assert outs(broken, stage) == outs(tmp_path / "unbroken", stage)
        metrics = f"metrics/{stage.removeprefix('train_')}.json"
        assert (broken / metrics).read_bytes() == (tmp_path / "unbroken" / metrics).read_bytes()
    assert list((broken / ".titles/checkpoints").iterdir()) == []
    assert ".titles" not in run(broken, "git", "status", "--porcelain", "--untracked-files=all")
    # One run a training in MLflow, whole and each epoch once.
    assert statuses(broken) == ["FINISHED"] * 2
    assert points(broken) == [*range(1, EPOCHS + 1)] * 2


def test_two_processes_of_torchrun_killed_in_an_experiment_go_on_in_the_next(
    project: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("unbroken", "broken")]
    for folder in folders:
        run(tmp_path, "cp", "-r", str(project), folder.name)
        pipeline = folder / "dvc.yaml"
        plain = "python -m titles.stages.train_mlp"
        several = f"torchrun --standalone --nproc-per-node=2 {plain.removeprefix('python ')}"
        pipeline.write_text(pipeline.read_text().replace(plain, several))
        commit(folder, "two processes")
    unbroken, broken = folders
    command = ("dvc", "exp", "run", "train_mlp")
    run(unbroken, *command, mlflow=True)
    before = statuses(broken)
    killed(broken, signal.SIGKILL, "mlp", "dvc", "repro", "train_mlp")
    output = run(broken, *command, mlflow=True)
    (epoch,) = re.findall(r"mlp: resumed after epoch (\d+) of", output)
    assert int(epoch) >= 2
    assert outs(broken, "train_mlp") == outs(unbroken, "train_mlp")
    assert statuses(broken)[len(before) :] == ["FINISHED"]


def test_a_killed_temporary_run_goes_on_in_the_next_one(project: Path) -> None:
    temporary = ("dvc", "exp", "run", "--temp", "-S", "mlp.dropout=0.4", "train_mlp")
    killed(project, signal.SIGKILL, "mlp", *temporary)
    output = run(project, *temporary, mlflow=True)
    (epoch,) = re.findall(r"mlp: resumed after epoch (\d+) of", output)
    assert int(epoch) >= 2
    assert statuses(project) == ["FINISHED"]


def test_a_training_that_nobody_goes_on_with_is_marked_as_killed(project: Path) -> None:
    before = statuses(project)
    changed = ("dvc", "exp", "run", "--temp", "train_mlp", "-S")
    killed(project, signal.SIGKILL, "mlp", *changed, "mlp.dropout=0.2")
    assert statuses(project) == [*before, "RUNNING"]
    assert "resumed" not in run(project, *changed, "mlp.dropout=0.1", mlflow=True)
    assert statuses(project) == [*before, "KILLED", "FINISHED"]
    assert "resumed after" in run(project, *changed, "mlp.dropout=0.2", mlflow=True)
    assert statuses(project) == [*before, "FINISHED", "FINISHED"]
