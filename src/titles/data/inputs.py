"""The inputs of a stage when it starts, and whether they are still the same later.

DVC hashes the dependencies and parameters of a stage after its command: an edit made meanwhile would be
recorded as the cause of a result that it had no part in. So a stage notes all that dvc.yaml declares
for it, before it loads its own code, and fails at its end if that has changed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from titles.data.documents import parse_yaml, read_bytes
from titles.data.messages import on_one_line

_PIPELINE = "dvc.yaml"
_PARAMETERS = "params.yaml"
# Of a stage in dvc.yaml, what decides on its result; a new plot or description may come while it runs.
_DECISIVE = ("cmd", "wdir", "deps", "params", "vars", "foreach", "matrix")
_NAMED = 3  # changes that a message names; it counts the others

Signature = tuple[int, ...]


class ChangedError(ValueError):
    """The inputs of a stage are not those that it started with."""


class _File(NamedTuple):
    signature: Signature
    digest: str


@dataclass(frozen=True)
class _Noted:
    """What a stage started with; nothing where dvc.yaml does not have it.

    settings: by file, parameters by dotted name, or the decisive text of dvc.yaml. sections: names of
        parameters by their file; none for all of the file. outs: files of each output. ignored: whether
        DVC ignores a file, as far as it was asked. told: changes that a warning has named.
    """

    stage: str = ""
    roots: tuple[str, ...] = ()
    files: dict[str, _File] = field(default_factory=dict)
    sections: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    outs: dict[str, dict[str, Signature]] = field(default_factory=dict)
    ignored: dict[str, bool] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


_noted: _Noted | None = None


@contextmanager
def unchanged(module: str) -> Iterator[None]:
    """Fail if the inputs of a stage change during the block; outputs that it has written are removed.

    Args:
        module: as for `note`, which may have been called before.

    Raises:
        ChangedError: see `check`.
    """
    global _noted
    note(module)
    try:
        yield
        # Outputs have their names now. Until DVC hashes, nothing is left to do but to end.
        check()
    except ChangedError:
        _remove_outs()
        raise
    finally:
        _noted = None


def note(module: str) -> None:
    """Note the inputs of the stage that runs, unless they are noted already.

    Content is hashed, also of large data: the stage reads it anyway, and the arrays of 20 million rows,
    1.4 GB, take about a second if the files are in memory.

    Args:
        module: of the stage, by which it is found in dvc.yaml if DVC does not run it. A stage that
            dvc.yaml does not have has no record that could be wrong.
    """
    global _noted
    if _noted is not None:
        return
    _noted = _Noted()
    if "LOCAL_RANK" in os.environ and os.environ.get("RANK") != "0":
        return  # of the processes that torchrun starts, the first saves and checks
    by_dvc = os.environ.get("DVC_STAGE", "")
    stage, declared = _declared(by_dvc, module)
    if not declared:
        if by_dvc:
            _warn(f"{_PIPELINE} has no stage {by_dvc} here: changes while it runs go unnoticed")
        return
    context = _context(declared)
    roots = _resolved(items(declared.get("deps")), context)
    sections: dict[str, list[str]] = {}
    for item in declared.get("params") or []:
        for file, names in item.items() if isinstance(item, dict) else [(_PARAMETERS, [item])]:
            if Path(file).suffix in (".yaml", ".yml", ".json"):
                sections.setdefault(file, []).extend(names or [])
            else:
                roots.append(file)
    outs = [out for kind in ("outs", "metrics", "plots") for out in items(declared.get(kind))]
    _noted = _Noted(
        stage,
        tuple(roots),
        _files(roots, {}),
        sections,
        _settings(stage, declared, sections),
        {out: dict(_walk([out])) for out in _resolved(outs, context)},
    )


def check() -> None:
    """Compare with the noted inputs; called before outputs take their names.

    A change that was undone is none. Neither is another time, inode or link of a file of the same
    content, a comment among the parameters, or a file that .dvcignore excludes.

    Raises:
        ChangedError: they differ; the message names what changed.
    """
    if changed := _changes():
        raise ChangedError(_described(changed))


def watch() -> None:
    """Compare while a long stage works, so that hours are not lost.

    Code is loaded and parameters are read: a warning is enough, as putting them back undoes the change.
    Data is read all the time, so that what the stage has made since cannot be trusted.

    Raises:
        ChangedError: data has changed.
    """
    changed = _changes()
    if any(changed.values()):
        raise ChangedError(_described(changed))
    if _noted and changed.keys() - _noted.told:
        _noted.told.update(changed)
        _warn(
            f"{_listed(changed)} changed while {_noted.stage} runs: it fails at its end, unless "
            "that is undone before"
        )


def _described(changed: Mapping[str, bool]) -> str:
    assert _noted is not None
    return (
        f"{_listed(changed)} changed while {_noted.stage} ran: its result is not kept, since DVC would "
        "record it as that of the new state. Run it again, after undoing the change or with it. "
        f"`dvc checkout {_noted.stage}` brings its old outputs back, `git restore` metrics and plots"
    )


def _listed(changed: Iterable[str]) -> str:
    names = sorted(changed)
    if len(names) > _NAMED + 1:
        names[_NAMED:] = [f"{len(names) - _NAMED} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _warn(text: str) -> None:
    # Also before `console.streams` filters what is printed.
    print(f"warning: {on_one_line(text)}", file=sys.stderr, flush=True)


def _changes() -> dict[str, bool]:
    """What differs from the noted inputs, and whether it is data."""
    if _noted is None or not _noted.stage:
        return {}
    files = _files(_noted.roots, _noted.files)
    differ = set()
    for path in files.keys() | _noted.files.keys():
        before, now = _noted.files.get(path), files.get(path)
        if before and now and before.digest == now.digest:
            _noted.files[path] = now  # touched: it need not be read again
        else:
            differ.add(path)
    found = {}
    for path in differ - _ignored(differ):
        how = " (new)" if path not in _noted.files else " (gone)" if path not in files else ""
        found[path + how] = Path(path).suffix != ".py"
    _, declared = _declared(_noted.stage, "")
    settings = _settings(_noted.stage, declared, _noted.sections)
    for file, new in settings.items():
        old = _noted.settings[file]
        if old and new:
            changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
            found |= dict.fromkeys(changed, False)
        elif old or new:  # the file cannot be read: no parameter was changed in it
            found[file] = False
    return found


def _ignored(paths: set[str]) -> set[str]:
    """Those that .dvcignore excludes. Only changed files are asked for: DVC takes a second to answer."""
    assert _noted is not None
    new = sorted(paths - _noted.ignored.keys())
    told: list[str] = []
    folders = {folder for path in new for folder in Path(path).absolute().parents}
    if any((folder / ".dvcignore").exists() for folder in folders):
        command = [sys.executable, "-m", "dvc", "check-ignore", "--", *new]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    _noted.ignored.update({path: path in told for path in new})
    return {path for path in paths if _noted.ignored[path]}


def _remove_outs() -> None:
    """Remove outputs that the stage has written, such as curves that grew with each epoch.

    With DVC these are all: it removes those of before when it starts a stage.
    """
    assert _noted is not None
    for out, before in _noted.outs.items():
        if dict(_walk([out])) != before:
            path = Path(out)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


# -- files


def _files(roots: Iterable[str], known: Mapping[str, _File]) -> dict[str, _File]:
    """All files of files and folders. One that has the signature of a known one is not read.

    The time of the last change to an inode is in the signature, since programs can set that of the
    content; whatever else renews it, such as a new link, only lets the file be read once more.
    """
    found: dict[str, _File] = {}
    for path, signature in _walk(roots):
        before = known.get(path)
        if before is None or before.signature != signature:
            before = _File(signature, _digest(Path(path)))
        found[path] = before
    return found


def _walk(roots: Iterable[str]) -> Iterator[tuple[str, Signature]]:
    for root in map(Path, roots):
        paths = [root]
        for folder, folders, names in os.walk(root):
            # Importing a module changes them. Links to other folders are not followed, as in DVC.
            folders[:] = [name for name in folders if name != "__pycache__"]
            paths += [Path(folder, name) for name in names if not name.endswith(".pyc")]
        for path in paths:
            if signature := _signature(path):
                yield path.as_posix(), signature


def _signature(path: Path) -> Signature:
    """Empty for a file that is missing, or is a link to nothing or not a file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


