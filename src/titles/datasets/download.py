"""Fetches public data: the challenge's listings, the course's splits, Spanish word vectors.

A file grows under the name NAME.part and takes its own name when it is whole. What is known of the
server's file stands in NAME.part.json while it grows and in NAME.download.json afterwards. All sizes are
in bytes.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shlex
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from titles.data.contract import SPLITS, atomic_folder, named, write_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Dataset(NamedTuple):
    """What a name stands for.

    base: address of the folder the files lie in. folder: where they go. path: what the pipeline then
    reads, below `folder`. settings: the parameters that make it do so; {} stands for the path.
    """

    base: str
    files: tuple[str, ...]
    folder: Path
    path: str
    settings: tuple[str, ...]


_COURSE = "https://cs.famaf.unc.edu.ar/~ccardellino/resources/diplodatos"
_ARCHIVE = ".tar.bz2"
DATASETS = {
    "course": Dataset(
        _COURSE,
        ("meli-challenge-2019.tar.bz2",),
        Path("data/raw"),
        "meli-challenge-2019",
        ("prepare.source={}", "prepare.language=spanish"),
    ),
    "challenge": Dataset(
        "https://meli-data-challenge.s3.amazonaws.com",
        ("train.csv.gz", "test.csv"),
        Path("data/raw"),
        "train.csv.gz",
        ("prepare.source={}",),
    ),
    "sbw": Dataset(
        _COURSE,
        ("SBW-vectors-300-min5.txt.gz",),
        Path("data/pretrained"),
        "SBW-vectors-300-min5.txt.gz",
        ("embed.method=pretrained", "embed.pretrained={}", "embed.dimension=300"),
    ),
}

TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt
MAX_UNPACKED = 64 * 1024**3
MAX_MEMBERS = 10_000
MAX_HEADER = 16 * 1024  # bytes of a name or of attributes that stand before a member
_BLOCK = 1024 * 1024
# Answers that a later attempt may not get: a time limit, too many requests. So may all from 500 on.
_PASSING = {408, 425, 429}
_HEADERS = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}
# Python before 3.11.4 has no filters; our own checks refuse more than this one does.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class _TransferError(Exception):
    """The transfer did not come to its end; another attempt may."""


class _DamagedError(Exception):
    """What came cannot be the file, however much more of it came."""


class _Version(NamedTuple):
    """What a server says of its file; None where it says nothing."""

    address: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """For If-Range, which takes no weak ETag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def download(name: str, into: Path | None = None, url: str | None = None) -> str:
    """Fetch a dataset, or find it there already; returns what was done and the next commands.

    Args:
        name: of DATASETS.
        into: folder to write to instead of the dataset's own.
        url: http or https address of a folder that has the files, instead of the dataset's own.

    Raises:
        ValueError: the address is of another kind, cannot be reached or has no such file; the transfer
            was cut more often than it was taken up again; what came is damaged or unsafe to unpack; what
            lies there is not what was fetched; the place cannot be written to; or another download into
            the same folder is under way.
    """
    dataset = DATASETS[name]
    base = _checked(dataset.base if url is None else url)
    folder = dataset.folder if into is None else into
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {_reason(error)}") from None
    with _alone(folder):
        done = [
            (_fetch_folder if file.endswith(_ARCHIVE) else _fetch_file)(f"{base}/{file}", folder / file)
            for file in dataset.files
        ]
    path = shlex.quote(str(folder / dataset.path))
    settings = " ".join(f"-S {setting.format(path)}" for setting in dataset.settings)
    return "\n".join([*done, "next:", f"  dvc add {path}", f"  dvc exp run {settings}"])


