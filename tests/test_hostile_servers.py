"""Downloads from servers that answer without end, or too slowly: given up, with a reason."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from download_server import COURSE, member, names, packed, refusal, serving
from titles.datasets import connection, download, transfer

pytestmark = pytest.mark.pipeline  # real servers on loopback

START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"ETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = START + b"Content-Length: 400000\r\n\r\n"
PAUSE = 0.01  # seconds between two parts of what trickles


@contextmanager
def answering(parts: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """A server that sends these parts as the answer to each request, until the other end has gone."""

    def answer(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.recv(65536)
            for part in parts():
                line.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def trickle(start: bytes, part: bytes) -> Iterator[bytes]:
    yield start
    while True:
        yield part
        time.sleep(PAUSE)


def endless(start: bytes, part: bytes) -> Iterator[bytes]:
    return itertools.chain([start], itertools.repeat(part))


HEADERS, SLOW = "headers have no end", "fewer than 65536 bytes came in 0.5 s"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (partial(endless, b"", b"HTTP/1.1 100 Continue\r\n\r\n"), HEADERS),
        (partial(endless, b"", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"), HEADERS),
        (partial(endless, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), r"answers 103"),
        (partial(endless, START, b"A: b\r\n"), r"100 headers|headers have no end"),
        (partial(endless, START + b"A: ", b"b" * 1000), "line|headers have no end"),
        (partial(endless, CHUNKED, b"1" * 1000), r"no end|chunk|InvalidChunk"),
        (partial(endless, CHUNKED + b"1;", b"1" * 1000), HEADERS),
        (partial(endless, CHUNKED + b"1\r\na\r\n0\r\n", b"A: b\r\n"), HEADERS),
        (partial(trickle, b"", b"HTTP/1.1 100 Continue\r\n\r\n"), SLOW),
        (partial(trickle, START + b"A: ", b"b"), SLOW),
        (partial(trickle, LONG, b"b"), SLOW),
        (partial(trickle, CHUNKED, b"1\r\na\r\n"), SLOW),
        (partial(trickle, CHUNKED, b"0"), SLOW),
        (partial(endless, b"", b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), "without end"),
        (partial(endless, b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"x" * 1000), "without end"),
        (partial(endless, START + b"Content-Length: 9999999999999999\r\n\r\n", b""), "announces"),
        (
            partial(endless, CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
            "does not end after 500000 bytes",
        ),
    ],
)
def test_a_server_without_end_is_given_up(
    parts: Callable[[], Iterator[bytes]], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer, "PAUSES", (0.01,))
    monkeypatch.setattr(transfer, "MAX_BYTES", 500_000)
    monkeypatch.setattr(connection, "PACE_SECONDS", 0.5)
    start = time.monotonic()
    with answering(parts) as url:
        found = refusal(partial(download.download, "sbw", tmp_path, url))
    assert re.search(told, found), found
    assert "\n" not in found
    assert time.monotonic() - start < 30
    assert not (tmp_path / "SBW-vectors-300-min5.txt.gz").exists()


CLASHES = {
    "a file twice": [member("a", b"1"), member("a", b"2")],
    "a file in a file": [member("a", b"1"), member("a/b", b"2")],
    "a file deep in a file": [member("a", b"1"), member("a/b/c/d", b"2")],
    "a folder over a file": [member("a", b"1"), member("a", kind=b"5")],
    "a file over a folder": [member("a/b", b"1"), member("a", b"2")],
    "a file over an empty folder": [member("a", kind=b"5"), member("a", b"2")],
    "a dot": [member("a", b"1"), member("./a", b"2")],
    "a long name": [member("a" * 300, b"1")],
    "a long path": [member("/".join(["a" * 200] * 40), b"1")],
    "a long folder": [member("a" * 300, kind=b"5")],
}


@pytest.mark.parametrize("kind", CLASHES)
def test_an_archive_whose_names_cannot_be_files_is_refused_for_good(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    with serving(monkeypatch) as server:
        server.files[f"{COURSE}.tar.bz2"] = packed(*CLASHES[kind])
        told = refusal(lambda: download.download("course", here, server.url))
        assert "the archive is refused: 'a" in told or "the archive is refused: './a'" in told
        assert "resume" not in told
        assert "same command" not in told
        assert len(told) < 500 + len(str(here))
        assert names(here) == []
        server.files[f"{COURSE}.tar.bz2"] = packed(member("a", b"1"), member("b/a", b"2"))
        download.download("course", here, server.url)
    assert (here / COURSE / "b/a").read_bytes() == b"2"


def test_names_that_only_the_file_system_takes_for_the_same_are_a_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where capitals make no difference."""
    here = tmp_path / "here"
    from titles.datasets import archive

    exists = archive.os.path.lexists

    def folded(path: Path) -> bool:
        return exists(path) or exists(Path(path).with_name(Path(path).name.lower()))

    with serving(monkeypatch) as server:
        server.files[f"{COURSE}.tar.bz2"] = packed(member("a", b"1"), member("A", b"2"))
        with monkeypatch.context() as patched:
            patched.setattr(archive.os.path, "lexists", folded)
            told = refusal(lambda: download.download("course", here, server.url))
        assert "'A' stands in the way of another member" in told
        download.download("course", here, server.url)
    assert (here / COURSE / "A").read_bytes() == b"2"
