"""The project's own store of MLflow, an SQLite file: made as a whole or not at all, and its state.

MLflow makes a store in some hundred steps. A process that ends between them leaves a file that MLflow
neither uses nor mends.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from titles.data.scratch import scratch
from titles.tracking.provenance import sqlite_uri

_SIDECARS = ("-journal", "-wal", "-shm")  # SQLite's files beside a database
_TABLES = {"experiments", "runs", "metrics", "params", "tags"}  # since MLflow's first schema
_SECONDS = 30.0  # to wait for another process that writes


def files(store: Path) -> list[Path]:
    """The file of a store and those beside it that belong to it, as far as they exist."""
    named_so = [store, *(store.with_name(store.name + ending) for ending in _SIDECARS)]
    return [path for path in named_so if os.path.lexists(path)]


def schema(store: Path, seconds: float = _SECONDS) -> str | None:
    """The version of the schema of a store that is a file, which is only read; None if it holds nothing.

    Raises:
        ValueError: it is no whole store of MLflow: no database, damaged, or its making was cut off.
        PermissionError: it may not be read.
    """
    if not store.is_file():
        raise ValueError("it is no file")
    store = store.resolve()  # beside which SQLite has the journal
    store.open("rb").close()
    try:
        try:
            return _schema(store, seconds)
        except sqlite3.OperationalError as error:
            if "lock" in str(error) or "busy" in str(error):
                raise
        # After a kill, SQLite has to undo a half-written change before anything can be read.
        with tempfile.TemporaryDirectory() as folder:
            for file in files(store):
                shutil.copyfile(file, Path(folder, file.name))
            with closing(sqlite3.connect(Path(folder, store.name))) as copy:
                copy.execute("PRAGMA schema_version")
            return _schema(Path(folder, store.name), seconds)
    except sqlite3.Error as error:
        raise ValueError(str(error)) from None


def _schema(store: Path, seconds: float) -> str | None:
    address = f"file:{quote(str(store))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=seconds)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in found}
        if not tables:
            return None
        versions = []
        if "alembic_version" in tables:
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        if len(versions) != 1 or not tables >= _TABLES:
            raise ValueError("it has tables, but its making or a migration was cut off")
        ((damage,), *_) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if damage != "ok":
            raise ValueError(f"it is damaged: {damage}")
    return str(versions[0][0])


def make(store: Path, artifacts: str) -> None:
    """Make a store that does not exist, or holds nothing. The caller holds its lock.

    Args:
        artifacts: URI of the folder for files of runs.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from titles.data.files import named, written_at  # `titles doctor` runs without packages

    store = written_at(store)
    with scratch(store) as folder:
        made = folder / store.name
        made.touch()  # with the mode of new files, which SQLite does not give
        # A client would put the current folder into the SQL that sets up the store, quotes and all.
        new = SqlAlchemyStore(uri(made), artifacts)  # type: ignore[no-untyped-call]
        new.engine.dispose()
        for file in files(store)[::-1]:
            # SQLite would take the journal of another file for one of this.
            file.unlink()
        named(made, store)


def uri(store: Path) -> str:
    """The URI of a store for MLflow."""
    found = sqlite_uri(store)
    if "%" in found:
        # MLflow would also make a folder of the quoted name. Runs are in the project or below it.
        found = sqlite_uri(Path(os.path.relpath(store)))
    return found
