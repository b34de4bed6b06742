"""Servers end with whoever started them, and answer whatever is asked with one line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from hostile.harness import Place, case, cases, excerpt
from hostile.terminal import EVIL

KIND = "servers"
READY = 180  # seconds
GOOD = json.dumps({"inputs": ["word2 word3"]}).encode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def alive(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/ping" if port else "/")
        return connection.getresponse().status < 500
    except OSError:
        return False


@contextmanager
def server(
    place: Place, command: str, *options: str, wait: bool = True, **variables: str
) -> Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    """Port, process and log of a server that answers; it has ended afterwards."""
    port, log = free_port(), place.folder.parent / "server.log"
    with log.open("wb") as stream:
        process = place.start(
            command, "--port", str(port), *options, stdout=stream, stderr=stream, variables=variables
        )
    family: list[psutil.Process] = []
    try:
        last = time.monotonic() + READY
        while wait and not alive(port):
            assert process.poll() is None, f"the server ends: {excerpt(log.read_text()[-300:])}"
            assert time.monotonic() < last, "the server does not start"
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
        yield port, process, log
    finally:
        if process.poll() is None:
            family += psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for member in psutil.wait_procs(family, 5)[1]:
            member.kill()


ENDS = ("HUP", "QUIT", "TERM", "INT", "KILL")


@cases(
    KIND,
    {
        f"{command} ends by {name}{'' if ready else ' while it starts'}": (command, name, ready)
        for command, name, ready in [
            *(("serve", name, True) for name in ENDS),
            ("serve", "KILL", False),
            ("serve", "TERM", False),
            ("demo", "HUP", True),
            ("demo", "QUIT", True),
        ]
    },
)
def ends(place: Place, command: str, name: str, ready: bool) -> None:
    place.models()
    temporary = place.folder.parent / "tmp"
    temporary.mkdir()
    with server(place, command, wait=ready, TMPDIR=str(temporary)) as (port, process, log):
        if not ready:
            time.sleep(6)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(getattr(signal, f"SIG{name}"))
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs 30 s after SIG{name}") from None
        left = psutil.wait_procs(family[1:], 15)[1]
        named = [" ".join(member.cmdline())[:60] for member in left if member.is_running()]
        for member in left:
            member.kill()
        assert not left, f"{len(left)} processes are left: {named}"
        assert not alive(port)
        told = log.read_text()
        assert "Traceback" not in told, excerpt(told[told.index("Traceback") :][-200:])
        if name != "KILL":
            kept = [path.name for path in temporary.iterdir() if path.name.startswith("titles-serve")]
            assert not kept, f"temporary folders are left: {kept}"


def request(
    body: bytes = GOOD,
    path: str = "/invocations",
    method: str = "POST",
    host: str = "127.0.0.1",
    kind: str = "application/json",
    *more: str,
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def js(values: Any, **params: Any) -> bytes:
    return request(json.dumps({"inputs": values} | ({"params": params} if params else {})).encode())


def raw(text: str | bytes) -> bytes:
    return request(text if isinstance(text, bytes) else text.encode())


def head(*lines: str, body: bytes = b"") -> bytes:
    return (
        "\r\n".join(["POST /invocations HTTP/1.1", "Host: 127.0.0.1", *lines]).encode()
        + b"\r\n\r\n"
        + body
    )


# The request, and whether the connection has to go on: what a request's end is may be unknown.
BAD: dict[str, tuple[bytes, bool]] = {
    "deep lists": (raw('{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}"), True),
    "deep, unclosed": (raw('{"inputs": ' + "[" * 200_000), True),
    "deep dictionaries": (raw('{"inputs": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}"), True),
    "5,000 digits": (raw('{"inputs": ' + "9" * 5000 + "}"), True),
    "5,000 digits in a list": (raw('{"inputs": [' + "9" * 5000 + "]}"), True),
    "no JSON": (raw("{"), True),
    "nothing": (raw(""), True),
    "not UTF-8": (raw(b"\xff\xfe"), True),
    "null": (raw("null"), True),
    "two forms": (raw('{"inputs": ["a"], "instances": ["b"]}'), True),
    "no form": (raw('{"titles": ["a"]}'), True),
    "a form of dictionaries": (js({"a": {"b": 1}}), True),
    "columns that are wrong": (
        raw(json.dumps({"dataframe_split": {"columns": ["name"], "data": [["a"]]}})),
        True,
    ),
    "too few columns": (
        raw(json.dumps({"dataframe_split": {"columns": ["title"], "data": [["a", "b"]]}})),
        True,
    ),
    "columns of a list": (
        raw(json.dumps({"dataframe_split": {"columns": [["title"]], "data": [["a"]]}})),
        True,
    ),
    "columns twice": (
        raw(json.dumps({"dataframe_split": {"columns": ["title", "title"], "data": [["a", "b"]]}})),
        True,
    ),
    "columns of text": (
        raw(json.dumps({"dataframe_split": {"columns": "title", "data": [["a"]]}})),
        True,
    ),
    "columns of a dictionary": (
        raw(json.dumps({"dataframe_split": {"columns": {"title": 1}, "data": [["a"]]}})),
        True,
    ),
    "CSV of columns twice": (request(b"title,title\nword2,word3\n", kind="text/csv"), True),
    "data of text": (raw(json.dumps({"dataframe_split": {"columns": ["title"], "data": "abc"}})), True),
    "records of text": (raw(json.dumps({"dataframe_records": ["a"]})), True),
    "records without titles": (raw(json.dumps({"dataframe_records": [{"name": "a"}]})), True),
    "k of 0": (js(["a"], k=0), True),
    "k of -1": (js(["a"], k=-1), True),
    "k of text": (js(["a"], k="x"), True),
    "k of a fraction": (js(["a"], k=1.5), True),
    "k of a list": (js(["a"], k=[1]), True),
    "at_least of NaN": (raw('{"inputs": ["a"], "params": {"at_least": NaN}}'), True),
    "at_least of infinity": (raw('{"inputs": ["a"], "params": {"at_least": Infinity}}'), True),
    "at_least of -1": (js(["a"], at_least=-1.0), True),
    "at_least of 2": (js(["a"], at_least=2.0), True),
    "at_least of text": (js(["a"], at_least="x"), True),
    "params of a list": (raw('{"inputs": ["a"], "params": [3]}'), True),
    "CSV that is empty": (request(b"", kind="text/csv"), True),
    "CSV of another column": (request(b"name\nword2\n", kind="text/csv"), True),
    "CSV of another column of 1 MB": (request(b"n" * 1_000_000 + b"\nword2\n", kind="text/csv"), True),
    "CSV with an escape sequence": (request(b"\x1b[2J\x9b,b\nword2,1\n", kind="text/csv"), True),
    "CSV with an open quote": (request(b'"title\nword2\n', kind="text/csv"), True),
    "CSV of NUL": (request(b"\x00\x00\n", kind="text/csv"), True),
    "Parquet that is none": (
        request(b"PAR1" + b"\xff" * 100 + b"PAR1", kind="application/x-parquet"),
        True,
    ),
    "an unknown type": (request(kind="application/x-python-pickle"), True),
    "an unknown charset": (request(kind="application/json; charset=x-nothing"), True),
    "a type of garbage": (request(kind=";;;=,\u00ff"), True),
    "a type of 8 KB": (request(kind="a" * 8000), True),
    "another path": (request(path="/../../etc/passwd"), True),
    "an encoded path": (request(path="/%2e%2e/%00%1b"), True),
    "another method": (request(method="DELETE"), True),
    "GET": (request(b"", method="GET"), True),
    "another host": (request(host="evil.example"), True),
    "another host with a port": (request(host="evil.example:5001"), True),
    "a host of a loopback name": (request(host="127.0.0.1.evil.example"), True),
    "a host with an at": (request(host="127.0.0.1@evil.example"), True),
    "no host": (request().replace(b"Host: 127.0.0.1\r\n", b""), False),
    "two hosts": (
        request().replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\nHost: evil.example\r\n"),
        False,
    ),
    "no length": (head("Content-Type: application/json"), False),
    "a negative length": (
        head("Content-Type: application/json", "Content-Length: -5", body=b"{}"),
        False,
    ),
    "a length of text": (
        head("Content-Type: application/json", "Content-Length: abc", body=b"{}"),
        False,
    ),
    "a length of 5,000 digits": (
        head("Content-Type: application/json", "Content-Length: " + "9" * 5000, body=b"{}"),
        False,
    ),
    "two lengths": (
        head("Content-Type: application/json", "Content-Length: 2", "Content-Length: 3", body=b"{}"),
        False,
    ),
    "a length and chunks": (
        head(
            "Content-Type: application/json",
            "Content-Length: 2",
            "Transfer-Encoding: chunked",
            body=b"0\r\n\r\n",
        ),
        False,
    ),
    "chunks of text": (
        head(
            "Content-Type: application/json",
            "Transfer-Encoding: chunked",
            body=b"xyz\r\n{}\r\n0\r\n\r\n",
        ),
        False,
    ),
    "no HTTP": (b"hello\r\n\r\n", False),
    "a head of 1 MB": (head("X: " + "y" * 1_000_000), False),
}


def answered(connection: socket.socket, pending: bytearray) -> tuple[int, bytes, bool]:
    """Status and body of the next response, and whether the connection goes on."""

    def more() -> None:
        block = connection.recv(65536)
        if not block:
            raise ConnectionError("the connection is closed without an answer")
        pending.extend(block)

    while b"\r\n\r\n" not in pending:
        more()
    at = pending.index(b"\r\n\r\n")
    lines = bytes(pending[:at]).split(b"\r\n")
    del pending[: at + 4]
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in lines[1:])
    }
    size = int(fields.get(b"content-length", b"0"))
    while len(pending) < size:
        more()
    body = bytes(pending[:size])
    del pending[:size]
    return int(lines[0].split()[1]), body, fields.get(b"connection", b"").lower() != b"close"


def checked(port: int, name: str, data: bytes, goes_on: bool) -> str:
    """What is wrong with the answer to a request, and to a good one after it on the same connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        pending = bytearray()
        try:
            try:
                connection.sendall(data)
            except OSError:
                if goes_on:
                    raise
            status, body, open_ = answered(connection, pending)
        except TimeoutError:
            return f"{name}: no answer in 60 s"
        except OSError as error:
            # A head without bounds may be cut off.
            return "" if len(data) > 500_000 and not goes_on else f"{name}: {error}"
        text = body.decode("utf-8", "replace")
        if not 400 <= status < 500:
            return f"{name}: {status} {excerpt(text[:80])}"
        if "Traceback" in text or "/src/" in text or 'File "' in text or "site-packages" in text:
            return f"{name}: a trace or a path: {excerpt(text)}"
        try:
            found = json.loads(text)
            text = found.get("message", text) if isinstance(found, dict) else text
        except ValueError:
            pass
        if "\n" in str(text).strip() or len(str(text)) > 1000:
            return f"{name}: not one line: {excerpt(str(text))}"
        if any(not c.isprintable() for c in str(text).strip()):
            return f"{name}: not printable: {excerpt(str(text))}"
        if not goes_on:
            return ""
        try:
            if not open_:
                return f"{name}: the connection is closed after the answer"
            connection.sendall(request())
            status, body, _ = answered(connection, pending)
        except OSError as error:
            return f"{name}: the next request has no answer: {error}"
        return "" if status == 200 else f"{name}: the next request gets {status}"


