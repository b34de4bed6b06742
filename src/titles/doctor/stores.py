"""DVC's data in cache, remote and workspace, and the MLflow store."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from titles.doctor.environment import version
from titles.doctor.findings import MOST_NAMES, OK, Finding, listed_files, ok, problem, public, warning
from titles.doctor.probes import DVC, reach, run
from titles.tracking import local_store
from titles.tracking.provenance import sqlite_uri

_REFLINKS = {"apfs", "bcachefs", "btrfs", "ocfs2", "xfs"}  # copies of a file share blocks there


def dvc(root: Path) -> Iterator[Finding]:
    """Check DVC, its remote, the data in cache, remote and workspace, and free disk space."""
    if not (root / ".dvc").is_dir():
        yield problem("dvc", f"{root}/.dvc is missing", "`git checkout .dvc`, or `dvc init`")
        return
    settings = run(root, *DVC, "config", "--list")
    if not settings.ok:
        found = f"`dvc config --list` failed: {settings.reason}"
        yield problem("dvc", found, "see packages, or its message")
        return
    # If a key is listed twice, the later line is that of the file with precedence.
    config = dict(line.split("=", 1) for line in settings.out.splitlines() if "=" in line)
    name = config.get("core.remote", "")
    url = config.get(f"remote.{name}.url", "")
    path = url.removeprefix("file://")
    folder = Path(path) if path and "://" not in path else None  # of a remote on a disk
    cache = root / ".dvc" / config.get("cache.dir", "cache")
    yield ok("dvc", f"DVC {version('dvc')}")
    remote = _remote(name, url)
    yield remote
    if url and config.get(f"remote.{name}.verify", "").lower() != "true":
        do = f"`dvc remote modify --local {name} verify true`"
        yield warning("verify", f"without `verify`, damaged data of {name} would be accepted", do)
    page = config.get("plots.html_template", "")
    if page and not (root / ".dvc" / page).is_file():
        do = "`make install` makes that of the project; for DVC's: "
        do += "`dvc config --local --unset plots.html_template`"
        yield problem("plots", f"the page in which `dvc plots` draws, {page}, is missing", do)
    if folder and folder.is_relative_to(root):
        yield from _line_endings(root, folder.relative_to(root))
    yield _data(root, name, remote.level == OK)
    yield _workspace(root, cache)
    yield from _objects(root, cache, folder, name)
    yield from _disk(root, cache, "cache.type" in config)


def _remote(name: str, url: str) -> Finding:
    if not name:
        do = "`dvc remote default store`, or add your own: see docs/sharing.md, Remotes"
        return warning("remote", "there is no default remote: nothing can be pulled", do)
    if not url:
        do = f"`dvc remote list` lists remotes; `dvc remote add --local {name} ADDRESS` adds one"
        return problem("remote", f"the default remote {name!r} has no address", do)
    reached, answer = reach(url, "HEAD")
    do = "is the disk mounted, or are you online? If its address is wrong: "
    do += f"`dvc remote modify --local {name} url ADDRESS`"
    found = f"{name}, {public(url)}: {answer}"
    return ok("remote", found) if reached else problem("remote", found, do)


def _line_endings(root: Path, remote: Path) -> Iterator[Finding]:
    """git must not change objects in the repository: their names are the hashes of their bytes."""
    attribute = run(root, "git", "check-attr", "text", "--", f"{remote}/files/md5/00/0")
    setting = run(root, "git", "config", "core.autocrlf").out.strip() or "false"
    if attribute.out.strip().endswith(": unset"):
        yield ok("line endings", f"git keeps those of the remote (core.autocrlf is {setting})")
    elif attribute.ok:  # otherwise see git
        found = f"git may convert line endings in {remote} (core.autocrlf is {setting})"
        do = f"add `/{remote}/** -text` to .gitattributes, then clone again"
        yield (problem if setting in ("true", "input") else warning)("line endings", found, do)


def _data(root: Path, remote: str, is_reachable: bool) -> Finding:
    asked = run(root, *DVC, "data", "status", "--json", *["--not-in-remote"] * is_reachable)
    if not asked.ok:
        return problem("data", f"`dvc data status` failed: {asked.reason}", "run it to see more")
    status: dict[str, Any] = json.loads(asked.out)
    not_cached, not_pushed = set(status.get("not_in_cache", [])), set(status.get("not_in_remote", []))
    if lost := sorted(not_cached & not_pushed):
        do = "`dvc repro` makes the outputs of stages; whoever has other data can `dvc push` it"
        return problem("data", f"neither here nor in {remote}: {listed_files(lost)}", do)
    if not_cached:
        where = f"only in {remote}" if is_reachable else "not here"
        return warning("data", f"{where}: {listed_files(sorted(not_cached))}", "`dvc pull`")
    if not_pushed:
        found = f"here, but not in {remote}: {listed_files(sorted(not_pushed))}"
        return ok("data", found, "to share it: `dvc push`, see docs/sharing.md")
    return ok("data", "all data is in the cache" + f" and in {remote}" * is_reachable)


def _workspace(root: Path, cache: Path) -> Finding:
    from titles.experiments import objects

    if not (root / "dvc.lock").is_file():
        return warning("workspace", "there is no dvc.lock: nothing has run", "`dvc exp run`")
    asked = run(root, *DVC, "status", "--json")
    if not asked.ok:
        return problem("workspace", f"`dvc status` failed: {asked.reason}", "run it to see more")
    if changed := list(json.loads(asked.out)):
        do = "`dvc status` shows how; `dvc exp run` runs it, `git checkout . && dvc checkout` undoes it"
        return warning("workspace", f"differs from dvc.lock: {listed_files(changed)}", do)
    if damaged := objects.read_workspace(root, cache, objects.cached(root)):
        outs = list(dict.fromkeys(damage.out for damage in damaged))
        found = f"damaged, unnoticed by DVC: {listed_files([damage.path for damage in damaged])}"
        do = f"`rm -rf {shlex.join(outs[:MOST_NAMES])}`, then `dvc checkout`"
        return problem("workspace", found, do)
    return ok("workspace", "all files are as in dvc.lock, to the byte")


def _objects(root: Path, cache: Path, remote: Path | None, name: str) -> Iterator[Finding]:
    """Read all objects of the cache and of a remote on a disk: DVC trusts those that it has."""
    from tqdm import tqdm

    from titles.experiments import objects

    outs = objects.cached(root)
    places = [(cache, "DVC's cache, which DVC may accept", "`dvc pull`, or `dvc repro`")]
    if remote:
        text = f"the remote {name}, which `dvc pull` refuses"
        places.append((remote, text, "`dvc push` where they are intact"))
    stores = [objects.read_store(place, outs) for place, _, _ in places]
    if not any(store.damaged for store in stores):
        size = tqdm.format_sizeof(sum(store.size for store in stores))
        yield ok("bytes", f"{size}B of objects are what their names say")
    for store, (place, text, repair) in zip(stores, places, strict=True):
        if not store.damaged:
            continue
        owners = list(dict.fromkeys(damage.out for damage in store.damaged))
        remove = [damage.path for damage in store.damaged[:MOST_NAMES]]
        for out in owners[:MOST_NAMES]:
            # Files checked out from a damaged object are damaged too; in a remote, DVC takes a folder
            # to be complete if its listing is there.
            remove.append(root / out if place == cache else objects.place(place, outs[out]))
        paths = [path.relative_to(root) if path.is_relative_to(root) else path for path in remove]
        do = f"`rm -rf {shlex.join(dict.fromkeys(map(str, paths)))}`, then {repair}, and check again"
        found = f"{len(store.damaged)} damaged or missing objects in {text}: {listed_files(owners)}"
        yield problem("bytes", found, do)


def _disk(root: Path, cache: Path, is_linked: bool) -> Iterator[Finding]:
    """Free space for one more run, which stores its outputs in the workspace and in DVC's cache."""
    import psutil
    from tqdm import tqdm

    from titles.data.documents import parse_yaml, read_bytes

    lock = root / "dvc.lock"
    stages = parse_yaml(read_bytes(lock))["stages"] if lock.is_file() else {}
    needed = 2 * sum(out.get("size", 0) for stage in stages.values() for out in stage.get("outs", []))
    free = min(shutil.disk_usage(place).free for place in (root, cache) if place.is_dir())
    size = tqdm.format_sizeof
    found = f"{size(free)}B free; a run takes {size(needed)}B with DVC's cache"
    do = "`dvc gc --workspace --all-commits` removes what no commit needs, experiments too"
    level = problem if free < needed else warning
    yield ok("disk", found) if free >= 3 * needed else level("disk", found, do)
    mounts = [m for m in psutil.disk_partitions(all=True) if root.resolve().is_relative_to(m.mountpoint)]
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    if kind and kind not in _REFLINKS and not is_linked:
        do = "to save space: `dvc config --local cache.type hardlink,copy`, for read-only files"
        yield ok("links", f"{kind} has no reflinks: data is stored twice, also in DVC's cache", do)


