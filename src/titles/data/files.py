"""Files of the project: written as a whole or not at all, and read with a clear error."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from titles.data.documents import read_bytes
from titles.data.scratch import aside, scratch

_MOST_LINKS = 40  # one after the other; as in Linux
_TOO_MANY = "too many levels of symbolic links"
# The end of the path of an object in DVC's cache, whose name is the hash of its content.
_OBJECT = re.compile("/[0-9a-f]{2}/[0-9a-f]{30}$")
_PROTECTED = 0o444  # the mode of such objects, and of hard links to them
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # writing fails half-way
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}  # by the file system
_OPEN = "/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"  # the open files of a process
_DIGITS = 9  # of the number of one
_KINDS = {
    stat.S_IFDIR: "a folder: name a file",
    stat.S_IFREG: "a file: name a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class WriteError(ValueError):
    """A file or folder cannot be written: `path`, for `reason`."""

    def __init__(self, path: Path, reason: OSError | str, state: str = "") -> None:
        self.path = path
        self.reason = reason if isinstance(reason, str) else reason.strerror or str(reason)
        super().__init__(f"cannot write {path}: {self.reason}{state}")


# -- writing


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends without an error.

    The name has the old content or the new, never a mixture, even after a power cut. On an error,
    interrupts included, the old content stays. Of several writers at once, one gives the whole content.
    Where the file system cannot exchange two names in one step, a process that is killed between two
    renames leaves the old content as `.<name>.<random>.old.partial`. Modes follow the umask; an older
    folder keeps its own. For links see `written_at`.

    Raises:
        WriteError: the path is not writable or no folder, or the disk is full.
    """
    with _replacing(folder, Path.mkdir) as partial:
        yield partial


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file that replaces `path` when the block ends without an error.

    As for `atomic_folder`; an older file keeps its mode, except the read-only one of DVC's cache. Pipes,
    terminals and other streams (/dev/stdout, /dev/null) get the content when the block ends.

    Raises:
        WriteError: the path is not writable or no file, or the disk is full.
    """
    if stream := _stream(path):
        with _told(path), stream, tempfile.TemporaryDirectory(prefix="titles-") as place:
            partial = Path(place, path.name)
            partial.touch()
            yield partial
            with partial.open("rb") as whole:
                shutil.copyfileobj(whole, stream)
    else:
        with _replacing(path, Path.touch) as partial:
            yield partial


@contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """An `atomic_file` that is open for writing; a stream gets what is written at once."""
    if stream := _stream(path):
        with _told(path), stream:
            yield stream
    else:
        with atomic_file(path) as partial, partial.open("wb") as file:
            yield file


@contextmanager
def _replacing(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            path = written_at(path)
            _check_kind(path, make is Path.mkdir)
            path.parent.mkdir(parents=True, exist_ok=True)
            place = stack.enter_context(scratch(path))
        except OSError as error:
            raise WriteError(path, error) from None
        stack.enter_context(_told(path, place))
        partial = place / path.name
        make(partial)
        mode = partial.stat().st_mode
        yield partial
        within = list(partial.rglob("*"))
        for found in (partial, *within):
            # Some writers go by a temporary file that only its owner can read, or copy a mode.
            _add_mode(found, mode)
        _keep_mode(partial, path)
        for found in within:
            to_disk(found)
        named(partial, path)


def written_at(path: Path) -> Path:
    """The path to write to for `path`: the target of a symbolic link of the user's own, but a link into
    DVC's cache itself, whose objects must not change.

    Raises:
        WriteError: the links never end.
    """
    place = path
    for _ in range(_MOST_LINKS):
        if not place.is_symlink():
            # Neither can be renamed; a file of that name is refused later.
            return place.resolve() if place.name in ("", "..") else place
        target = place.parent / place.readlink()
        if _OBJECT.search(target.as_posix()):
            return place
        place = target
    raise WriteError(path, _TOO_MANY)


def is_one_file(one: Path, other: Path) -> bool:
    """Whether two outputs would be one file, so that the later would replace the earlier.

    Raises:
        WriteError: the links of one never end.
    """
    places = [Path(os.path.realpath(p.parent), p.name) for p in map(written_at, (one, other))]
    return places[0] == places[1] and (places[0].is_file() or not places[0].exists())


def _stream(path: Path) -> BinaryIO | None:
    """The stream that a path stands for, opened; None for a file, or nothing yet.

    Raises:
        WriteError: it cannot be opened.
    """
    try:
        if (own := _descriptor(path)) is not None:
            if fcntl.fcntl(own, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise WriteError(path, "it is open for reading only")
            # A copy, as in shells: opened anew, a file that is appended to would be written over.
            print(end="", flush=True)
            return os.fdopen(os.dup(own), "wb")
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_NOCTTY), "wb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WriteError(path, error) from None
    return None


def _descriptor(path: Path) -> int | None:
    """The number of the process's own open file that a path such as /dev/stdout stands for."""
    place = path
    for _ in range(_MOST_LINKS):
        number = place.name if len(place.name) <= _DIGITS else ""
        if number.isdecimal() and os.path.realpath(place.parent) in map(os.path.realpath, _OPEN):
            return int(number)
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    raise WriteError(path, _TOO_MANY)