# -- dvc.yaml and parameters


def _read(file: str) -> Any:
    """The values of a YAML file; None if it cannot be read."""
    try:
        return _parsed(file, _signature(Path(file)))
    except (OSError, ValueError):
        return None


@functools.cache  # a stage asks several times for the same two files
def _parsed(file: str, _: Signature) -> Any:
    return parse_yaml(read_bytes(Path(file)))


def _declared(stage: str, module: str) -> tuple[str, dict[str, Any]]:
    """The stage of dvc.yaml by its name, or else by its module; its name and what is declared for it."""
    pipeline = _read(_PIPELINE)
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    stages = stages if isinstance(stages, dict) else {}
    # DVC names a stage of another folder dvc.yaml:name, and one of several made from one name@key.
    name = stage.rpartition(":")[2].partition("@")[0]
    commands = {key: str(value.get("cmd")) for key, value in stages.items() if isinstance(value, dict)}
    runs = re.compile(rf"(?<![\w.]){re.escape(module)}(?![\w.])") if module else None
    matching = [name for name in commands if runs and runs.search(commands[name])]
    for key in [name, *matching]:
        if isinstance(found := stages.get(key), dict):
            return key, found | (found.get("do") or {}) | {"vars": _variables(pipeline, found)}
    return stage, {}


