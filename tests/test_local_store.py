"""MLflow's local store: whole or absent after a kill at any step, and mended as `titles doctor` says."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import small_project
from titles.doctor import stores
from titles.doctor.findings import OK, PROBLEM
from titles.tracking import local_store
from titles.tracking.mlflow import open_store

pytestmark = pytest.mark.pipeline  # MLflow takes seconds to make a store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole store."""
    store = tmp_path_factory.mktemp("whole") / "mlflow.db"
    local_store.make(store, (store.parent / "mlruns").as_uri())
    assert [path.name for path in store.parent.iterdir()] == ["mlflow.db"]
    return store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "TITLES_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def change(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def cut_off(store: Path) -> None:
    """Leave a store as a kill in the middle of a large change does: a journal has to undo it."""
    change(store, "CREATE TABLE filler (x)")
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(store)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("UPDATE experiments SET name = name || 'x'")
connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 5000,)] * 500)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert store.with_name(f"{store.name}-journal").stat().st_size


def first_tables(store: Path) -> None:
    change(store, "CREATE TABLE experiments (experiment_id INTEGER)")


def first_tables_and_a_journal(store: Path) -> None:
    first_tables(store)
    cut_off_copy = store.with_name("other.db")
    shutil.copy(store, cut_off_copy)
    change(cut_off_copy, "ALTER TABLE experiments ADD name")
    store.with_name("mlflow.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    cut_off_copy.unlink()


HALF: dict[str, Callable[[Path, Path], object]] = {
    "no version": lambda store, whole: change(shutil.copy(whole, store), "DROP TABLE alembic_version"),
    "empty version": lambda store, whole: change(
        shutil.copy(whole, store), "DELETE FROM alembic_version"
    ),
    "first tables": lambda store, _: first_tables(store),
    "a journal": lambda store, _: first_tables_and_a_journal(store),
    "version only": lambda store, _: change(
        store,
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
    ),
    "half of a migration": lambda store, whole: change(
        shutil.copy(whole, store), "UPDATE alembic_version SET version_num = '451aebb31d03'"
    ),
    "no database": lambda store, _: store.write_text("no database, but a text\n" * 100),
    "cut by half": lambda store, whole: store.write_bytes(
        whole.read_bytes()[: whole.stat().st_size // 2]
    ),
}


@pytest.mark.parametrize("kind", HALF)
def test_a_store_that_is_not_whole_is_told_and_mended_as_doctor_says(
    project: Path, whole: Path, kind: str
) -> None:
    store = project / "mlflow.db"
    HALF[kind](store, whole)
    before = {file.name: file.read_bytes() for file in local_store.files(store)}
    (found,) = stores.mlflow(project)
    assert found.level == PROBLEM
    assert {file.name: file.read_bytes() for file in local_store.files(store)} == before
    if kind != "half of a migration":  # which MLflow itself tells
        with pytest.raises(
            ValueError, match=r"no whole store of MLflow \(.*\): `titles doctor` says how"
        ):
            open_store()
    commands = re.findall("`([^`]+)`", found.do)
    assert commands[1] == "titles mlflow sync"
    subprocess.run(commands[0], shell=True, check=True)
    assert {path.name: path.read_bytes() for path in (project / "mlflow.db.broken").iterdir()} == before
    assert local_store.files(store) == []
    shutil.copy(whole, store)  # as `titles mlflow sync` makes it, see below
    (found,) = stores.mlflow(project)
    assert found.level == OK


@pytest.mark.parametrize("content", ["no bytes", "no table"])
def test_a_store_that_holds_nothing_is_filled(project: Path, content: str) -> None:
    store = project / "mlflow.db"
    store.touch()
    if content == "no table":
        change(store, "CREATE TABLE x (y)", "DROP TABLE x")
    store.with_name("mlflow.db-journal").write_bytes(b"")
    (found,) = stores.mlflow(project)
    assert (found.level, "is empty" in found.found) == (OK, True)
    client, experiment = open_store()
    client.create_run(experiment)
    assert len(client.search_runs([experiment])) == 1
    assert not list(project.glob(".mlflow*"))
    (found,) = stores.mlflow(project)
    assert (found.level, "fits MLflow" in found.found) == (OK, True)


def test_a_store_is_made_where_the_users_link_leads(project: Path) -> None:
    (project / "disk").mkdir()
    before = os.umask(0o002)
    (project / "mlflow.db").symlink_to("disk/shared.db")
    beside = project / "disk/.shared.db.mine.partial"
    beside.mkdir()
    (found,) = stores.mlflow(project)
    assert (found.level, "does not exist yet" in found.found) == (OK, True)
    client, experiment = open_store()
    client.create_run(experiment)
    os.umask(before)
    assert (project / "mlflow.db").is_symlink()
    assert stat.S_IMODE((project / "disk/shared.db").stat().st_mode) == 0o664
    assert sorted(path.name for path in (project / "disk").iterdir()) == [beside.name, "shared.db"]
    cut_off(project / "disk/shared.db")  # with a journal beside the file, not beside the link
    (found,) = stores.mlflow(project)
    assert found.level == OK, found


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_store(project: Path, kind: str) -> None:
    store = project / "mlflow.db"
    (Path.mkdir if kind == "folder" else os.mkfifo)(store)
    (found,) = stores.mlflow(project)
    assert (found.level, "it is no file" in found.found) == (PROBLEM, True)
    with pytest.raises(ValueError, match=r"no whole store of MLflow \(it is no file\)"):
        open_store()
    subprocess.run(re.findall("`([^`]+)`", found.do)[0], shell=True, check=True)
    assert local_store.files(store) == []


def test_a_whole_store_whose_last_change_was_cut_off_is_not_taken_for_broken(
    project: Path, whole: Path
) -> None:
    store = project / "mlflow.db"
    shutil.copy(whole, store)
    cut_off(store)
    before = store.read_bytes()
    (found,) = stores.mlflow(project)
    assert found.level == OK
    assert store.read_bytes() == before
    client, experiment = open_store()
    client.create_run(experiment)
    assert client.get_experiment_by_name("Default")


@pytest.mark.endures
def test_a_store_of_an_older_version_is_brought_up_to_date_as_doctor_says(project: Path) -> None:
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    store = project / "mlflow.db"
    uri = local_store.uri(store)
    engine = create_engine(uri)
    Base.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(utils._get_alembic_config(uri), "cc1f77228345")
    (found,) = stores.mlflow(project)
    assert (found.level, "is of an older version" in found.found) == (PROBLEM, True)
    for line in re.findall("`([^`]+)`", found.do):
        subprocess.run(line, shell=True, check=True, env=small_project.environment())
    assert (project / "mlflow.db.old").is_file()
    (found,) = stores.mlflow(project)
    assert found.level == OK


@pytest.mark.endures
def test_a_kill_at_any_step_leaves_no_store_or_a_whole_one(project: Path) -> None:
    script = Path(__file__).with_name("killed_store.py")
    environment = {k: v for k, v in small_project.environment().items() if k != "MLFLOW_TRACKING_URI"}
    ran = subprocess.run(
        [sys.executable, str(script), str(project), "600"],
        env=environment | {"TITLES_MLFLOW": "on"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    tried, every = map(int, ran.stdout.split())
    assert 5 < tried < every