@case(KIND, "HTTP: bad requests")
def bad_requests(place: Place) -> None:
    place.models()
    with server(place, "serve") as (port, _, log):
        wrong = [
            problem
            for name, (data, goes_on) in BAD.items()
            if (problem := checked(port, name, data, goes_on))
        ]
        assert posted(port, GOOD)[0] == 200, "the server is dead"
        told = log.read_text(errors="replace")
    assert not wrong, f"{len(wrong)} of {len(BAD)}: " + "; ".join(wrong)
    assert "Traceback" not in told, excerpt(told[told.index("Traceback") :][-300:])


def posted(
    port: int, body: bytes, host: str | None = None, path: str = "/invocations"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Host": host} if host is not None else {})
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@case(KIND, "HTTP: good requests of odd forms")
def good_requests(place: Place) -> None:
    place.models()
    with server(place, "serve") as (port, _, _):
        for values in (
            [],
            [""],
            ["\ud800"],
            ["\x1b[2J word2"],
            ["word2 " * 100_000],
            [None],
            [3],
            [{"a": 1}],
            [["word2"]],
        ):
            status, body = posted(port, json.dumps({"inputs": values}).encode())
            assert status in (200, 400), f"{values!a:.60}: {status} {body[:200]!r}"
        status, body = posted(
            port, json.dumps({"inputs": ["word2"] * 3, "params": {"k": 10**9}}).encode()
        )
        assert status in (200, 400, 413), body[:200]
        chunked = head(
            "Content-Type: application/json",
            "Transfer-Encoding: chunked",
            body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        )
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(chunked)
            status, body, _ = answered(connection, bytearray())
            assert status == 200, f"chunks: {status} {body[:100]!r}"
        # One that says little and waits keeps nobody from being answered.
        slow = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(20)]
        for connection in slow:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
            )
        started = time.monotonic()
        assert posted(port, GOOD)[0] == 200
        assert time.monotonic() - started < 20
        for connection in slow:
            connection.close()


