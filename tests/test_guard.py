"""Requests that are no requests of a client: every server answers them in a line, and goes on."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlflow_server import closed_port
from test_serving import HOST, JSON, exported, models, post, running, server  # noqa: F401, fixtures
from titles.cli import main
from titles.serve import guard, http_requests
from titles.serve.guard import Guard

BODY = b'{"inputs": ["word2"]}'
MIB = 2**20
KIND = f"Content-Type: {JSON}\r\n".encode()
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
START = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n" + KIND
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def own(models: Path) -> Iterator[int]:  # noqa: F811
    """The port of `titles serve`, which is reached by another name as well."""
    with closed_port() as port:
        pass
    command = [sys.executable, "-m", "titles.cli", "serve", "--models", str(models), "--model", "mlp"]
    command += ["--port", str(port), "--allowed-host", "Shop.example", "--allowed-host", "192.0.2.7"]
    with running(command, port, models.parent):
        yield port


@pytest.fixture(params=["titles serve", "mlflow models serve"])
def port(request: pytest.FixtureRequest) -> int:
    if request.param == "titles serve":
        return int(request.getfixturevalue("own"))
    return int(request.getfixturevalue("server")[0])


def ask(port: int, *parts: bytes, ends: bool = False) -> tuple[int, Any, bool]:
    """Status, JSON and whether a valid request on the same connection was answered."""
    with socket.create_connection((HOST, port), 60) as line:
        try:
            for part in parts:
                line.sendall(part)
            if ends:
                line.shutdown(socket.SHUT_WR)
        except OSError:  # the rest is not wanted any more
            pass
        response = HTTPResponse(line)
        response.begin()
        content = response.read()
        assert response.headers["Content-Type"].startswith("application/json")
        kept = not response.will_close
        if kept:
            line.sendall(START + LENGTH + BODY)
            second = HTTPResponse(line)
            second.begin()
            assert second.status == 200
            second.read()
        elif not ends:
            line.settimeout(20)
            with suppress(ConnectionError):
                assert line.recv(1) == b""
    return response.status, json.loads(content), kept


def told(answer: Any) -> str:
    message: str = answer["message"]
    assert "\n" not in message
    assert len(message) <= 500
    assert not re.search(r"Traceback|\.py\b|site-packages|/home/|/tmp/", message)
    return message


def headed(name: str, value: str) -> bytes:
    host = "" if name == "Host" else "Host: localhost\r\n"
    return f"POST /invocations HTTP/1.1\r\n{host}{name}: {value}\r\n".encode() + KIND + LENGTH + BODY


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (headed("Host", "example.com"), 400),
        (headed("Host", "localhost.example.com"), 400),
        (headed("Host", "127.0.0.1@example.com"), 400),
        (headed("Host", "127.0.0.1.example.com:80"), 400),
        (headed("Host", "192.0.2.8"), 400),
        (headed("Host", ""), 400),
        (headed("Origin", "http://example.com"), 403),
        (headed("Origin", "http://localhost:3000"), 403),
        (headed("Origin", "null"), 403),
        (headed("Content-Encoding", "gzip"), 415),
        (START.replace(b"/invocations", b"/none") + LENGTH + BODY, 404),
        (START.replace(b"/invocations", b"/..%2f..%00%ff") + LENGTH + BODY, 404),
        (START.replace(b"/invocations", b"/docs") + LENGTH + BODY, 404),
        (START.replace(b"POST", b"PUT") + LENGTH + BODY, 405),
        (START.replace(b"POST", b"GET") + LENGTH + BODY, 405),
        (START.replace(b"POST", b"UNHEARD") + LENGTH + BODY, 405),
        (START + b"\r\n", 400),
        (START + b"Content-Length: 4\r\n\r\n\xff\xfe\x00\x01", 400),
        (CHUNKED + b"1\r\n{\r\n0\r\n\r\n", 400),
    ],
)
def test_a_refused_request_is_told_why_and_its_connection_goes_on(
    port: int, request_: bytes, status: int
) -> None:
    found, answer, kept = ask(port, request_)
    assert (found, kept) == (status, True)
    assert told(answer)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([START + b"Content-Length: 99999999999\r\n\r\n"], 413),
        ([START + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"], 413),
        ([START + b"Content-Length: %d\r\n\r\n" % (30 * MIB), *[b"x" * MIB] * 30], 413),
        ([CHUNKED, *[b"100000\r\n" + b"x" * MIB + b"\r\n"] * 30, b"0\r\n\r\n"], 413),
        ([CHUNKED.replace(b"\r\n\r\n", b"\r\n") + LENGTH + b"0\r\n\r\n"], 400),
    ],
    ids=["announced", "expected", "sent", "in chunks", "two lengths"],
)
def test_a_body_that_is_not_read_ends_its_connection(
    port: int, parts: Sequence[bytes], status: int
) -> None:
    found, answer, kept = ask(port, *parts)
    assert (found, kept) == (status, False)
    assert told(answer)
    assert post(port, {"inputs": ["word2"]})[0] == 200


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("request_", "ends", "status"),
    [
        (START + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", False, 400),
        (START + b"Content-Length: -1\r\n\r\n", False, 400),
        (START + b"Content-Length: 1e3\r\n\r\n", False, 400),
        (START + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", False, 400),
        (START + b"Host: example.com\r\n\r\n", False, 400),
        (START + b"Transfer-Encoding: gzip\r\n\r\n", False, 501),
        (CHUNKED + b"zz\r\nhello\r\n", False, 400),
        (CHUNKED + b"5\r\nhel", True, 400),
        (CHUNKED + b"5\r\nhello\r\n", True, 400),
        (START + b"Content-Length: 500\r\n\r\nhello", True, 400),
        (START + b"A: " + b"a" * MIB + b"\r\n\r\n", False, 431),
        (b"\x16\x03\x01\x02\x00\x01\xff\xfc" * 99 + b"\r\n\r\n", False, 400),
        (b"GET\r\n\r\n", False, 400),
    ],
)
def test_what_is_no_http_gets_an_answer_before_its_connection_ends(
    own: int, request_: bytes, ends: bool, status: int
) -> None:
    found, answer, kept = ask(own, request_, ends=ends)
    assert (found, kept) == (status, False)
    assert told(answer)


@pytest.mark.pipeline
def test_names_that_are_allowed_are_answered(own: int, server: tuple[int, Any]) -> None:  # noqa: F811
    for host in (
        "shop.example",
        "SHOP.EXAMPLE:80",
        "shop.example.",
        "192.0.2.7",
        "[::1]:5",
        "127.0.0.1",
    ):
        assert ask(own, headed("Host", host))[0] == 200, host
    assert ask(own, headed("Origin", "https://shop.example"))[0] == 200
    assert ask(own, headed("Origin", "http://localhost"))[0] == 200  # the page of the server itself
    assert ask(server[0], headed("Host", f"localhost:{server[0]}"))[0] == 200
    assert ask(server[0], headed("Host", "shop.example"))[0] == 400


@pytest.mark.pipeline
def test_a_sender_that_only_ends_its_own_side_gets_its_answer(own: int) -> None:
    assert ask(own, START + b"Connection: close\r\n" + LENGTH + BODY, ends=True)[0] == 200


@pytest.mark.pipeline
def test_requests_in_a_row_are_answered_in_order(own: int) -> None:
    second = START.replace(b"/invocations", b"/none") + LENGTH + BODY
    found, _, kept = ask(own, START + LENGTH + BODY)
    assert (found, kept) == (200, True)
    with socket.create_connection((HOST, own), 60) as line:
        line.sendall((second + START + LENGTH + BODY) * 5)
        stream = line.makefile("rb")
        statuses = []
        for _ in range(10):
            statuses.append(int(stream.readline().split()[1]))
            length = 0
            while (header := stream.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            stream.read(length)
    assert statuses == [404, 200] * 5


# -- without a server


def asked(
    body: Sequence[bytes],
    headers: Sequence[tuple[bytes, bytes]] = (),
    hosts: Sequence[str] = ("*",),
    seconds: float = 5,
    here: str = "10.0.0.5",
) -> tuple[int, dict[bytes, bytes], Any]:
    """Status, headers and JSON of a guarded application that answers with the length of the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content = await receive()
        if content["body"] == b"fail":
            raise KeyError("/some/path.py")
        text = json.dumps(len(content["body"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    parts, sent = [*body], []

    async def receive() -> Any:
        if not parts:
            await asyncio.sleep(seconds * 2)
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or part == b"more"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [*headers], "server": (here, 80), "path": "/", "method": "POST"}
    asyncio.run(Guard(app, guard.allowed(hosts), seconds)(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(content)


@pytest.mark.parametrize(
    ("host", "hosts", "status"),
    [
        ("10.0.0.5:80", [], 200),  # the address that was reached
        ("10.0.0.6", [], 400),
        ("127.0.0.2", [], 200),
        ("[::1]", [], 200),
        ("[0:0:0:0:0:0:0:1]:9", [], 200),
        ("[2001:db8::5]", ["2001:db8:0::5"], 200),
        ("titles", ["titles"], 200),
        ("titles.", ["TITLES"], 200),
        ("titles:99999999", ["titles"], 400),
        ("titles/..", ["titles"], 400),
        ("titles, localhost", ["titles"], 400),
        ("a.titles", ["titles"], 400),
        ("anything", ["*"], 200),
        ("", ["*"], 200),
    ],
)
def test_the_host_decides(host: str, hosts: list[str], status: int) -> None:
    assert asked([b"x"], [(b"host", host.encode())], hosts)[0] == status


def test_the_address_that_was_reached_may_be_written_in_another_way() -> None:
    assert asked([b"x"], [(b"host", b"10.0.0.5")], [], here="::ffff:10.0.0.5")[0] == 200
    assert asked([b"x"], [(b"host", b"[fd00:0::1]:80")], [], here="fd00::1")[0] == 200
    assert asked([b"x"], [(b"host", b"10.0.0.5")], [], here="/run/titles.sock")[0] == 400


def test_names_come_from_the_environment_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.HOSTS, "one.example, two.example:80")
    with pytest.raises(ValueError, match=r"'two\.example:80' is no name of a host"):
        guard.allowed([])
    monkeypatch.setenv(guard.HOSTS, "one.example, Two.example,,")
    assert guard.allowed(["[::1]"]) == {"one.example", "two.example", "::1"}


@pytest.mark.parametrize("name", ["http://a", "a/b", "a b", "", "a:80", "*.a"])
def test_what_is_no_name_of_a_host_is_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--allowed-host", name]) == 1
    assert "is no name of a host: expected a name such as" in capsys.readouterr().err


def test_a_body_that_does_not_come_is_given_up() -> None:
    start = time.monotonic()
    status, headers, answer = asked([b"some", b"more"], seconds=0.1)
    assert (status, headers[b"connection"]) == (408, b"close")
    assert told(answer) == "the body did not arrive within 0.1 s"
    assert time.monotonic() - start < 5


def test_a_failure_is_told_without_its_cause() -> None:
    status, _, answer = asked([b"fail"])
    assert (status, told(answer)) == (500, "the server failed")


# -- answers that would be too large


class Model:
    """Answers as many rows as there are titles."""

    def predict(self, titles: Any, params: Any = None) -> pd.DataFrame:
        return pd.DataFrame({"category": [[]] * len(titles)})


def answered(body: bytes, kind: str = JSON) -> tuple[int, Any]:
    found = http_requests.answer(body, kind, Model())
    return found.status, json.loads(found.response)


def test_an_answer_that_would_be_too_large_is_refused() -> None:
    titles = ["a"] * (http_requests.MOST_TITLES + 1)
    assert answered(json.dumps({"inputs": titles[:-1]}).encode())[0] == 200
    for body, kind in [
        (json.dumps({"inputs": titles}).encode(), JSON),
        (json.dumps({"dataframe_records": [{"title": "a"}] * len(titles)}).encode(), JSON),
        (b"title\n" + b"a\n" * len(titles), "text/csv"),
        (parquet(pa.table({"title": titles})), "application/vnd.apache.parquet"),
    ]:
        status, answer = answered(body, kind)
        assert (status, "at most 100000 fit in a request" in told(answer)) == (413, True)
    status, answer = answered(json.dumps({"inputs": titles[:-1], "params": {"k": 21}}).encode())
    assert (status, "k times the number" in told(answer)) == (413, True)
    assert answered(b'{"inputs": ["a"], "params": {"k": 1000000000}}')[0] == 200


def parquet(table: Any, **settings: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **settings)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (pa.table({"title": pa.DictionaryArray.from_arrays([0] * 20_000, ["x" * 100_000])}), "too long"),
        (pa.table({"title": pa.array([[1], [2]])}), "has no text in it"),
    ],
    ids=["a long title, many times", "lists"],
)
def test_a_small_parquet_file_of_much_text_is_refused(table: Any, wanted: str) -> None:
    status, answer = answered(parquet(table), "application/vnd.apache.parquet")
    assert (status, wanted in told(answer)) == (400, True)


@pytest.mark.parametrize(
    "column",
    [["a", None, "b"], [1, None, 3], [b"a", b"\xff", None], pa.array(["a", None]).dictionary_encode()],
)
def test_parquet_is_read_as_it_is(column: Any) -> None:
    found = http_requests._of_parquet(parquet(pa.table({"title": column, "other": [0] * len(column)})))
    assert found.columns.tolist() == ["title"]
    wanted = column if isinstance(column, list) else column.to_pylist()
    assert found["title"].tolist() == wanted