def _checked(url: str) -> str:
    """The address without a closing slash, if it is one that files can be fetched from."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading them checks them
    except ValueError as error:
        raise ValueError(f"{url} is no address: {error}") from None
    if parts.username is not None or parts.query or parts.fragment:
        # Not repeated: a password would then stand in a log.
        raise ValueError("an address given with --url may hold no user name, no ? and no #")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url} is no address: expected http://host/path or https://host/path")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is no address: write spaces and characters outside ASCII as %XX")
    return url.rstrip("/")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second download out of the folder: both would write to the same part."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another download into {folder} is under way: wait for it") from None
    except OSError:  # some network file systems lock no folders; then nobody is kept out
        pass
    try:
        yield
    finally:
        os.close(handle)


# A file


def _fetch_file(address: str, target: Path) -> str:
    """Fetch a file unless it is there; returns what was done."""
    record = _beside(target, ".download.json")
    if os.path.lexists(target):
        _compare({target: _read_record(target, record)}, target, record)
        return f"{target} is there and whole, nothing to do"
    version, sha256 = _transfer(address, target)
    part = _beside(target, ".part")
    # The record comes first: without its file it says nothing, but a file without record is not ours.
    write_json(record, {**version._asdict(), "size": part.stat().st_size, "sha256": sha256})
    named(part, target)
    _beside(target, ".part.json").unlink(missing_ok=True)
    return f"{target}: fetched from {address}, sha256 {sha256}"


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _read_record(target: Path, record: Path) -> dict[str, Any]:
    """The record of something that is there.

    Raises:
        ValueError: it has none, or a damaged one.
    """
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
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


def _compare(recorded: dict[Path, Any], target: Path, record: Path) -> None:
    """Compare size and checksum of files with what was recorded; ValueError says what differs."""
    for file, values in recorded.items():
        differs = "is missing"
        if file.is_file():
            size, wanted = file.stat().st_size, values.get("size")
            differs = f"has {size} bytes, expected {wanted}"
            if size == wanted:
                sha256 = _digest(file)
                if sha256 == values.get("sha256"):
                    continue
                differs = f"has sha256 {sha256}, expected {values.get('sha256')}"
        raise ValueError(
            f"{file} {differs}: it is not what was fetched. Remove {target} and {record} and run the "
            "same command again, or keep it elsewhere"
        )


def _transfer(address: str, target: Path) -> tuple[_Version, str]:
    """Bring NAME.part to its end and check it; returns the server's version and the sha256."""
    part = _beside(target, ".part")
    for pause in (*PAUSES, None):
        try:
            version = _attempt(address, part)
            try:
                return version, _digest(part, target.name)
            except EOFError as error:
                if version.size is None:
                    raise _TransferError(f"the file ends too early ({error})") from None
                raise _DamagedError(f"it ends too early ({error})") from None
        except _DamagedError as error:
            _discard(part)
            raise ValueError(
                f"{address}: what the server sends is no whole {target.name}: {error}. It was removed; "
                "try the same command later, or name a mirror with --url"
            ) from None
        except _TransferError as error:
            if pause is None:
                kept = part.stat().st_size if _part_version(address, part) else 0
                remedy = (
                    f"{kept} bytes are kept in {part}: the same command resumes there"
                    if kept
                    else "try the same command later, or name a mirror with --url"
                )
                raise ValueError(f"{address}: {error}; {remedy}") from None
            tqdm.write(f"{target.name}: {error}; again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)


def _attempt(address: str, part: Path) -> _Version:
    """Fetch what the part lacks, in one request; returns the version that the part now is.

    Raises:
        _TransferError, _DamagedError, and ValueError for what no later attempt mends.
    """
    known = _part_version(address, part)
    have = part.stat().st_size if known else 0
    headers = {"User-Agent": "titles"}
    if known and have:
        if have == known.size:
            return known
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator or ""}
    with _answer(address, headers) as response:
        said = _Version(
            address, response.headers["ETag"], response.headers["Last-Modified"], response.length
        )
        status = response.status
        if known and have and status == 416 and response.headers["Content-Range"] == f"bytes */{have}":
            # Only a server that announced no length gets here: the part was whole.
            return known._replace(size=have)
        if known and have and status in (206, 416):
            first, size = _content_range(response.headers["Content-Range"])
            said = said._replace(size=size)
            # A header that does not come with a part of a file says nothing.
            pairs = zip(said, known, strict=True)
            changed = any(None not in (new, old) and new != old for new, old in pairs)
            if status == 416 or first != have or changed:
                _discard(part)
                raise _TransferError("the file changed at the server, its start was removed")
            said = known._replace(size=known.size or size)
        elif status == 200:
            chunked = response.chunked
            if said.size is None and not chunked and not part.name.endswith((".gz.part", ".bz2.part")):
                raise ValueError(
                    f"{address}: the server does not say how long the file is, and the file itself "
                    "has no mark of its end: name a mirror with --url"
                )
            _discard(part)
            have = 0
        else:
            raise ValueError(f"{address}: the server answers {status} {response.reason}")
        write_json(_beside(part, ".json"), said._asdict())
        _receive(response, part, have, said.size)
    return said


