"""Fetches public data: the challenge's listings, the course's splits, Spanish word vectors.

NAME.download.json records a file, or the files of an archive: address, size in bytes, checksum.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from titles.data.documents import read_json
from titles.data.files import WriteError, atomic_folder, named, write_json
from titles.datasets.archive import unpack
from titles.datasets.public import DATASETS
from titles.datasets.transfer import DamagedError, beside, reason, sha256, transfer

_ARCHIVE = ".tar.bz2"


def download(name: str, into: Path | None = None, url: str | None = None) -> str:
    """Fetch one of DATASETS, or verify it if it is there; returns a report and the next commands.

    Args:
        into, url: folder to write to, and http or https address of a folder with the files, instead of
            the dataset's own.

    Raises:
        ValueError: the address is invalid, cannot be reached or lacks a file; all attempts failed; the
            content is damaged or unsafe to unpack; a file differs from the one that was fetched; the
            folder is not writable; or another download into it is running.
    """
    dataset = DATASETS[name]
    base = _checked(dataset.base if url is None else url)
    folder = dataset.folder if into is None else into
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {reason(error)}") from None
    with _locked(folder):
        done = [
            (_fetch_folder if file.endswith(_ARCHIVE) else _fetch_file)(f"{base}/{file}", folder / file)
            for file in dataset.files
        ]
    path = shlex.quote(str(folder / dataset.path))
    settings = " ".join(f"-S {setting.format(path)}" for setting in dataset.settings)
    return "\n".join([*done, "next:", f"  dvc add {path}", f"  dvc exp run {settings}"])


def _checked(url: str) -> str:
    """The address without a closing slash; raises ValueError if files cannot be fetched from it."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, a broken IPv6 address
        valid = False
    plain = url.isascii() and url.isprintable() and " " not in url
    if not (valid and plain) or parts.username is not None or parts.query or parts.fragment:
        # The address is not repeated: a password in it would stand in a log.
        raise ValueError(
            "the value of --url is not an address: expected http://host/path or https://host/path, "
            "without a user name, ? and #; write spaces and characters outside ASCII as %XX"
        )
    return url.rstrip("/")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Refuse a second download into the folder: it would write to the same part."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another download into {folder} is running: wait for it") from None
    except OSError:  # some network file systems cannot lock folders; go on without
        pass
    try:
        yield
    finally:
        os.close(handle)


def _fetch_file(address: str, target: Path) -> str:
    """Fetch a file unless it is there; returns a line for the report."""
    record, part = beside(target, ".download.json"), beside(target, ".part")
    if os.path.lexists(target):
        return _verified({target: _read(target, record)}, target, record)
    if os.path.lexists(part) and (part.is_symlink() or not beside(part, ".json").exists()):
        raise ValueError(
            f"{part} is there, but this command did not write it: move it away, or name another folder "
            "with --into"
        )
    version = transfer(address, target)
    values = _measured(part)
    # The record first: without its file it is harmless, but a file without a record is not ours.
    write_json(record, version._asdict() | values)
    named(part, target)
    beside(part, ".json").unlink(missing_ok=True)
    return f"{target}: fetched from {address}, sha256 {values['sha256']}"


def _fetch_folder(address: str, archive: Path) -> str:
    """Fetch and unpack an archive unless its folder is there; returns a line for the report."""
    folder = archive.with_name(archive.name.removesuffix(_ARCHIVE))
    record, archive_record = beside(folder, ".download.json"), beside(archive, ".download.json")
    if os.path.lexists(folder):
        files = _read(folder, record).get("files") or {"": {}}
        done = _verified({folder / name: values for name, values in files.items()}, folder, record)
    else:
        _fetch_file(address, archive)
        try:
            with atomic_folder(folder) as partial:
                unpack(archive, partial, folder.name)
                paths = sorted(file for file in partial.rglob("*") if file.is_file())
                files = {str(file.relative_to(partial)): _measured(file) for file in paths}
                write_json(record, {**_read(archive, archive_record), "files": files})
        except DamagedError as error:
            archive.unlink()
            archive_record.unlink()
            raise ValueError(
                f"{address}: the archive is refused: {error}. It was removed and nothing was unpacked; "
                "name a mirror with --url"
            ) from None
        except (OSError, WriteError) as error:
            told = error.reason if isinstance(error, WriteError) else reason(error)
            raise ValueError(
                f"cannot unpack {archive}: {told}. The archive is kept: the same command resumes there"
            ) from None
        done = f"{folder}: {len(files)} files, fetched from {address}"
    for file in (archive, archive_record):  # also those of an interrupted call
        file.unlink(missing_ok=True)
    return done


def _measured(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": sha256(file)}


def _read(target: Path, record: Path) -> dict[str, Any]:
    """The record of a target that exists; raises ValueError if it is missing or damaged."""
    try:
        values = read_json(record)
    except FileNotFoundError:
        raise ValueError(
            f"{target} is there, but this command did not write it ({record.name} is missing): "
            "move it away, or name another folder with --into"
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{record} is damaged: remove it and {target}, then run the same command again")
    return values


def _verified(files: dict[Path, dict[str, Any]], target: Path, record: Path) -> str:
    """Compare files with their recorded sizes and checksums; returns a line for the report."""
    for file, values in files.items():
        differs = "is missing"
        if file.is_file():
            size, checksum = values.get("size"), values.get("sha256")
            differs = f"has {file.stat().st_size} bytes, expected {size}"
            if file.stat().st_size == size:
                found = sha256(file)
                if found == checksum:
                    continue
                differs = f"has sha256 {found}, expected {checksum}"
        raise ValueError(
            f"{file} {differs}: it is not what was fetched. Remove {target} and {record} and run the "
            "same command again, or keep it elsewhere"
        )
    return f"{target} is there and whole, nothing to do"
