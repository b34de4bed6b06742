"""Unpacks the course's archive, which is not trusted."""

from __future__ import annotations

import bz2
import errno
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

from titles.data.contract import GIVEN_SPLITS
from titles.datasets.transfer import DamagedError, reading

MAX_BYTES = 64 * 1024**3  # of all members together
MAX_MEMBERS = 10_000
MAX_DEPTH = 32  # of folders in each other
MAX_HEADER = 16 * 1024  # bytes of a name or of attributes before a member
_SHOWN = 100  # characters of a name in a message
# What the system says of a name that it cannot give to a file.
_OF_NAMES = {
    *(errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.ENOTEMPTY),
}
_HEADERS = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}

# Python before 3.11.4 has no filters; the checks here are stricter.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class _Member(tarfile.TarInfo):
    """A member with short headers: tarfile reads each of them whole into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _HEADERS and not 0 <= header.size <= MAX_HEADER:
            raise DamagedError(f"it has a header of {header.size} bytes")
        return header


def unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack into an empty folder, without an outermost folder `name` of the archive.

    Raises DamagedError if the archive exceeds a limit above, lacks the course's files, or holds anything
    but files and folders with plain, distinct names.
    """
    try:
        with (
            reading(archive, f"unpack {archive.name}") as stream,
            bz2.open(stream) as unpacked,
            # "r|": a stream, never read twice.
            tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Member) as tar,
        ):
            _extract(tar, folder, name)
    except (tarfile.TarError, EOFError) as error:
        raise DamagedError(str(error)) from None
    except RecursionError:  # tarfile reads consecutive headers recursively
        raise DamagedError("it has headers without end") from None
    wanted = [f"spanish.{split}.jsonl.gz" for split in GIVEN_SPLITS]
    if missing := [file for file in wanted if not (folder / file).is_file()]:
        raise DamagedError(f"it lacks {', '.join(missing)}")


def _extract(tar: tarfile.TarFile, folder: Path, name: str) -> None:
    total = 0
    for count, member in enumerate(tar, start=1):
        path = PurePosixPath(member.name)
        told = _shown(member.name)
        total += member.size
        if path.is_absolute() or ".." in path.parts:
            raise DamagedError(f"{told} lies outside of it")
        if len(path.parts) > MAX_DEPTH:
            raise DamagedError(f"{told} lies in more than {MAX_DEPTH} folders")
        if not (member.isdir() or member.isfile()) or member.issparse():
            raise DamagedError(f"{told} is neither a plain file nor a folder")
        if count > MAX_MEMBERS:
            raise DamagedError(f"it has more than {MAX_MEMBERS} members")
        if total > MAX_BYTES or member.size < 0:
            raise DamagedError(f"it unpacks to more than {MAX_BYTES} bytes")
        parts = path.parts[1:] if path.parts[:1] == (name,) else path.parts
        try:
            _clear(folder, parts, member)
            if parts:
                member.name = "/".join(parts)
                tar.extract(member, folder, set_attrs=False, **_FILTER)
        except ValueError as error:  # a null byte, letters that no name can have
            raise DamagedError(f"{told} is no name for a file here: {error}") from None
        except OSError as error:
            if error.errno not in _OF_NAMES:
                raise
            raise DamagedError(f"{told} cannot be a file here: {os.strerror(error.errno)}") from None


def _clear(folder: Path, parts: Sequence[str], member: tarfile.TarInfo) -> None:
    """Raise DamagedError if another member stands in the way, by the rules of the file system: it may
    take two names for the same, such as those that differ in capitals."""
    place = folder.joinpath(*parts)
    above = [folder.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
    if any(os.path.lexists(path) and not path.is_dir() for path in above) or (
        not place.is_dir() if member.isdir() and os.path.lexists(place) else os.path.lexists(place)
    ):
        raise DamagedError(f"{_shown(member.name)} stands in the way of another member")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")