def _variables(pipeline: dict[str, Any], stage: dict[str, Any]) -> list[Any]:
    return [*(pipeline.get("vars") or []), *(stage.get("vars") or [])]


def _context(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Values that templates can name."""
    context: dict[str, Any] = {}
    for entry in [_PARAMETERS, *declared["vars"]]:
        values = entry if isinstance(entry, dict) else _read(str(entry).partition(":")[0])
        context |= values if isinstance(values, dict) else {}
    return context


def items(entries: Iterable[Any] | None) -> list[str]:
    """Paths of a list in which each is text, or the key of its options."""
    return [name for entry in entries or [] for name in ([entry] if isinstance(entry, str) else entry)]


def _resolved(paths: Iterable[str], context: Mapping[str, Any]) -> list[str]:
    """Paths with the values of their ${templates}; without those that are not on this machine."""

    def value(found: re.Match[str]) -> str:
        place: Any = context
        for key in re.findall(r"[^.\[\]\s]+", found[1]):
            place = place[int(key) if isinstance(place, list) else key]
        return str(place)

    resolved = []
    for path in paths:
        try:
            local = re.sub(r"\$\{([^}]*)\}", value, path)
        except (LookupError, TypeError, ValueError):
            _warn(f"{path} in {_PIPELINE} has no value: changes to it while the stage runs go unnoticed")
        else:
            if "://" not in local:
                resolved.append(Path(local).as_posix())
    return resolved


def _settings(
    stage: str, declared: Mapping[str, Any], sections: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, str]]:
    """Of each file; nothing of one that cannot be read."""
    decisive = repr([declared.get(key) for key in _DECISIVE])
    settings = {_PIPELINE: {f"{stage} in {_PIPELINE}": decisive}}
    for file, names in sections.items():
        own = settings.setdefault(file, {})
        values = _read(file)
        if values is None or (names and not isinstance(values, dict)):
            continue
        prefix = "" if file == _PARAMETERS else f"{file}:"
        for name in names or [""]:
            place = values
            for key in filter(None, str(name).split(".")):
                place = place.get(key) if isinstance(place, dict) else None
            own.update(_flat(f"{prefix}{name}", place))
    return settings


def _flat(name: str, value: Any) -> dict[str, str]:
    # As text: 1, 1.0 and true are equal in Python.
    if not isinstance(value, dict) or not value:
        return {name: repr(value)}
    dot = "." if name and not name.endswith(":") else ""
    return {k: v for key, below in value.items() for k, v in _flat(f"{name}{dot}{key}", below).items()}
