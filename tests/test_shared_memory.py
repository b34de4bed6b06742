"""Without shared memory, as in some containers and services: all work is done, by fewer processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from small_project import ROWS, environment, outs, run, write_project

# /dev/shm that takes no file, and one that is full after the first.
PLACES = {"read-only": "-o ro", "full": "-o size=4k"}
WITHOUT = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
WORK = """
import os, sys
from titles.doctor.probes import reach
from titles.prepare.workers import pool
with pool() as (executor, waiting):
    print([executor.submit(abs, -number).result() for number in range(5)], waiting > 0)
print(reach("/", "HEAD"), reach("/missing", "HEAD"))
"""


def command(place: str, *then: str) -> list[str]:
    return [*WITHOUT, f'mount -t tmpfs {PLACES[place]} none /dev/shm && exec "$0" "$@"', *then]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    done = subprocess.run(command(found, "true"), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT RUN: the right to mount a small disk is missing: {done.stderr.strip()}")
    return found


def test_workers_and_probes_do_without_it(place: str) -> None:
    done = subprocess.run(
        command(place, sys.executable, "-W", "ignore", "-c", WORK),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == "[0, 1, 2, 3, 4] True"
    assert second.startswith("(True, 'the folder exists') (False, ")
    (line,) = done.stderr.splitlines()
    assert line.startswith("note: no worker processes can be started")


@pytest.mark.pipeline
@pytest.mark.endures
def test_the_pipeline_gives_the_same_bytes_without_it(place: str, tmp_path: Path, base: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    write_project(project, ROWS, threads=1)
    run(project, *command(place, sys.executable, "-m", "dvc", "repro"), mlflow=True)
    for stage in ("prepare", "embed", "train_cnn", "train_mlp"):
        assert outs(project, stage) == outs(base, stage)
    titles = [str(Path(sys.executable).with_name("titles")), "predict", "Funda roja"]
    assert subprocess.check_output(command(place, *titles), cwd=project, env=environment())
