"""Stages that real DVC runs, and whose inputs are edited meanwhile."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from small_project import ROOT, ROWS, commit, copy, environment, run
from titles.datasets.sample import write_csv

pytestmark = pytest.mark.pipeline

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Holds a stage when it has noted its inputs, before it reads them.
HELD = """\
                    import pathlib, time
                    pathlib.Path(".started").touch()
                    while pathlib.Path(".started").exists():
                        time.sleep(0.01)
                    main()
"""
EPOCHS = 25


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, with a longer training of the MLP."""
    folder = copy(base, tmp_path_factory.mktemp("changed") / "project")
    params = (folder / "params.yaml").read_text()
    head, mlp = params.split("\nmlp:")
    mlp = re.sub(r"(?m)^(  (epochs|min_steps):) \w+", lambda found: f"{found[1]} {EPOCHS}", mlp, count=2)
    (folder / "params.yaml").write_text(f"{head}\nmlp:{mlp}")
    run(folder, "dvc", "repro", "-s", "train_mlp")
    commit(folder, "longer")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return copy(made, tmp_path / "project")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def outs_of(folder: Path, stage: str) -> dict[str, dict[str, bytes]]:
    """The files of each output that is there."""
    names = [
        out if isinstance(out, str) else next(iter(out))
        for kind in ("outs", "metrics", "plots")
        for out in PIPELINE[stage].get(kind, [])
    ]
    found = {}
    for place in (folder / name for name in names if (folder / name).exists()):
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        found[place.relative_to(folder).as_posix()] = {path.name: path.read_bytes() for path in files}
    return found


@contextmanager
def running(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command with MLflow on, whose output is read line by line."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(mlflow=True) | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], text: str) -> str:
    """The output up to a line that holds `text`."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(output)


def rest(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what is left of the output."""
    assert process.stdout is not None
    output = process.stdout.read()
    return process.wait(), output


def last_status(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return str(store.execute("select status from runs order by start_time desc").fetchone()[0])


def test_an_edit_while_a_training_runs_fails_it_and_is_not_recorded(project: Path) -> None:
    before, lock = outs_of(project, "train_mlp"), (project / "dvc.lock").read_bytes()
    code = project / "src/titles/models/mlp.py"
    saved = code.read_text()
    repro = ("dvc", "repro", "-f", "-s", "train_mlp")
    with running(project, *repro) as process:
        until(process, "mlp epoch 2/")
        assert list(outs_of(project, "train_mlp")) == ["plots/mlp.json"]  # it grows
        code.write_text(saved.replace("relu", "tanh"))
        edit(project / "params.yaml", "leading_words: 2 ", "leading_words: 3 ")
        failed, output = rest(process)
    changed = "mlp.leading_words and src/titles/models/mlp.py changed while train_mlp"
    assert failed
    assert output.count(f"warning: {changed} runs") == 1
    assert output.count(f"error: {changed} ran") == 1
    assert (project / "dvc.lock").read_bytes() == lock
    assert outs_of(project, "train_mlp") == {}
    assert last_status(project) == "FAILED"
    # What the message says about the outputs of before.
    run(project, "dvc", "checkout", "train_mlp")
    run(project, "git", "checkout", "-q", "plots/mlp.json", "metrics/mlp.json")
    assert outs_of(project, "train_mlp") == before
    # Undone, the same training resumes, and its bytes are those of one that nobody disturbed.
    code.write_text(saved)
    run(project, "git", "checkout", "-q", "params.yaml")
    assert "mlp: resumed after epoch" in run(project, *repro, mlflow=True)
    assert outs_of(project, "train_mlp") == before
    assert (project / "dvc.lock").read_bytes() == lock
    assert last_status(project) == "FINISHED"


def test_data_that_changes_ends_a_training_at_once_and_its_edit_trains_from_the_start(
    project: Path,
) -> None:
    data = project / "data/prepared/train/labels.npy"
    whole = data.read_bytes()
    repro = ("dvc", "repro", "-f", "-s", "train_mlp")
    with running(project, *repro) as process:
        until(process, "mlp epoch 2/")
        data.unlink()  # DVC's files may be read-only
        another = 0 if any(whole[-4:]) else 1
        data.write_bytes(whole[:-4] + another.to_bytes(4, "little"))
        failed, output = rest(process)
    assert failed
    assert "error: data/prepared/train/labels.npy changed while train_mlp ran" in output
    assert f"epoch {EPOCHS}/" not in output
    assert outs_of(project, "train_mlp") == {}
    assert "resumed" not in run(project, *repro)


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        (
            "prepare",
            lambda folder: write_csv(ROWS, 8, folder / "data/raw/sample.csv.gz", progress=False),
            "data/raw/sample.csv.gz",
        ),
        ("embed", lambda folder: edit(folder / "params.yaml", "window: 5", "window: 4"), "embed.window"),
        (
            "evaluate",
            lambda folder: (folder / "src/titles/evaluation/notes.txt").unlink(),
            "src/titles/evaluation/notes.txt (gone)",
        ),
    ],
)
def test_each_stage_fails_for_an_edit_while_it_runs(
    project: Path, stage: str, change: Callable[[Path], None], named: str
) -> None:
    (project / "src/titles/evaluation/notes.txt").touch()
    edit(project / "src/titles/stages/__init__.py", "                    main()\n", HELD)
    before, lock = outs_of(project, stage), (project / "dvc.lock").read_bytes()
    with running(project, "dvc", "repro", "-f", "-s", stage) as process:
        while not (project / ".started").exists():
            assert process.poll() is None
            time.sleep(0.05)
        change(project)
        (project / ".started").unlink()
        failed, output = rest(process)
    assert failed
    assert f"error: {named} changed while {stage} ran" in output
    assert (project / "dvc.lock").read_bytes() == lock
    assert outs_of(project, stage) == {}
    run(project, "dvc", "checkout", stage)
    kept = {out: files for out, files in before.items() if not out.startswith(("metrics/", "plots/"))}
    assert outs_of(project, stage) == kept
