"""Trainings by two processes of a real torchrun, on loopback, beside the same by one process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from networks import LETTERS, NETWORKS, TEXT_RULES, answers, params, write_prepared
from titles.data.contract import METRICS, MODELS, PLOTS
from titles.models.parts import saved
from titles.stages import train_cnn, train_mlp
from titles.tracking import recording
from titles.tracking.tracker import Tracker

pytestmark = pytest.mark.pipeline

TRAIN_STAGES = {"cnn": train_cnn.main, "mlp": train_mlp.main}
EPOCHS = 4
DROPOUT = {"dropout": 0.3, "patience": 2}
# Eight titles. Of batches of 1 the second process never has one, of batches of 7 it lacks the last.
CASES = [
    ("cnn", False, 3, {}),
    ("cnn", True, 1, {}),
    ("cnn", "partial", 3, LETTERS),
    ("mlp", "partial", 7, {}),
    ("mlp", True, 8, {}),
    ("mlp", False, 4, {"gce_q": 0.5, "set_aside_below": 0.9, "heads": 2}),
    ("mlp", False, 1, LETTERS),
]

# One start for many trainings: importing torch takes longer than they do.
ONE_AFTER_ANOTHER = """
import os, sys
from titles.stages import train_cnn, train_mlp
from titles.models.parts import distributed

stages = {"cnn": train_cnn.main, "mlp": train_mlp.main}
with distributed.together():
    for folder in sys.argv[1:]:
        os.chdir(folder)
        stages[os.path.basename(folder)[:3]]()
"""

# Batches of 3 are three steps an epoch: step 8 is in the midst of the third.
BREAKING = """
import os, signal
from titles.stages import train_mlp
import torch

class Breaking(train_mlp.TitleMLP):
    steps = 0

    def forward(self, batch):
        logits_BC = super().forward(batch)
        self.steps += self.training
        if self.training and self.steps == 8 and os.environ["RANK"] == "{rank}":
            {event}
        return logits_BC

train_mlp.TitleMLP = Breaking
train_mlp.main()
"""

# A checkpoint after every step. Killed in the midst of step {step}, or never; three steps are an epoch.
KILLED = """
import os, signal
from titles.stages import train_cnn
from titles.training import checkpoints, trainer

checkpoints._LONGEST_WITHOUT = checkpoints._WRITES_BETWEEN = 0
trainer._STEPS_PER_CHECK = 1

class Killed(train_cnn.TitleCNN):
    steps = 0

    def forward(self, batch):
        self.steps += self.training
        if self.training and self.steps == {step} and os.environ.get("RANK", "0") in "{ranks}":
            os.kill({process}, signal.SIGKILL)
        return super().forward(batch)

train_cnn.TitleCNN = Killed
train_cnn.main()
"""


def write_project(folder, **changes):
    """Prepared data and parameters, in a new folder that becomes the current one."""
    folder.mkdir()
    os.chdir(folder)
    write_prepared()
    given = params(**{"epochs": EPOCHS, "class_weighting": "sqrt"} | changes)
    Path("params.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True, scope="module")
def put_back():
    folder, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
    yield
    os.chdir(folder)
    signal.signal(signal.SIGTERM, handler)


def torchrun(*program, processes=2):
    """Run processes in the current folder; nothing that they record leaves it."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    left_out = ("DVC", "MLFLOW", "TITLES_DEBUG", "TORCHELASTIC")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)} | {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",  # where nothing listens
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    return subprocess.run(
        [sys.executable, *(start if processes > 1 else []), *program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for place in (MODELS, METRICS, PLOTS)
        for path in (folder / place).rglob("*")
        if path.is_file()
    }


def answers_of(folder):
    return answers(saved.read(folder, NETWORKS).network).detach().numpy()


def folder_name(name, freeze, size, changes):
    return f"{name} {freeze} {size}{' letters' * (changes == LETTERS)}"


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """A folder with what two processes made of each case and of one with dropout, and what they said."""
    place = tmp_path_factory.mktemp("by_two")
    folders = [
        write_project(
            place / folder_name(*case), freeze_embeddings=case[1], batch_size=case[2], **case[3]
        )
        for case in CASES
    ]
    folders.append(write_project(place / "cnn with dropout", **DROPOUT))
    script = place / "script.py"
    script.write_text(ONE_AFTER_ANOTHER, encoding="utf-8")
    done = torchrun(str(script), *map(str, folders))
    assert done.returncode == 0, done.stderr
    return place, done


@pytest.mark.parametrize(
    ("name", "freeze", "size", "changes"), CASES, ids=[folder_name(*case) for case in CASES]
)
def test_two_processes_train_as_one_does(by_two, tmp_path, monkeypatch, name, freeze, size, changes):
    one = write_project(tmp_path / "one", freeze_embeddings=freeze, batch_size=size, **changes)
    monkeypatch.setattr(recording, "MlflowTracker", lambda *_: Tracker())
    TRAIN_STAGES[name]()
    two = by_two[0] / folder_name(name, freeze, size, changes)

    files_of_one, files_of_two = results(one), results(two)
    assert set(files_of_two) == set(files_of_one)
    metrics_of_one, metrics_of_two = (
        json.loads(files[f"metrics/{name}.json"])[name] for files in (files_of_one, files_of_two)
    )
    assert metrics_of_two == pytest.approx(metrics_of_one, abs=2e-5)
    np.testing.assert_allclose(
        answers_of(two / MODELS / name), answers_of(one / MODELS / name), atol=1e-4
    )
    assert saved.read(two / MODELS / name, NETWORKS).text == TEXT_RULES

    of_one, of_two = (
        [list(record.values()) for record in json.loads(files[f"plots/{name}.json"])]
        for files in (files_of_one, files_of_two)
    )
    assert len(of_two) == EPOCHS
    np.testing.assert_allclose(of_two, of_one, atol=2e-5)


def test_two_processes_speak_and_record_as_one(by_two):
    _, done = by_two
    trainings = len(CASES) + 1
    assert done.stdout.count(": 8 titles in batches of ") == trainings
    for name in TRAIN_STAGES:
        runs = sum(case[0] == name for case in CASES)
        lines = done.stdout.count(f"{name} epoch 1/{EPOCHS}")
        assert lines == runs + (name == "cnn")
    assert done.stderr.count("warning: MLflow does not record this training") == trainings


@pytest.mark.endures
def test_a_stage_run_by_two_processes_gives_the_same_bytes_again(by_two, tmp_path):
    again = write_project(tmp_path / "again", **DROPOUT)
    done = torchrun("-m", "titles.stages.train_cnn")
    assert done.returncode == 0, done.stderr
    assert results(again) == results(by_two[0] / "cnn with dropout")


@pytest.mark.endures
@pytest.mark.parametrize(
    ("rank", "event", "told"),
    [
        pytest.param(1, "logits_BC = logits_BC * torch.nan", "error: the loss is not finite", id="NaN"),
        pytest.param(1, "raise ValueError('no more')", "error: no more", id="error"),
        pytest.param(0, "os.kill(os.getppid(), signal.SIGINT)", "interrupted", id="Ctrl-C"),
        pytest.param(
            1, "open('extra.txt', 'w')", "error: extra.txt (new) changed while train_mlp ran", id="edit"
        ),
    ],
)
def test_what_breaks_one_process_ends_both_and_leaves_the_best_epoch(tmp_path, rank, event, told):
    folder = write_project(tmp_path / "project", epochs=50)
    stage = {"cmd": "python -m titles.stages.train_mlp", "deps": ["extra.txt"], "outs": ["models/mlp"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_mlp": stage}}))
    script = folder / "script.py"
    script.write_text(BREAKING.format(rank=rank, event=event), encoding="utf-8")
    done = torchrun(str(script))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "interrupted"))]
    assert [line[: len(told)] for line in lines] == [told], done.stderr
    assert [path.name for path in MODELS.iterdir()] == ["mlp.last_good"]
    assert np.isfinite(answers_of(MODELS / "mlp.last_good")).all()
    assert done.stdout.count("the best so far, is saved in models/mlp.last_good") == 1
    assert not METRICS.exists()


