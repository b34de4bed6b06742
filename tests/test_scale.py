"""Prepare on a cluster, on a full disk, and with workers that fail: with the real things."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from titles.data.files import atomic_folder
from titles.datasets.sample import write_csv
from titles.listings import sources
from titles.models.registry import load_params
from titles.prepare import preparation, reading
from titles.prepare.workers import SCHEDULER

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listing") / "listing.csv"
    write_csv(3_000, 5, path, progress=False)
    return path


def _prepare(source: Path, folder: Path) -> dict[str, bytes]:
    """Prepares in chunks of 500 rows; gives the bytes of all files."""
    params = load_params(ROOT / "params.yaml")
    settings = params.prepare.model_copy(update={"source": str(source)})
    with atomic_folder(folder) as partial:
        preparation.prepare(settings, partial)
    return _bytes_of(folder)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 500)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Dask scheduler with two workers, all processes of their own."""
    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
    ]
    log = (tmp_path / "cluster.log").open("w")
    quiet = {"stdout": log, "stderr": subprocess.STDOUT, "cwd": tmp_path}
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    processes = [subprocess.Popen([*dask, *local, "--port", str(port)], **quiet)]
    processes += [subprocess.Popen([*worker, *local], **quiet) for _ in range(2)]
    try:
        deadline = time.monotonic() + 300
        while (tmp_path / "cluster.log").read_text().count("Registered to:") < 2:
            assert time.monotonic() < deadline, (tmp_path / "cluster.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        for process in processes:
            process.kill()  # asked to end, a worker would wait for its scheduler
            process.wait(timeout=30)
        log.close()


@pytest.mark.endures
@pytest.mark.usefixtures("small_chunks")
def test_a_cluster_of_two_workers_gives_the_bytes_of_this_machine(
    listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    here = _prepare(listing, tmp_path / "here")
    monkeypatch.setenv(SCHEDULER, cluster)
    assert _prepare(listing, tmp_path / "there") == here
    # The work was really done there.
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        done = client.run_on_scheduler(lambda dask_scheduler: dict(dask_scheduler.task_prefixes))
    assert "tokenise_chunk" in done


@pytest.mark.usefixtures("small_chunks")
def test_a_scheduler_that_does_not_answer_is_named_and_nothing_is_left(
    listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"tcp://127.0.0.1:{_free_port()}"
    monkeypatch.setenv(SCHEDULER, address)
    monkeypatch.setattr("titles.prepare.workers._PATIENCE", 0.5)
    with pytest.raises(ValueError, match=rf"{re.escape(address)}: no Dask scheduler answers there"):
        _prepare(listing, tmp_path / "prepared")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_that_fails_in_a_worker_is_named_and_the_old_output_stays(
    listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _prepare(listing, tmp_path / "prepared")
    chunks = list(sources.read(listing, "all", 1000))
    real = reading.tokenise_chunk
    start = chunks[3].titles[0]

    def task(titles: list[str], settings: object) -> object:
        if titles[0] == start:
            raise MemoryError("no room")
        return real(titles, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "tokenise_chunk", task)
    expected = (
        rf"listing\.csv, lines {chunks[3].lines[0]} to {chunks[3].lines[-1]}: .*MemoryError: no room"
    )
    with pytest.raises(ValueError, match=expected):
        _prepare(listing, tmp_path / "prepared")
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
    assert _bytes_of(tmp_path / "prepared") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("NOT RUN: mounting a small disk needs root on Linux")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_told_in_one_line_and_the_old_output_stays(
    listing: Path, tmp_path: Path, small_disk: Path
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["prepare"]["source"] = str(listing)
    (small_disk / "params.yaml").write_text(yaml.safe_dump(params))
    stage = [sys.executable, "-m", "titles.stages.prepare"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(stage, cwd=small_disk, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    before = _bytes_of(small_disk / "data")
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (free.f_bavail * free.f_bsize - 16_384))
    full = run()
    assert full.returncode == 1
    assert full.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert _bytes_of(small_disk / "data") == before
    filler.unlink()
    assert run().returncode == 0
    assert _bytes_of(small_disk / "data") == before
