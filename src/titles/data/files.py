"""Files of the project: written as a whole or not at all, and read with a clear error."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from titles.data.documents import read_bytes

_MOST_LINKS = 40  # one after the other; as in Linux
# The end of the path of an object in DVC's cache, whose name is the hash of its content.
_OBJECT = re.compile("/[0-9a-f]{2}/[0-9a-f]{30}$")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends without an error.

    The name has the old content or the new, never a mixture, even after a power cut; a process that is
    killed between two renames can leave nothing there. On an error, interrupts included, the old content
    stays. For links see `written_at`.

    Raises:
        ValueError: the path is not writable.
    """
    folder = written_at(folder)
    partial = folder.with_name(folder.name + ".partial")
    old = folder.with_name(folder.name + ".old.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        yield partial
        for path in partial.rglob("*"):
            to_disk(path)
        if folder.exists():
            folder.replace(old)
        named(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which is renamed to `path` when the block ends without an error.

    The name has the old content or the new, even after a power cut. For links see `written_at`.

    Raises:
        ValueError: the path is not writable.
    """
    path = written_at(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield partial
        named(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def written_at(path: Path) -> Path:
    """The path to write to for `path`: the target of a symbolic link of the user's own, but a link into
    DVC's cache itself, whose objects must not change.

    Raises:
        ValueError: the links never end.
    """
    place = path
    for _ in range(_MOST_LINKS):
        if not place.is_symlink():
            return place
        target = place.parent / place.readlink()
        if _OBJECT.search(target.as_posix()):
            return place
        place = target
    raise ValueError(f"cannot write {path}: too many levels of symbolic links")


def named(partial: Path, path: Path) -> None:
    """Rename a finished file or folder once its content is on the disk.

    Without the sync, the rename can reach the disk before the content: a power cut then leaves an empty
    file.
    """
    to_disk(partial)
    partial.replace(path)
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk."""
    opened_path = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened_path)
    finally:
        os.close(opened_path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write indented JSON; equal values give equal bytes.

    Raises:
        ValueError: a value is NaN or infinite, or the path is not writable.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file that a stage wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        # splitlines() also splits at U+2028 and the like.
        lines = read_bytes(path).decode("utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, or `dvc pull`, first") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if lines.pop() != "":
        raise ValueError(f"{path} is damaged: its last line is incomplete")
    return lines
