"""DVC: its remote, and whether all data is there and whole."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from titles.doctor import asking, words
from titles.doctor.finding import OK, PROBLEM, WARNING, Config, Finding

# These share blocks between copies of a file.
_REFLINKS = {"apfs", "bcachefs", "btrfs", "ocfs2", "xfs"}


def dvc(root: Path) -> Iterator[Finding]:
    """DVC itself, its remote, the data in both places, free disk."""
    if not (root / ".dvc").is_dir():
        do = "`git checkout .dvc`, or `dvc init` where there never was one"
        yield Finding("dvc", PROBLEM, f"no DVC repository: {root}/.dvc is missing", do)
        return
    listed = asking.dvc(root, "config", "--list")
    if listed.code != 0:
        told = f"DVC cannot be run here: {listed.reason}"
        yield Finding("dvc", PROBLEM, told, "see packages; `dvc config --list` says more")
        return
    # Of a key that stands twice, the later line is that of the file that wins.
    config = dict(line.split("=", 1) for line in listed.out.splitlines() if "=" in line)
    yield Finding("dvc", OK, f"DVC {asking.version('dvc')}")
    name = config.get("core.remote", "")
    reachable = False
    for finding in _remote(root, config, name):
        reachable |= finding.check == "remote" and finding.level == OK
        yield finding
    yield from _data(root, name, reachable)
    yield from _workspace(root, config)
    yield from _bytes(root, config, name)
    yield from _disk(root, config)


def _remote(root: Path, config: Config, name: str) -> Iterator[Finding]:
    """The first finding is about whether it can be reached."""
    url = config.get(f"remote.{name}.url", "")
    if not name:
        do = "`dvc remote default store`, or add your own: see README.md, Remotes"
        yield Finding("remote", WARNING, "there is no default remote: nothing can be pulled", do)
        return
    if not url:
        do = f"`dvc remote list` names those there are; `dvc remote add --local {name} ADDRESS`"
        yield Finding("remote", PROBLEM, f"the default remote {name!r} has no address", do)
        return
    path = Path(url.removeprefix("file://"))
    local = "://" not in url or url.startswith("file://")
    try:
        told = _folder(path) if local else asking.answers(url, "HEAD")
    except (OSError, ValueError) as error:
        do = "is its address right, and are you online?" if not local else "is the disk there? or else "
        do += f" `dvc remote modify --local {name} url ADDRESS` sets another"
        yield Finding("remote", PROBLEM, f"{name}, {words.address(url)}: {asking.why(error)}", do)
    else:
        yield Finding("remote", OK, f"{name}, {words.address(url)}: {told}")
    if config.get(f"remote.{name}.verify", "").lower() != "true":
        told = f"the remote {name} has no `verify`: damaged data would be taken for good"
        yield Finding("verify", WARNING, told, f"`dvc remote modify --local {name} verify true`")
    if local and path.is_relative_to(root):
        yield from _line_endings(root, path)


def _folder(path: Path) -> str:
    if not path.is_dir():
        raise ValueError("there is no such folder")
    os.scandir(path).close()
    return "the folder is there"


def _line_endings(root: Path, remote: Path) -> Iterator[Finding]:
    """git must not touch objects in the repository: their names are the hashes of their bytes."""
    place = f"{remote.relative_to(root)}/files/md5/00/0"
    attribute = asking.run(["git", "check-attr", "text", "--", place], root, asking.GIT_PATIENCE)
    if attribute.code != 0:
        return  # see git
    setting = (
        asking.run(["git", "config", "core.autocrlf"], root, asking.GIT_PATIENCE).out.strip() or "false"
    )
    if attribute.out.strip().endswith(": unset"):
        yield Finding("line endings", OK, f"git leaves those of the remote alone (autocrlf {setting})")
        return
    converts = setting in ("true", "input")
    told = f"git may convert line endings in {remote.relative_to(root)} (core.autocrlf is {setting})"
    do = f"add `/{remote.relative_to(root)}/** -text` to .gitattributes, then clone anew"
    yield Finding("line endings", PROBLEM if converts else WARNING, told, do)


def _data(root: Path, remote: str, reachable: bool) -> Iterator[Finding]:
    options = ["--not-in-remote"] if reachable else []
    asked = asking.dvc(root, "data", "status", "--json", *options)
    if asked.code != 0:
        do = "`dvc data status --not-in-remote` says more"
        yield Finding("data", PROBLEM, f"DVC cannot say where data is: {asked.reason}", do)
        return
    status: dict[str, Any] = json.loads(asked.out)
    here_not, there_not = set(status.get("not_in_cache", [])), set(status.get("not_in_remote", []))
    if lost := sorted(here_not & there_not):
        do = "`dvc repro` makes what stages make; or whoever has it: `dvc push`"
        yield Finding("data", PROBLEM, f"neither here nor in {remote}: {words.some(lost)}", do)
    elif here_not:
        where = f"in {remote} alone" if reachable else "not here"
        yield Finding("data", WARNING, f"{where}: {words.some(sorted(here_not))}", "`dvc pull`")
    elif there_not:
        do = "to hand it to others: `dvc push`, see docs/sharing.md"
        yield Finding("data", OK, f"here, and not in {remote}: {words.some(sorted(there_not))}", do)
    else:
        yield Finding("data", OK, "all is in the cache" + f", and in {remote}" * reachable)


def _workspace(root: Path, config: Config) -> Iterator[Finding]:
    from titles.experiments import objects

    if not (root / "dvc.lock").is_file():
        yield Finding("workspace", WARNING, "there is no dvc.lock: nothing has run", "`dvc exp run`")
        return
    asked = asking.dvc(root, "status", "--json")
    if asked.code != 0:
        told = f"DVC cannot compare files with dvc.lock: {asked.reason}"
        yield Finding("workspace", PROBLEM, told, "`dvc status` says more")
    elif changed := list(json.loads(asked.out)):
        do = "`dvc status` says what; `dvc exp run` runs it, `git checkout . && dvc checkout` drops it"
        yield Finding("workspace", WARNING, f"not as in dvc.lock: {words.some(changed)}", do)
    elif damaged := objects.read_workspace(root, _cache(root, config), objects.cached(root)):
        outs = list(dict.fromkeys(damage.out for damage in damaged))
        told = f"damaged, though DVC takes them for whole: {words.some([str(d.path) for d in damaged])}"
        do = f"`rm -rf {shlex.join(outs[: words.NAMED])}`, then `dvc checkout`"
        yield Finding("workspace", PROBLEM, told, do)
    else:
        yield Finding("workspace", OK, "all files are as in dvc.lock, to the byte")


def _bytes(root: Path, config: Config, name: str) -> Iterator[Finding]:
    """Read all objects, of the cache and of a remote that is a folder; DVC trusts those it has."""
    from titles.experiments import objects

    outs = objects.cached(root)
    remote = Path(config.get(f"remote.{name}.url", "").removeprefix("file://"))
    size, damaged = 0, False
    for place, what, effect, heal in (
        (
            _cache(root, config),
            "DVC's cache",
            "which DVC may take for whole",
            "`dvc pull`, or `dvc repro`",
        ),
        (remote, f"the remote {name}", "which `dvc pull` refuses", "`dvc push` where they are whole"),
    ):
        if not (place / "files/md5").is_dir():
            continue
        store = objects.read_store(place, outs)
        size += store.size
        if store.damaged:
            damaged = True
            owners = list(dict.fromkeys(damage.out for damage in store.damaged))
            told = (
                f"{len(store.damaged)} damaged or missing objects in {what}, {effect}: "
                f"{words.some(owners)}"
            )
            wrong = [damage.path for damage in store.damaged[: words.NAMED]]
            if place == remote:  # where DVC takes a folder for whole if its listing is there
                wrong += [objects.place(place, outs[owner]) for owner in owners[: words.NAMED]]
            else:  # what was checked out from a damaged object is damaged too
                wrong += [root / owner for owner in owners[: words.NAMED]]
            paths = [path.relative_to(root) if path.is_relative_to(root) else path for path in wrong]
            do = f"`rm -rf {shlex.join(dict.fromkeys(map(str, paths)))}`, then {heal}, and look again"
            yield Finding("bytes", PROBLEM, told, do)
    if not damaged:
        yield Finding("bytes", OK, f"{words.size(size)} of objects are what their names say")


def _cache(root: Path, config: Config) -> Path:
    return root / ".dvc" / config.get("cache.dir", "cache")


def _disk(root: Path, config: Config) -> Iterator[Finding]:
    """Room for one more run: outputs in the workspace, and the same in DVC's cache."""
    import psutil
    import yaml

    try:
        stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"].values()
        size = sum(out.get("size", 0) for stage in stages for out in stage.get("outs", []))
    except FileNotFoundError:
        size = 0
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        do = "`git checkout dvc.lock`, or remove it and `dvc repro`"
        yield Finding("disk", PROBLEM, "dvc.lock is damaged, so that sizes are not known", do)
        return
    cache = _cache(root, config)
    places = [root, cache] if cache.is_dir() else [root]
    free = min(shutil.disk_usage(place).free for place in places)
    told = (
        f"{words.size(free)} free; a run's data and models take {words.size(2 * size)}, with DVC's cache"
    )
    do = "make room: `dvc gc --workspace --all-commits` removes what no commit needs, experiments too"
    level = PROBLEM if free < 2 * size else WARNING if free < 6 * size else OK
    yield Finding("disk", level, told, do if level != OK else "")
    mounts = [
        part
        for part in psutil.disk_partitions(all=True)
        if root.resolve().is_relative_to(part.mountpoint)
    ]
    if mounts and "cache.type" not in config:
        kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype
        if kind not in _REFLINKS:
            told = f"{kind} has no reflinks: data is there twice, in the workspace and in DVC's cache"
            do = (
                "where room is short: `dvc config --local cache.type hardlink,copy`, for read-only files"
            )
            yield Finding("links", OK, told, do)
