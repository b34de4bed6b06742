"""`make scale`: all steps on a few rows, cut off and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

ROOT = Path(__file__).parent.parent
STEPS = ["sample", "prepare", "embed", "train_cnn", "train_mlp", "evaluate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("scale")
    (found / "experiments").mkdir()
    for name in ("params.yaml", "experiments/large.yaml"):
        shutil.copyfile(ROOT / name, found / name)
    return found


def _command(*options: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks/scale.py"), "--rows", "20000", *options]


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TITLES_MLFLOW": "off"}
    return subprocess.run(
        _command(*options), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _state(folder: Path) -> dict[str, dict[str, list[float]]]:
    path = folder / ".bench/scale/20000/stages.json"
    found: dict[str, dict[str, list[float]]] = json.loads(path.read_text()) if path.exists() else {}
    return found


@contextmanager
def _begun(folder: Path, step: str, times: int) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has begun a step, for the time with this number."""
    environment = os.environ | {"TITLES_MLFLOW": "off"}
    with subprocess.Popen(
        _command(), cwd=folder, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        deadline = time.monotonic() + 500
        while _state(folder).get("begun", {}).get(step, [0])[-1] < times:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield child


def test_a_request_to_end_ends_the_step_too(folder: Path) -> None:
    with _begun(folder, "train_cnn", 1) as child:
        steps = psutil.Process(child.pid).children(recursive=True)
        child.terminate()
        assert child.wait(60) == 143
    assert steps
    assert psutil.wait_procs(steps, 10)[1] == []


def test_a_run_that_was_killed_goes_on_with_the_same_command(folder: Path) -> None:
    with _begun(folder, "train_cnn", 2) as child:
        os.killpg(child.pid, signal.SIGKILL)
    before = _state(folder)["costs"]
    assert list(before) == STEPS[:3]
    early = _run(folder, "--table")
    assert early.returncode == 1
    assert "are not evaluated yet" in early.stderr

    done = _run(folder, "--into", "table.md")
    assert done.returncode == 0, done.stderr
    state = _state(folder)
    assert list(state["costs"])[:6] == STEPS
    assert {step: state["costs"][step] for step in before} == before
    assert state["costs"]["train_cnn"][3] == 3
    assert state["begun"] == {}
    table = (folder / "table.md").read_text()
    assert done.stdout == table
    assert "`train_cnn` 3 times" in table
    found = json.loads((folder / ".bench/scale/20000/metrics/evaluate.json").read_text())
    (row,) = [line for line in table.splitlines() if line.startswith("| all steps")]
    assert f"| {found['average.balanced_accuracy']:.4f} (average) |" in row
    assert "sample with 1,588 categories" in table

    for again in (_run(folder), _run(folder, "--table")):
        assert again.stdout == table
        assert again.stderr.count(" ... ") == 0


def test_steps_of_other_parameters_are_not_mixed_with_new_ones(folder: Path) -> None:
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("fc_size: 512", "fc_size: 256"))
    done = _run(folder)
    assert done.returncode == 1
    assert "of other code or parameters, or of another processor" in done.stderr


def test_a_disk_that_is_too_small_is_refused_before_the_work(folder: Path) -> None:
    options = ["--rows", str(10**12)]
    done = _run(folder, *options)
    assert done.returncode == 1
    assert "GB are missing" in done.stderr
    assert not (folder / ".bench/scale" / options[1]).exists()
