"""The MLflow store."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from titles.doctor import asking, words
from titles.doctor.finding import OK, PROBLEM, WARNING, Finding


def mlflow(root: Path | None) -> Iterator[Finding]:
    """Whether the store can be reached, and its schema is that of the installed MLflow."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    store = root / "mlflow.db" if root else None
    if uri.startswith("sqlite:///"):
        store = Path(uri.removeprefix("sqlite:///"))
    elif uri:
        yield from _mlflow_server(uri)
    if store and store.is_file():
        yield from _mlflow_schema(store)
    elif uri.startswith("sqlite:///") or (root and not uri):
        yield Finding("mlflow store", OK, f"{store} is not there yet: the first training makes it")


def _mlflow_server(uri: str) -> Iterator[Finding]:
    scheme = urlsplit(uri).scheme
    do = "start it, or `unset MLFLOW_TRACKING_URI`: runs then go to mlflow.db; trainings go on without"
    if scheme in ("", "file"):
        told = f"MLFLOW_TRACKING_URI={words.address(uri)} names a folder, which MLflow no longer takes"
        yield Finding("mlflow server", PROBLEM, told, "sqlite:///PATH names a local store")
        return
    try:
        http = scheme in ("http", "https")
        told = asking.answers(uri.rstrip("/") + "/health" if http else uri, "GET")
    except (OSError, ValueError) as error:
        yield Finding("mlflow server", PROBLEM, f"{words.address(uri)}: {asking.why(error)}", do)
        return
    fine = not http or told == "answers 200"
    yield Finding(
        "mlflow server", OK if fine else WARNING, f"{words.address(uri)}: {told}", "" if fine else do
    )


def _mlflow_schema(store: Path) -> Iterator[Finding]:
    found = importlib.util.find_spec("mlflow")
    if not found or not found.submodule_search_locations:
        return  # see packages
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    # Read as MLflow does, but without MLflow, which would take its time and write.
    scripts = ScriptDirectory(str(Path(found.submodule_search_locations[0]) / "store/db_migrations"))
    try:
        address = f"file:{quote(str(store.resolve()))}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=2)
        try:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
        ((version,),) = rows
    except (sqlite3.Error, ValueError) as error:
        do = "move it away: the next training makes a new one, and `titles mlflow sync` fills it"
        yield Finding("mlflow store", PROBLEM, f"{store} is no store of MLflow: {error}", do)
        return
    installed = f"MLflow {asking.version('mlflow')}"
    if version == scripts.get_current_head():
        yield Finding("mlflow store", OK, f"{store} fits {installed}")
        return
    try:
        known = scripts.get_revision(version) is not None
    except CommandError:
        known = False
    if known:
        do = f"keep a copy of it, then `mlflow db upgrade sqlite:///{store}`"
        yield Finding("mlflow store", PROBLEM, f"{store} is of an older version than {installed}", do)
    else:
        told = f"{store} is of a newer version than {installed} (schema {version})"
        do = "`make install`; else move it away: `titles mlflow sync` fills a new one"
        yield Finding("mlflow store", PROBLEM, told, do)
