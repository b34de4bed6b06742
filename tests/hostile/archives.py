"""Archives and servers that clash, lie or never end; keys that stand twice; places without UTF-8."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hostile.harness import MIB, Place, case, cases, excerpt
from hostile.terminal import EVIL

KIND = "archives"
COURSE = "meli-challenge-2019"
SBW = "SBW-vectors-300-min5.txt.gz"
Answer = Callable[[socket.socket], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that answers each connection so, once it has the request's head."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def handle(connection: socket.socket) -> None:
            try:
                with connection:
                    connection.settimeout(30)
                    head = b""
                    while b"\r\n\r\n" not in head and (block := connection.recv(65536)):
                        head += block
                    answer(connection)
            except OSError:
                return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/data"
        listening.shutdown(socket.SHUT_RDWR)


def body(content: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n", *more: bytes) -> Answer:
    length = b"Content-Length: %d\r\n" % len(content)
    return lambda connection: connection.sendall(head + length + b"".join(more) + b"\r\n" + content)


def endless(start: bytes, block: bytes, pause: float = 0.0) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(block)
            time.sleep(pause)

    return answer


Members = list[tuple[str, bytes, bytes]]  # name, kind, target of a link


def archive(members: Members) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:bz2", format=tarfile.PAX_FORMAT) as tar:
        for split in ("train", "validation", "test"):
            content = gzip.compress(b'{"title": "a", "category": "b"}\n', mtime=0)
            info = tarfile.TarInfo(f"{COURSE}/spanish.{split}.jsonl.gz")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link.decode()
            info.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"x"))
    return made.getvalue()


FILE, DIR = tarfile.REGTYPE, tarfile.DIRTYPE
ARCHIVES: dict[str, Members] = {
    "a file, then the same as a folder": [(f"{COURSE}/a", FILE, b""), (f"{COURSE}/a/b", FILE, b"")],
    "a folder, then the same as a file": [(f"{COURSE}/a/b", FILE, b""), (f"{COURSE}/a", FILE, b"")],
    "an empty folder, then a file": [(f"{COURSE}/a", DIR, b""), (f"{COURSE}/a", FILE, b"")],
    "a file, then an empty folder": [(f"{COURSE}/a", FILE, b""), (f"{COURSE}/a", DIR, b"")],
    "a name twice": [(f"{COURSE}/a", FILE, b""), (f"{COURSE}/a", FILE, b"")],
    "a name twice by a point": [(f"{COURSE}/a", FILE, b""), (f"./{COURSE}/./a", FILE, b"")],
    "a name with and without the folder": [(f"{COURSE}/a", FILE, b""), ("a", FILE, b"")],
    "a name of 300 characters": [(f"{COURSE}/{'n' * 300}", FILE, b"")],
    "a name of 250 letters of two bytes": [(f"{COURSE}/{'ñ' * 250}", FILE, b"")],
    "a path of 6,000 characters": [(f"{COURSE}/{'d/' * 3000}a", FILE, b"")],
    "a header of 2 MB": [(f"{COURSE}/{'d' * 2_000_000}", FILE, b"")],
    "an absolute name": [("/tmp/hostile-owned", FILE, b"")],
    "a name above": [(f"{COURSE}/../../owned", FILE, b"")],
    "a link": [(f"{COURSE}/a", tarfile.SYMTYPE, b"/etc/passwd")],
    "a hard link": [(f"{COURSE}/a", tarfile.LNKTYPE, b"../params.yaml")],
    "a link, then a file through it": [
        (f"{COURSE}/a", tarfile.SYMTYPE, b".."),
        (f"{COURSE}/a/b", FILE, b""),
    ],
    "a pipe": [(f"{COURSE}/a", tarfile.FIFOTYPE, b"")],
    "a device": [(f"{COURSE}/a", tarfile.CHRTYPE, b"")],
    "a file named as the folder": [(COURSE, FILE, b"")],
    "20,000 members": [(f"{COURSE}/{n}", FILE, b"") for n in range(20_000)],
    **{f"a name with {name}": [(f"{COURSE}/../{text}", FILE, b"")] for name, text in EVIL.items()},
}


@cases(KIND, {f"course: {name}": members for name, members in ARCHIVES.items()})
def hostile_archive(place: Place, members: Members) -> None:
    with serving(body(archive(members))) as url:
        place.refused(
            "download", "course", "--into", "into", "--url", url, makes=["into"], says="archive|refused"
        )
    left = [path.name for path in (place / "into").rglob("*")]
    assert not [name for name in left if not name.endswith(".lock")], f"left behind: {left[:5]}"


@case(KIND, "course: names that differ by case or by accents' form are both there, or refused")
def nearly_equal(place: Place) -> None:
    members = [(f"{COURSE}/{name}", FILE, b"") for name in ("a", "A", "\u00f1", "n\u0303")]
    with serving(body(archive(members))) as url:
        place.settled("download", "course", "--into", "into", "--url", url, makes=["into"])


@case(KIND, "course: a bomb of zeros")
def bomb(place: Place) -> None:
    zeros = bz2.compress(bytes(16 * MIB)) * 64
    with serving(body(zeros)) as url:
        place.refused("download", "course", "--into", "into", "--url", url, makes=["into"])


SERVERS: dict[str, Answer] = {
    "an endless 100 Continue": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "an endless 102 Processing": endless(b"", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n", 0.001),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.001),
    "an endless header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536, 0.001),
    "an endless status": endless(b"HTTP/1.1 200 ", b"O" * 65536, 0.001),
    "no HTTP": body(b"", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/0.9": lambda connection: connection.sendall(b"hello\n"),
    "a redirect to itself": body(b"", b"HTTP/1.1 302 Found\r\nLocation: /data/again\r\n"),
    "a redirect to a file": body(b"", b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"),
    "a redirect to nothing": body(b"", b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n"),
    "a redirect of 60 KB": body(b"", b"HTTP/1.1 302 Found\r\nLocation: /" + b"a" * 60_000 + b"\r\n"),
    "a length that is negative": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"
    ),
    "a length that is text": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc"),
    "a length of 5,000 digits": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc"
    ),
    "two lengths": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 9\r\n\r\nabc"
    ),
    "a chunk of text": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc"
    ),
    "a huge chunk": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 4000 + b"\r\nabc"
    ),
    "a page": body(b"<html>hello</html>"),
    "nothing": body(b""),
    "206 without being asked": body(
        gzip.compress(b"1 3\na 1 2 3\n"), b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-9/10\r\n"
    ),
}


@cases(KIND, {f"sbw: {name}": answer for name, answer in SERVERS.items()})
def hostile_server(place: Place, answer: Answer) -> None:
    """Retries are told; the end is one line, and no whole file has the name of the download."""
    with serving(answer) as url:
        place.refused("download", "sbw", "--into", "into", "--url", url, makes=["into"], seconds=100)
    assert not (place / "into" / SBW).exists()


@cases(
    KIND,
    {
        f"sbw: a reason, an address and a tag with {name}": text
        for name, text in EVIL.items()
        if "\n" not in text
    },
)
def reasons(place: Place, text: str) -> None:
    data = text.encode()
    for head in (
        b"HTTP/1.1 404 " + data + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: gopher://" + data + b"\r\n",
        b"HTTP/1.1 403 No\r\nETag: " + data + b"\r\nX-" + data + b": 1\r\n",
    ):
        with serving(body(b"", head)) as url:
            place.refused("download", "sbw", "--into", "into", "--url", url, makes=["into"])
    content = gzip.compress(b"1 3\na 1 2 3\n", mtime=0)
    with serving(body(content, b'HTTP/1.1 200 OK\r\nETag: "' + data + b'"\r\n')) as url:
        place.settled("download", "sbw", "--into", "into", "--url", url, makes=["into"])


DUPLICATES = {
    "a section": lambda text: text + "\nseed: 3\n",
    "a parameter": lambda text: re.sub(r"^(  max_words: .*)$", r"\1\n  max_words: 7", text, flags=re.M),
    "a section's second half": lambda text: text + "\nprepare:\n  max_words: 7\n",
    "a parameter, in braces": lambda text: re.sub(r"^seed: .*", "seed: {a: 1, a: 2}", text, flags=re.M),
    "a parameter, in quotes": lambda text: re.sub(r"^(seed: .*)$", r'\1\n"seed": 4', text, flags=re.M),
    "the same value twice": lambda text: re.sub(r"^(seed: .*)$", r"\1\n\1", text, flags=re.M),
}


@cases(KIND, {f"twice in params.yaml: {name}": change for name, change in DUPLICATES.items()})
def duplicate_keys(place: Place, change: Callable[[str], str]) -> None:
    place.listing()
    good = place.parameters().read_text()
    changed = change(good)
    assert changed != good, "the case is broken"
    place.write("params.yaml", changed)
    place.refused(
        "prepare", says="params.yaml.*(twice|duplicate|two|again)|(twice|duplicate).*params.yaml"
    )


@case(KIND, "twice in a search")
def duplicate_keys_of_a_search(place: Place) -> None:
    place.project()
    text = (place / "experiments/search.yaml").read_text()
    key = re.search(r"^(\w+):", text, re.M)
    assert key
    place.write("experiments/twice.yaml", f"{text}\n{key[1]}: 3\n")
    place.refused("search", "experiments/twice.yaml", says="twice|duplicate")


@case(KIND, "twice in model.json")
def duplicate_keys_of_a_model(place: Place) -> None:
    file = place.models() / "cnn/model.json"
    file.write_text(file.read_text().replace('"temperature"', '"temperature": 9.0,\n  "temperature"', 1))
    place.refused("predict", "--model", "cnn", "word2", says="model.json")


LOCALES = {
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "C": {"LC_ALL": "C"},
    "ASCII streams": {
        "PYTHONIOENCODING": "ascii:strict",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    },
    "Latin-1 streams": {"PYTHONIOENCODING": "latin-1"},
}


@cases(KIND, {f"a locale: {name}": variables for name, variables in LOCALES.items()})
def locales(place: Place, variables: dict[str, str]) -> None:
    place.models()
    place.write("año.csv", "título,otra\nword2 ñandú \U0001f600,ñ\n")
    commands: list[tuple[str, ...]] = [
        ("predict", "word2 ñandú \U0001f600", "--out", "out.csv"),
        ("predict", "--file", "año.csv", "--column", "título", "--out", "out.csv"),
        ("explain", "ñandú word2", "--html", "out.csv"),
    ]
    for command in commands:
        place.done(*command, makes=["out.csv"])
        expected = (place / "out.csv").read_bytes()
        place.done(*command, variables=variables, makes=["out.csv"])
        assert (place / "out.csv").read_bytes() == expected, f"{command[0]}: other bytes"
    plain = place.done("predict", "word2 ñandú").out
    if "PYTHONIOENCODING" not in variables:
        assert place.done("predict", "word2 ñandú", variables=variables).out == plain
    place.settled("predict", "word2 ñandú", "--out-format", "table", variables=variables)
    place.settled("explain", "word2 ñandú \U0001f600", variables=variables)
    place.refused("predict", "--file", "añó.csv", variables=variables, says=r"a.*csv")
    place.refused("predict", "--file", "año.csv", "--column", "títuló", variables=variables)
    place.settled("--help", variables=variables)


@cases(
    KIND,
    {
        "a title": (b"predict", b"word2 \xff\xfe"),
        "a file": (b"predict", b"--file", b"\xff.csv"),
        "a column": (b"predict", b"--file", b"in.csv", b"--column", b"\xff"),
        "an unknown option": (b"predict", b"a", b"--\xff"),
        "an output": (b"sample", b"\xff.csv", b"--rows", b"20"),
    },
)
def arguments_that_are_not_utf8(place: Place, *command: bytes) -> None:
    place.models()
    place.write("in.csv", "title\nword2\n")
    for variables in ({}, LOCALES["C without UTF-8"]):
        made = [os.fsdecode(b"\xff" + ending) for ending in (b".csv", b".croissant.json")]
        before = place.entries()
        done = place.run(*command, variables=variables)
        assert done.code in (0, 1, 2), f"exit code {done.code}: {excerpt(done.err)}"
        place.unchanged(before, made)