HOSTS: dict[str, tuple[tuple[str, ...], dict[str, str], dict[str, bool]]] = {
    "by options": (
        ("--allowed-host", "shop.example", "--allowed-host", "other.example"),
        {},
        {
            "shop.example": True,
            "other.example:80": True,
            "SHOP.example": True,
            "localhost": True,
            "127.0.0.1": True,
            "evil.example": False,
            "shop.example.evil": False,
            "x.shop.example": False,
        },
    ),
    "by a variable": (
        (),
        {"TITLES_ALLOWED_HOSTS": "shop.example, other.example,"},
        {
            "shop.example": True,
            "other.example": True,
            "localhost:5001": True,
            "evil.example": False,
            "": False,
            ",": False,
        },
    ),
    "all": (("--allowed-host", "*"), {}, {"evil.example": True, "shop.example:99": True}),
    "none": (
        (),
        {},
        {
            "localhost": True,
            "[::1]": True,
            "localhost.": True,
            "evil.example": False,
            "localhost.evil.example": False,
        },
    ),
}


@cases(KIND, {f"hosts: {name}": given for name, given in HOSTS.items()})
def hosts(
    place: Place, options: tuple[str, ...], variables: dict[str, str], expected: dict[str, bool]
) -> None:
    place.models()
    with server(place, "serve", *options, **variables) as (port, _, _):
        wrong = []
        for host, allowed in expected.items():
            status, _ = posted(port, GOOD, host)
            if (status == 200) != allowed and not (host == "localhost." and status < 500):
                wrong.append(f"{host!r}: {status}")
        assert not wrong, ", ".join(wrong)