def killed(processes, step, ranks, process="os.getpid()"):
    """Run until processes are killed in a step, counted from the start; to the end if there is none."""
    script = Path("script.py")
    script.write_text(KILLED.format(step=step, ranks=ranks, process=process), encoding="utf-8")
    done = torchrun(str(script), processes=processes)
    assert (done.returncode == 0) == (step is None), done.stderr
    return done


def steps_before(done):
    """Steps after which a training resumed."""
    found = re.search(r"resumed after epoch (\d+) of 4(?:, step (\d) of 3 of the next)?\n", done.stdout)
    assert found, done.stdout
    return 3 * int(found[1]) + int(found[2] or 0)


def test_two_processes_of_which_one_is_killed_within_an_epoch_resume_together(by_two, tmp_path):
    folder = write_project(tmp_path / "killed", **DROPOUT)
    done = killed(2, 5, "1")
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) <= 1
    (kept,) = Path(".titles/checkpoints").glob("*.safetensors")
    # Of the step before the last one at least: rank 0 can be ended while it writes.
    assert steps_before(killed(2, None, "")) in (3, 4)
    assert results(folder) == results(by_two[0] / "cnn with dropout")
    assert not list(kept.parent.iterdir())


@pytest.mark.endures
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_stage_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(tmp_path, processes):
    changes = DROPOUT | LETTERS | {"freeze_embeddings": "partial"}
    unbroken = write_project(tmp_path / "unbroken", **changes)
    assert "resumed" not in killed(processes, None, "").stdout
    folder = write_project(tmp_path / "killed", **changes)
    last = str(processes - 1)
    assert "resumed" not in killed(processes, 3, "012").stdout
    assert 1 <= steps_before(killed(processes, 3, "0")) <= 2
    assert 2 <= steps_before(killed(processes, 4, last)) <= 4
    # Of two and more, torchrun: the others end with it, so that the next start finds the locks free.
    whose = "os.getppid()" if processes > 1 else "os.getpid()"
    assert 4 <= steps_before(killed(processes, 2, "0", whose)) <= 7
    assert steps_before(killed(processes, None, "")) >= 4
    assert results(folder) == results(unbroken)


@pytest.mark.endures
def test_a_checkpoint_of_two_processes_is_not_for_one(tmp_path):
    write_project(tmp_path / "project", **DROPOUT)
    killed(2, 5, "01")
    assert "resumed" not in killed(1, None, "").stdout
    assert steps_before(killed(2, None, "")) in (3, 4)


@pytest.mark.endures
def test_wrong_parameters_are_told_once(tmp_path):
    folder = write_project(tmp_path / "project")
    (folder / "params.yaml").write_text("seed: -1\n", encoding="utf-8")
    done = torchrun("-m", "titles.stages.train_mlp")
    assert done.returncode != 0
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1
