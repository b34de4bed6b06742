"""Fetches a file over HTTP, resuming where an earlier attempt was cut, and checks its content.

While a file grows, it is NAME.part, and NAME.part.json holds the server's version of it.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import re
import ssl
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests
from requests.structures import CaseInsensitiveDict
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from titles.data.documents import read_json
from titles.data.files import write_json
from titles.datasets import connection

TIMEOUT = 30.0  # seconds without a byte; see also `connection`
MAX_BYTES = 64 * 1024**3  # of a file
PAUSES = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt
_BLOCK = 1024 * 1024
_MOST_REDIRECTS = 10
# identity: a compressed body would have another length.
_HEADERS = {"User-Agent": "titles", "Accept-Encoding": "identity", "Connection": "close"}
_TRANSIENT = {408, 425, 429, *range(500, 600)}  # status codes that a later attempt may not get


class DamagedError(Exception):
    """The content is not that of the file, and more bytes cannot mend it."""


class _TransferError(Exception):
    """The transfer was not completed; another attempt may succeed."""


class Version(NamedTuple):
    """A file as its server describes it; None where it does not. size: bytes."""

    address: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """For If-Range, which does not accept a weak ETag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def reason(error: BaseException) -> str:
    """The system's message where there is one, without the name of a file."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


@contextmanager
def reading(file: Path, title: str) -> Iterator[Any]:
    """Open a file for reading under a progress bar."""
    size = file.stat().st_size
    with file.open("rb") as raw, tqdm.wrapattr(raw, "read", size, desc=title, disable=None) as stream:
        yield stream


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with reading(file, f"check {file.name}") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def transfer(address: str, target: Path) -> Version:
    """Complete NAME.part and check its content; returns the server's version.

    Raises ValueError if the server refuses, no attempt succeeds, the content is damaged, or the part
    cannot be written.
    """
    part = beside(target, ".part")
    for pause in (*PAUSES, None):
        try:
            version = _attempt(address, part)
            _check(part, target.name, version)
            return version
        except DamagedError as error:
            _discard(part)
            raise ValueError(
                f"{address}: the server does not send a whole {target.name}: {error}. It was removed; "
                "try the same command later, or name a mirror with --url"
            ) from None
        except _TransferError as error:
            if pause is None:
                _, kept = _resumable(address, part)
                remedy = "try the same command later, or name a mirror with --url"
                if kept:
                    remedy = f"{kept} bytes are kept in {part}: the same command resumes there"
                raise ValueError(f"{address}: {error}; {remedy}") from None
            tqdm.write(f"{target.name}: {error}; again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    beside(part, ".json").unlink(missing_ok=True)


def _resumable(address: str, part: Path) -> tuple[Version | None, int]:
    """The version that the part is the start of, and its bytes; None and 0 if it cannot be resumed."""
    try:
        version = Version(**read_json(beside(part, ".json")))
        have = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return None, 0
    return (version, have) if have and version.address == address and version.validator else (None, 0)


def _root(error: BaseException) -> BaseException:
    """The error of the system below those of the libraries."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _asked(session: requests.Session, address: str, headers: dict[str, str]) -> requests.Response:
    """The answer at the end of all redirects, of which no body is read: it may have no end."""
    for _ in range(_MOST_REDIRECTS):
        response = session.get(address, headers=headers, timeout=TIMEOUT, stream=True)
        target = connection.leads_to(response)
        if target is None:
            return response
        response.close()
        schemes = ("https:",) if address.startswith("https:") else ("https:", "http:")
        leads = urljoin(address, target)
        if not leads.startswith(schemes):
            raise ValueError(f"{address}: the server leads to {target}, expected an https address")
        address = leads
    raise ValueError(f"{address}: the server leads from one address to the next without end")


