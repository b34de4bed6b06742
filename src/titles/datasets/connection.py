"""HTTP connections to servers that may be broken or hostile: length and time of what comes are bounded.

Limits of requests and of Python's own client are on single reads and lines: a server that sends a little
at a time, or without end, would hold a download forever.
"""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPException, HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter

MOST_LINE = 64 * 1024  # bytes of a header, or of the line before a chunk
MOST_LINES = 1000  # without content between them: headers, interim answers, trailers
PACE_SECONDS = 60.0  # in each, PACE_BYTES have to come
PACE_BYTES = 64 * 1024


class _Paced(io.RawIOBase):
    """The bytes of a connection; raises TimeoutError if they come too slowly.

    The time between two calls, in which nobody reads, does not count.
    """

    def __init__(self, raw: socket.SocketIO) -> None:
        self._raw = raw
        self._bytes, self._seconds = 0, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        start = time.monotonic()
        count = self._raw.readinto(buffer)
        self._seconds += time.monotonic() - start
        self._bytes += count or 0
        if self._seconds >= PACE_SECONDS:
            if self._bytes < PACE_BYTES:
                raise TimeoutError(f"fewer than {PACE_BYTES} bytes came in {PACE_SECONDS:g} s")
            self._bytes, self._seconds = 0, 0.0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Bounded(io.BufferedReader):
    """Reads lines of a bounded length and, without content between them, number."""

    _lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(MOST_LINE + 1)
        self._lines += 1
        if len(line) > MOST_LINE or self._lines > MOST_LINES:
            raise HTTPException("its headers have no end")
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        self._lines = 0
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        self._lines = 0
        return super().read1(size)

    def readinto(self, buffer: Any, /) -> int:
        self._lines = 0
        return super().readinto(buffer)


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.fp.close()
        self.fp = _Bounded(_Paced(sock.makefile("rb", buffering=0)))


class BoundedAdapter(HTTPAdapter):
    """For a session of requests, whose servers are not trusted."""

    def get_connection_with_tls_context(self, *args: Any, **settings: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **settings)
        kind: Any = pool.ConnectionCls
        if kind.response_class is not _Response:
            pool.ConnectionCls = type(kind.__name__, (kind,), {"response_class": _Response})
        return pool


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: requests would read the whole body of an answer that leads elsewhere."""


def leads_to(response: requests.Response) -> str | None:
    """Where an answer of a `session` leads; None if it is no redirect."""
    target: str | None = requests.Session().get_redirect_target(response)
    return target


def session() -> requests.Session:
    """A session for web addresses, which follows no redirect."""
    made = _Session()
    for start in ("http://", "https://"):
        made.mount(start, BoundedAdapter())
    return made
