"""MLflow's store is killed while it is made, or damaged: the next run is recorded."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hostile.harness import Place, cases, excerpt

KIND = "store"
ON = {"TITLES_MLFLOW": "on"}


def runs(place: Place) -> list[str]:
    """Statuses of the runs in the store."""
    with closing(sqlite3.connect(f"file:{place / 'mlflow.db'}?mode=ro", uri=True)) as store:
        return [status for (status,) in store.execute("select status from runs")]


@cases(
    KIND,
    {"as it appears": 0.0, "0.05 s later": 0.05, "0.3 s later": 0.3, "1 s later": 1.0, "2 s later": 2.0},
)
def killed_while_made(place: Place, later: float) -> None:
    place.project()
    for path in place.folder.glob("mlflow.db*"):
        path.unlink()
    process = place.start(
        "train_mlp", variables=ON, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < last:
        found = list(place.folder.glob("*mlflow.db*"))
        if any(path.stat().st_size for path in found if path.exists() and "lock" not in path.name):
            break
        time.sleep(0.002)
    time.sleep(later)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = place.run("train_mlp", variables=ON)
    assert done.code == 0, excerpt(done.err)
    assert "not recorded" not in done.err.lower(), excerpt(done.err)
    assert (place / "mlflow.db").is_file(), "no store was made"
    assert "FINISHED" in runs(place), f"runs are {runs(place)}"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 100)


def without_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("create table alembic_version (version_num varchar(32))")


def half_of_the_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("pragma foreign_keys = off")
        for table in ("metrics", "params", "tags"):
            store.execute(f"drop table {table}")


def other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("create table mine (a)")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@cases(
    KIND,
    {
        f"the doctor's advice is followed: {damage.__name__}": damage
        for damage in (cut, empty, garbage, without_tables, half_of_the_tables, other_database, folder)
    },
)
def advice(place: Place, damage: Callable[[Path], None]) -> None:
    place.project()
    damage(place / "mlflow.db")
    told = place.run("doctor").out.decode()
    lines = told.splitlines()
    at = next((n for n, line in enumerate(lines) if re.search(r"problem.*mlflow.store", line)), None)
    shown = " | ".join(line for line in lines if "mlflow" in line)
    fills_it = damage is empty and "the first training fills it" in shown
    assert at is not None or fills_it, f"the doctor finds no problem: {excerpt(shown)}"
    do = "" if at is None else lines[at + 1]
    for command in re.findall(r"`([^`]+)`", do):
        if command.startswith(("mkdir ", "mv ", "rm ", "mlflow ")):
            done = subprocess.run(
                command,
                shell=True,
                cwd=place.folder,
                env=place.environment,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}: {done.stderr[-200:]!r}"
    if "move it away" in do and (place / "mlflow.db").exists() and "`mv" not in do:
        shutil.move(place / "mlflow.db", place.folder.parent / "away.db")
    trained = place.run("train_mlp", variables=ON)
    assert trained.code == 0, excerpt(trained.err)
    assert "FINISHED" in runs(place), f"runs are {runs(place)}"
    synced = place.run("mlflow", "sync")
    assert synced.code == 0, excerpt(synced.err)
    told = place.run("doctor").out.decode()
    assert not re.search(r"problem.*mlflow.store", told), excerpt(told)


@cases(
    KIND,
    {
        f"a training beside a damaged store: {damage.__name__}": damage
        for damage in (garbage, folder, other_database)
    },
)
def training(place: Place, damage: Callable[[Path], None]) -> None:
    """It is trained all the same, says in a line that it is not recorded, and leaves the store alone."""
    place.project()
    damage(place / "mlflow.db")
    before = place.entries()
    done = place.run("train_mlp", variables=ON)
    assert done.code == 0, excerpt(done.err)
    assert "mlflow" in done.err.lower(), "nothing is said"
    if damage is not other_database:
        assert place.entries()["mlflow.db"] == before["mlflow.db"], "the store was changed"