def mlflow(root: Path | None) -> Iterator[Finding]:
    """Whether the store can be reached, and its schema is that of the installed MLflow."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    store = root / "mlflow.db" if root else None
    if uri.startswith("sqlite:///"):
        from sqlalchemy import make_url

        store, uri = Path(make_url(uri).database or ""), ""
    if uri:
        yield _server(uri)
    if store and store.exists():
        yield from _schema(store)
    elif store and not uri:
        yield ok("mlflow store", f"{store} does not exist yet: the first training creates it")


def _server(uri: str) -> Finding:
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        found = f"MLFLOW_TRACKING_URI={public(uri)} is a folder, which MLflow no longer supports"
        return problem("mlflow server", found, "sqlite:///PATH names a local store")
    is_http = scheme in ("http", "https")
    reached, answer = reach(uri.rstrip("/") + "/health" * is_http, "GET")
    found = f"{public(uri)}: {answer}"
    if reached and (not is_http or answer == "answers 200"):
        return ok("mlflow server", found)
    do = "start it, or `unset MLFLOW_TRACKING_URI` to log to mlflow.db; training also works without"
    return (warning if reached else problem)("mlflow server", found, do)


def _schema(store: Path) -> Iterator[Finding]:
    spec = find_spec("mlflow")
    if not spec or not spec.submodule_search_locations:
        return  # see packages
    from alembic.script import ScriptDirectory

    # As MLflow reads it, but without importing MLflow, which is slow and writes to the store.
    scripts = ScriptDirectory(str(Path(spec.submodule_search_locations[0]) / "store/db_migrations"))
    installed = f"MLflow {version('mlflow')}"
    away = _moving(store)
    again = f"`{away}`, then `titles mlflow sync` fills a new one"
    try:
        schema = local_store.schema(store, seconds=2)
    except ValueError as error:
        yield problem("mlflow store", f"{store} is no whole store of MLflow: {error}", again)
        return
    if schema is None:
        yield ok("mlflow store", f"{store} is empty: the first training fills it")
    elif schema == scripts.get_current_head():
        yield ok("mlflow store", f"{store} fits {installed}")
    elif schema in {script.revision for script in scripts.walk_revisions()}:
        found = f"{store} is of an older version than {installed}"
        if reason := _unfit(store):
            found += f", and cannot be brought up to date: {reason}"
            yield problem("mlflow store", found, again)
        else:
            copy = shlex.join(["cp", _near(store), _near(_free(store, "old"))])
            do = f"`{copy}`, then `mlflow db upgrade {shlex.quote(local_store.uri(store))}`"
            yield problem("mlflow store", found, do)
    else:
        found = f"{store} is of a newer version than {installed} (schema {schema})"
        yield problem("mlflow store", found, f"`make install`; or {again}")


def _free(store: Path, ending: str) -> Path:
    """A name beside a store that nothing has."""
    names = (store.with_name(f"{store.name}.{ending}{number or ''}") for number in count())
    return next(name for name in names if not os.path.lexists(name))


def _moving(store: Path) -> str:
    """The command that moves a store away, with its journal: SQLite would apply it to the next one."""
    folder = _near(_free(store, "broken"))
    parts = [_near(file) for file in local_store.files(store)]
    return f"{shlex.join(['mkdir', folder])} && {shlex.join(['mv', *parts, folder])}"


def _near(path: Path) -> str:
    """The path as it is written here, as commands have to fit a finding."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _unfit(store: Path) -> str:
    """Why MLflow cannot bring a store up to date, tried with a copy; "" if it can."""
    with tempfile.TemporaryDirectory() as folder:
        for file in local_store.files(store):
            shutil.copyfile(file, Path(folder, file.name))
        copy = sqlite_uri(Path(folder, store.name))
        tried = run(None, sys.executable, "-m", "mlflow", "db", "upgrade", copy)
    slow = tried.reason.startswith("it did not end")  # which says nothing about the store
    return "" if tried.ok or slow else tried.reason