@cases(KIND, {f"serve with {name}": text for name, text in EVIL.items()})
def bad_hosts(place: Place, text: str) -> None:
    place.models()
    place.refused("serve", "--host", text, "--port", str(free_port()))


@case(KIND, "a port that is taken")
def taken(place: Place) -> None:
    place.models()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        place.refused("serve", "--port", port, says=port)
        place.refused("demo", "--port", port, says=port)


@cases(KIND, {"serve": "serve", "demo": "demo"})
def damaged_models(place: Place, command: str) -> None:
    file = place.models() / "cnn/weights.safetensors"
    os.truncate(file, 100)
    place.refused(command, "--port", str(free_port()), says="cnn")


@case(KIND, "demo: other hosts and other pages")
def demo(place: Place) -> None:
    place.models()
    with server(place, "demo") as (port, _, log):
        wrong = []
        for name, headers, allowed in (
            ("no other", {}, True),
            ("another host", {"Host": "evil.example"}, False),
            ("another page", {"Origin": "http://evil.example"}, False),
            ("another page of null", {"Origin": "null"}, False),
            ("an empty host", {"Host": ""}, False),
            ("a host of garbage", {"Host": "\x7f[["}, False),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/", headers=headers)
            status = connection.getresponse().status
            if (status == 200) != allowed or status >= 500:
                wrong.append(f"{name}: {status}")
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x00\xff\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection_:
                connection_.sendall(data)
                told = connection_.recv(4096)
                if told and not told.startswith(b"HTTP/1.1 4"):
                    wrong.append(f"{data[:20]!r}: {told[:30]!r}")
        assert not wrong, "; ".join(wrong)
        assert "Traceback" not in log.read_text(), excerpt(log.read_text()[-300:])