def _check_kind(path: Path, folder: bool) -> None:
    """Raise WriteError where something of another kind exists, which must not be replaced."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return
    if kind != (stat.S_IFDIR if folder else stat.S_IFREG):
        raise WriteError(path, f"it is {_KINDS.get(kind, 'no file')}")
    if folder and path.is_mount():
        raise WriteError(path, "it is a mount point: name a folder in it")
    if folder and not os.access(path, os.W_OK):  # it could not be moved
        raise WriteError(path, os.strerror(errno.EACCES))


def _add_mode(path: Path, mode: int) -> None:
    """Add what new files and folders may by the umask: mode of a new one."""
    if not path.is_symlink():
        old = path.stat().st_mode
        if new := stat.S_IMODE(mode & (0o777 if stat.S_ISDIR(old) else 0o666)) & ~old:
            path.chmod(stat.S_IMODE(old) | new)


def _keep_mode(partial: Path, path: Path) -> None:
    """Give a finished file or folder the mode and owner of the one that it replaces."""
    with suppress(FileNotFoundError):
        old, new = path.lstat(), partial.stat()
        if stat.S_IFMT(old.st_mode) != stat.S_IFMT(new.st_mode) or old.st_mode & 0o777 == _PROTECTED:
            return
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            with suppress(PermissionError):
                os.chown(partial, old.st_uid, old.st_gid)
        if old.st_mode != new.st_mode:
            partial.chmod(old.st_mode & 0o777 | new.st_mode & stat.S_ISGID)


@contextmanager
def _told(path: Path, place: Path | None = None) -> Iterator[None]:
    """Name `path` in errors of the disk, and in those of what is written in `place` to become it."""
    try:
        yield
    except WriteError as error:
        if place is None or not error.path.is_relative_to(place):
            raise
        reason = error.reason
    except BrokenPipeError:  # a reader that has had enough
        raise
    except OSError as error:
        within = place is not None and Path(str(error.filename)).is_relative_to(place)
        if not within and (error.errno not in _DISK or error.filename is not None):
            raise
        reason = error.strerror or str(error)
    else:
        return
    kept = "its old content is kept" if os.path.lexists(path) else "nothing is left of it"
    raise WriteError(path, reason, f"; {kept}" if place else "") from None


# -- names


def named(partial: Path, path: Path) -> None:
    """Give a finished file or folder its name once its content is on the disk; what had the name before
    is then at `partial`. On an error both stay as they were.

    Without the sync, the rename can reach the disk before the content: a power cut then leaves an empty
    file.
    """
    to_disk(partial)
    _check_kind(path, partial.is_dir())
    is_new = _take_name(partial, path)
    try:
        to_disk(path.parent)
    except BaseException:
        if is_new:
            path.rename(partial)
        elif os.path.lexists(partial):
            _take_name(partial, path)
        raise


def _take_name(partial: Path, path: Path) -> bool:
    """Exchange two names, or rename where `path` is new; returns whether it is."""
    while True:
        try:
            exchange(partial, path)
            return False
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.EXDEV:  # a folder of a lower layer of overlayfs, as of an image
                raise WriteError(path, "it is part of a container's image: remove it first") from None
            if error.errno not in _UNSUPPORTED:
                raise
            if os.path.lexists(path):
                _exchange_in_steps(partial, path)
                return False
        try:
            partial.rename(path)
            return True
        except OSError as error:  # a folder that another process has made by now
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def exchange(one: Path, other: Path) -> None:
    """Exchange two names in one step.

    Raises:
        OSError: one of _UNSUPPORTED where the system or the file system has no such step.
    """
    sys.audit("os.rename", one, other, -1, -1)
    done = _renameat2 and _renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    if done != 0:
        code = errno.ENOSYS if done is None else ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def _exchange_in_steps(partial: Path, path: Path) -> None:
    """Exchange two names; that of a folder is free for a moment. A file is replaced in one step; without
    hard links, the old one is then lost."""
    old = aside(path)
    try:
        if partial.is_dir():
            path.rename(old)
        else:
            with suppress(OSError):
                os.link(path, old, follow_symlinks=False)
        partial.replace(path)
        if os.path.lexists(old):
            old.rename(partial)
    except BaseException:
        if os.path.lexists(old):
            if not os.path.lexists(partial):
                path.rename(partial)
            old.replace(path)
            old.unlink(missing_ok=True)  # two links to one file both stay
        raise


def to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk, as far as the file system can."""
    try:
        opened_path = os.open(path, os.O_RDONLY)
    except PermissionError:  # by its mode, it may only be written to
        return
    try:
        os.fsync(opened_path)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(opened_path)


# -- contents


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