def _attempt(address: str, part: Path) -> Version:
    """Fetch what the part lacks, in one request; returns the version that the part now is.

    Raises _TransferError, DamagedError, and ValueError if no later attempt can succeed.
    """
    known, have = _resumable(address, part)
    headers = dict(_HEADERS)
    if known:
        if have == known.size:
            return known
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator or ""}
    try:
        with connection.session() as session:
            response = _asked(session, address, headers)
    except requests.RequestException as error:
        cause = _root(error)
        told = f"the server cannot be reached ({reason(cause)})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ValueError(f"{address}: {told}") from None
        raise _TransferError(told) from None
    with response:
        status = f"the server answers {response.status_code} {response.reason}"
        if response.status_code in _TRANSIENT:
            raise _TransferError(status)
        complete = response.headers.get("Content-Range") == f"bytes */{have}"
        if known and response.status_code == 416 and complete:
            return known._replace(size=have)  # of a server that announced no length
        if known and response.status_code in (206, 416):
            version = _resumed(response.headers, known, have)
            if not version:
                _discard(part)
                raise _TransferError("the file changed at the server, its start was removed")
        elif response.status_code == 200:
            etag, modified = map(response.headers.get, ("ETag", "Last-Modified"))
            version = Version(address, etag, modified, response.raw.length_remaining)
            marks_end = part.name.endswith((".gz.part", ".bz2.part"))
            if version.size is None and not marks_end and "Transfer-Encoding" not in response.headers:
                raise ValueError(
                    f"{address}: the server does not say how long the file is, and the content does not "
                    "mark its end: name a mirror with --url"
                )
            if (version.size or 0) > MAX_BYTES:
                told = f"the server announces {version.size} bytes, more than {MAX_BYTES}"
                raise ValueError(f"{address}: {told}: name a mirror with --url")
            _discard(part)
        else:
            raise ValueError(f"{address}: {status}: name a mirror with --url")
        write_json(beside(part, ".json"), version._asdict())
        _receive(response, part, version.size)
    return version


def _resumed(headers: CaseInsensitiveDict[str], known: Version, have: int) -> Version | None:
    """The version whose rest is sent, from byte `have`; None if it is another one."""
    found = re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if not found:
        return None
    size = None if found[1] == "*" else int(found[1])
    sent = Version(known.address, headers.get("ETag"), headers.get("Last-Modified"), size)
    # A header that is missing in the answer to a range means nothing.
    changed = any(None not in (new, old) and new != old for new, old in zip(sent, known, strict=True))
    return None if changed else known._replace(size=known.size or size)


def _receive(response: requests.Response, part: Path, size: int | None) -> None:
    """Append the body to the part, which then has `size` bytes."""
    have = part.stat().st_size if part.exists() else 0
    cause = ""
    try:
        with (
            part.open("ab") as out,
            tqdm.wrapattr(out, "write", size, initial=have, desc=part.stem, disable=None) as watched,
        ):
            # read1: a larger read would lose its start if the connection breaks.
            while block := response.raw.read1(_BLOCK, decode_content=False):
                watched.write(block)
                have += len(block)
                if have > MAX_BYTES:
                    raise DamagedError(f"it does not end after {MAX_BYTES} bytes")
    except HTTPError as error:
        cause = f" ({reason(_root(error))})"
    except OSError as error:
        raise ValueError(
            f"cannot write {part}: {reason(error)}. What came is kept: make room and run the same "
            "command again, it resumes there"
        ) from None
    if cause or (size is not None and have < size):
        total = "an unknown number of" if size is None else size
        raise _TransferError(f"the connection ended after {have} of {total} bytes{cause}")
    if size is not None and have > size:
        raise DamagedError(f"it is longer than the {size} bytes announced")


def _check(part: Path, name: str, version: Version) -> None:
    """Read the content through, as far as its start and the ending of `name` show its format.

    Raises DamagedError, or _TransferError if it ends too early and the server announced no size.
    """
    with reading(part, f"check {name}") as stream:
        try:
            start = stream.peek(64)[:64].lstrip().lower()
            if not start:
                raise EOFError("it is empty")
            if start.startswith((b"<!doctype", b"<html")):
                raise DamagedError("it is a web page")
            if name.endswith(".gz"):
                with gzip.open(stream) as unpacked:
                    while unpacked.read(_BLOCK):
                        pass
            elif name.endswith(".bz2"):
                _unpack_bz2(stream)
        except EOFError as error:
            kind = _TransferError if version.size is None else DamagedError
            raise kind(f"it ends too early ({error})") from None
        except (zlib.error, OSError) as error:
            if getattr(error, "errno", None):  # of the disk
                raise
            raise DamagedError(str(error)) from None


def _unpack_bz2(stream: Any) -> None:
    # Not bz2.open: after a first stream it takes damage for the end of the file.
    unpacker = bz2.BZ2Decompressor()
    while packed := unpacker.unused_data or stream.read(_BLOCK):
        if unpacker.eof:
            unpacker = bz2.BZ2Decompressor()
        unpacker.decompress(packed, _BLOCK)
        while not (unpacker.eof or unpacker.needs_input):
            unpacker.decompress(b"", _BLOCK)
    if not unpacker.eof:
        raise EOFError("its end mark is missing")
