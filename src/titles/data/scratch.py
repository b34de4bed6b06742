"""Folders for what is unfinished, beside what it will become."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.(.+)\.([0-9a-f]{8})[0-9a-f]{8}\.partial", re.DOTALL)
_LONGEST = 200  # bytes of an output's name in that of its scratch folder; systems take 255 in all


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, `.<name>.<random>.partial`, for what is unfinished; it is
    removed when the block ends.

    Only its owner can enter it. Its name is new: nothing that exists is touched. One that a killed
    process left for the same path is removed first.

    Raises:
        OSError: it cannot be made.
    """
    remove_leftovers(path.parent, path.name)
    place, lock = _locked(path)
    try:
        yield place
    finally:
        try:
            _remove(place)
        except BaseException:  # Ctrl-C, which ends the process, but not what it has to do before
            _remove(place)
            raise
        finally:
            os.close(lock)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    for left in leftovers(folder, name):
        _remove(left)


def _remove(place: Path) -> None:
    """Remove a scratch folder, also where folders in it are read-only."""
    for folder, names, _ in os.walk(place):
        for found in (Path(folder, name) for name in names):
            if not found.is_symlink():
                with suppress(OSError):
                    found.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)


def leftovers(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Scratch folders in a folder whose processes are gone, of all outputs or of that of a name.

    The end of the random part is a checksum: nothing else has such a name. A process holds a lock on
    its scratch folder while it lives, and the caller holds one on each while it has it.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208, names only
    except OSError:
        return
    for found in names:
        match = _NAME.fullmatch(found)
        if not match or found != _name(match[1], match[2]):
            continue
        if name is not None and match[1] != _shortened(name):
            continue
        try:
            lock = os.open(folder / found, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or a network file system without locks
            continue
        else:
            yield folder / found
        finally:
            os.close(lock)


def _locked(path: Path) -> tuple[Path, int]:
    """A new scratch folder for a path, and its lock."""
    while True:
        place = path.with_name(_name(_shortened(path.name), secrets.token_hex(4)))
        place.mkdir(0o700)
        # Between two of these calls, another process can take it for a leftover, and remove it.
        with suppress(FileNotFoundError):
            lock = os.open(place, os.O_RDONLY)
            with suppress(OSError):  # some network file systems cannot lock folders; go on without
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.exists():
                return place, lock
            os.close(lock)


def aside(path: Path) -> Path:
    """A new name beside `path`, `.<name>.<random>.old.partial`, that is not one of `leftovers`."""
    return path.with_name(_name(_shortened(path.name), secrets.token_hex(4), ".old.partial"))


def _name(name: str, random: str, ending: str = ".partial") -> str:
    check = hashlib.blake2s(os.fsencode(f"{name}.{random}"), digest_size=4).hexdigest()
    return f".{name}.{random}{check}{ending}"


def _shortened(name: str) -> str:
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name