def _part_version(address: str, part: Path) -> _Version | None:
    """The version that the part is the start of, if it can be gone on with."""
    try:
        version = _Version(**json.loads(_beside(part, ".json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    usable = part.is_file() and version.address == address and version.validator
    return version if usable else None


def _content_range(text: str | None) -> tuple[int | None, int | None]:
    """First byte and size of the whole in "bytes FIRST-LAST/SIZE"; None where they are not said."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text or "")
    if not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _receive(response: http.client.HTTPResponse, part: Path, have: int, size: int | None) -> None:
    """Append the body to the part, which has `have` bytes of `size`."""
    # Read on past the announced end, where a well-behaved server has closed the connection.
    response.length = None
    try:
        with _bar(part.name.removesuffix(".part"), size, have) as bar, part.open("ab") as out:
            while True:
                try:
                    block = response.read1(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    if have == size:  # it keeps the connection open instead
                        break
                    raise _TransferError(f"the connection broke ({_reason(error)})") from None
                if not block:
                    break
                have += len(block)
                if size is not None and have > size:
                    raise _DamagedError(f"it is longer than the {size} bytes announced")
                out.write(block)
                bar.update(len(block))
    except OSError as error:  # of our side: those of the network were caught above
        raise ValueError(
            f"cannot write {part}: {_reason(error)}. What came is kept: make room and run the same "
            "command again, it resumes there"
        ) from None
    if size is not None and have < size:
        raise _TransferError(f"the connection ended after {have} of {size} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        to = urlsplit(urljoin(req.full_url, newurl)).scheme
        if to != "https" and (to != "http" or req.type == "https"):
            fp.close()
            raise ValueError(f"{req.full_url}: the server leads to {newurl}, expected an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Errors(urllib.request.HTTPErrorProcessor):
    """Lets 416 pass: that answer to a range is one that we read."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response if response.status == 416 else super().http_response(request, response)

    https_response = http_response


def _answer(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """The server's answer, 416 included; its body is not read yet.

    Raises:
        _TransferError: it cannot be reached or has a passing problem.
        ValueError: it refuses for good.
    """
    # Not build_opener: that also opens files and FTP addresses that a redirect leads to.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        _Errors(),
    ):
        opener.add_handler(handler)
    try:
        # The openers of http and https addresses give this type.
        response: http.client.HTTPResponse = opener.open(
            urllib.request.Request(address, headers=headers),  # noqa: S310, see _checked
            timeout=TIMEOUT,
        )
    except urllib.error.HTTPError as error:
        with error:
            told = f"the server answers {error.code} {error.reason}"
            if error.code >= 500 or error.code in _PASSING:
                raise _TransferError(told) from None
            raise ValueError(f"{address}: {told}: name a mirror with --url") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        told = f"the server cannot be reached ({_reason(cause)})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ValueError(f"{address}: {told}") from None
        raise _TransferError(told) from None
    return response


def _reason(error: BaseException | str) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


# Reading through


class _Watched(io.RawIOBase):
    """A file whose bytes, as they are read, move a progress bar and a checksum."""

    def __init__(self, raw: io.FileIO, bar: tqdm[Any], digest: hashlib._Hash | None = None) -> None:
        super().__init__()
        self._raw, self._bar, self._digest = raw, bar, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = self._raw.readinto(buffer) or 0
        self._bar.update(count)
        if self._digest:
            self._digest.update(memoryview(buffer)[:count])
        return count


def _bar(title: str, size: int | None, have: int = 0) -> tqdm[Any]:
    return tqdm(
        total=size, initial=have, unit="B", unit_scale=True, unit_divisor=1024, desc=title, disable=None
    )


def _digest(file: Path, name: str = "") -> str:
    """The sha256 of a file, in hexadecimal; the content has to be what the ending of `name` says.

    Raises:
        EOFError: it ends too early.
        _DamagedError: it is damaged, or something else.
    """
    digest = hashlib.sha256()
    with (
        file.open("rb", buffering=0) as raw,
        _bar(f"check {name or file.name}", file.stat().st_size) as bar,
        io.BufferedReader(_Watched(raw, bar, digest), _BLOCK) as stream,
    ):
        try:
            if name:
                _check_content(stream, name)
            while stream.read(_BLOCK):
                pass
        except (zlib.error, gzip.BadGzipFile) as error:
            raise _DamagedError(str(error)) from None
    return digest.hexdigest()


def _check_content(stream: io.BufferedReader[Any], name: str) -> None:
    start = stream.peek(64)[:64].lstrip().lower()
    if not start:
        raise EOFError("it is empty")
    if start.startswith((b"<!doctype", b"<html")):
        raise _DamagedError("it is a web page")
    if name.endswith(".gz"):
        with gzip.open(stream) as unpacked:
            while unpacked.read(_BLOCK):
                pass
    elif name.endswith(".bz2"):
        _check_bz2(stream)


def _check_bz2(stream: io.BufferedReader[Any]) -> None:
    # Not bz2.open: after a first stream it takes damage for the end of the file.
    unpacker = bz2.BZ2Decompressor()
    packed = b""
    while True:
        if unpacker.eof:
            packed = unpacker.unused_data or stream.read(_BLOCK)
            if not packed:
                return
            unpacker = bz2.BZ2Decompressor()
        elif unpacker.needs_input:
            packed = stream.read(_BLOCK)
            if not packed:
                raise EOFError("its end mark is missing")
        else:
            packed = b""
        try:
            unpacker.decompress(packed, _BLOCK)
        except OSError as error:
            raise _DamagedError(str(error)) from None


# An archive


def _fetch_folder(address: str, archive: Path) -> str:
    """Fetch and unpack an archive unless its folder is there; returns what was done."""
    folder = archive.with_name(archive.name.removesuffix(_ARCHIVE))
    record = _beside(folder, ".download.json")
    archive_record = _beside(archive, ".download.json")
    if os.path.lexists(folder):
        files = _read_record(folder, record).get("files") or {"": {}}
        _compare({folder / name: values for name, values in files.items()}, folder, record)
        done = f"{folder} is there and whole, nothing to do"
    else:
        _fetch_file(address, archive)
        try:
            with atomic_folder(folder) as partial:
                _unpack(archive, partial, folder.name)
                files = {
                    str(file.relative_to(partial)): {
                        "size": file.stat().st_size,
                        "sha256": _digest(file),
                    }
                    for file in sorted(partial.rglob("*"))
                    if file.is_file()
                }
                values = _read_record(archive, archive_record)
                write_json(record, {**values, "files": files})
        except _DamagedError as error:
            archive.unlink()
            archive_record.unlink()
            raise ValueError(
                f"{address}: the archive is refused: {error}. It was removed and nothing was unpacked; "
                "name a mirror with --url"
            ) from None
        except OSError as error:
            raise ValueError(
                f"cannot unpack {archive}: {_reason(error)}. The archive is kept: the same command "
                "goes on from there"
            ) from None
        done = f"{folder}: {len(files)} files, fetched from {address}"
    for file in (archive, archive_record):  # also those that an interrupted call left
        file.unlink(missing_ok=True)
    return done


class _Member(tarfile.TarInfo):
    """A member whose headers are short: tarfile reads each of them whole into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _HEADERS and not 0 <= header.size <= MAX_HEADER:
            raise _DamagedError(f"it has a header of {header.size} bytes")
        return header


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack into `folder`, which is empty; an outermost folder `name` in the archive is left out.

    Raises:
        _DamagedError: the archive holds anything but files and folders with plain names, more than
            MAX_MEMBERS or MAX_UNPACKED of them, headers past MAX_HEADER, a name twice, or not the files
            that the course has.
        OSError: the place cannot be written to.
    """
    total, seen = 0, set()
    try:
        with (
            archive.open("rb", buffering=0) as raw,
            _bar(f"unpack {archive.name}", archive.stat().st_size) as bar,
            io.BufferedReader(_Watched(raw, bar), _BLOCK) as stream,
            bz2.open(stream) as unpacked,
            # A stream: never read twice.
            tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Member) as tar,
        ):
            for count, member in enumerate(tar, start=1):
                path = PurePosixPath(member.name)
                total += member.size
                if path.is_absolute() or ".." in path.parts:
                    raise _DamagedError(f"{member.name!r} lies outside of it")
                if not (member.isdir() or member.isfile()) or member.issparse():
                    raise _DamagedError(f"{member.name!r} is neither a plain file nor a folder")
                if count > MAX_MEMBERS:
                    raise _DamagedError(f"it has more than {MAX_MEMBERS} members")
                if total > MAX_UNPACKED or member.size < 0:
                    raise _DamagedError(f"it unpacks to more than {MAX_UNPACKED} bytes")
                parts = path.parts[1:] if path.parts[:1] == (name,) else path.parts
                if member.isfile() and (not parts or parts in seen):
                    raise _DamagedError(f"{member.name!r} stands in the way of another member")
                if parts:
                    seen.add(parts)
                    member.name = "/".join(parts)
                    tar.extract(member, folder, set_attrs=False, **_FILTER)
    except (tarfile.TarError, EOFError) as error:
        raise _DamagedError(str(error)) from None
    except RecursionError:  # each header that follows another is one call deeper
        raise _DamagedError("it has headers without end") from None
    wanted = [f"spanish.{split}.jsonl.gz" for split in SPLITS]
    missing = [file for file in wanted if not (folder / file).is_file()]
    if missing:
        raise _DamagedError(f"it lacks {', '.join(missing)}")
