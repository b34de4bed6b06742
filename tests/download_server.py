"""A web server with the datasets of `titles download`, which can cut, refuse and lie."""

import gzip
import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
from contextlib import contextmanager

import pytest

from titles.datasets import download, transfer

# Does not compress, so that a file of it can be cut anywhere.
NOISE = random.Random(1).randbytes(300_000)
VECTORS = gzip.compress(NOISE, mtime=0)
SBW = "SBW-vectors-300-min5.txt.gz"
COURSE = "meli-challenge-2019"
TEST = b"id,title,language\n0,Funda,spanish\n"
TRAIN = gzip.compress(b"title,label_quality,language,category\nFunda,reliable,spanish,CASES\n", mtime=0)
MIDDLE = len(VECTORS) // 2


def listing(split):
    row = {
        "language": "spanish",
        "label_quality": "reliable",
        "title": f"Funda {split}",
        "category": "CASES",
    }
    return gzip.compress(json.dumps(row | {"split": split}).encode() + b"\n", mtime=0)


LISTINGS = {f"spanish.{split}.jsonl.gz": listing(split) for split in ("train", "validation", "test")}


def member(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def packed(*extra, prefix=COURSE + "/", listings=LISTINGS):
    """The course's archive, with members of our own after its files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:bz2") as tar:
        for info, content in [*(member(prefix + name, data) for name, data in listings.items()), *extra]:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` below /data/ as a web server does, or as the next of `answers` says.

    asked: (name, Range header) of each request. sent: bytes of each body.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {SBW: VECTORS, "train.csv.gz": TRAIN, "test.csv": TEST}
        self.files[COURSE + ".tar.bz2"] = packed()
        self.answers, self.asked, self.sent = [], [], []
        self.ranges, self.etag, self.last_modified = True, '"{}"', None
        self.url = f"http://127.0.0.1:{self.server_port}/data"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.removeprefix("/data/")
        server.asked.append((name, self.headers["Range"]))
        if name not in server.files:
            self.send_error(404)
            return
        answer = server.answers.pop(0) if server.answers else {}
        self.give(server.files[name], **answer)

    def give(
        self, content, stop=None, announced=None, error=None, framing="length", headers=(), hold=None
    ):
        """Answer with `content`, its body cut before the byte `stop` of the whole."""
        if error:
            self.send_error(error)
            return
        etag = self.server.etag and self.server.etag.format(hashlib.md5(content).hexdigest())
        since = self.server.last_modified
        start = 0
        if self.server.ranges and self.headers["Range"] and self.headers["If-Range"] in (etag, since):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        body = content[start:stop]
        self.send_response(206 if start else 200)
        for name, value in [("ETag", etag), ("Last-Modified", since), *headers]:
            if value:
                self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if framing == "length":
            self.send_header(
                "Content-Length", str(len(content) - start if announced is None else announced)
            )
        elif framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            end = b"0\r\n\r\n" if stop is None else b""
            body = b"%x\r\n%s\r\n" % (len(body), body) + end
        self.end_headers()
        self.server.sent.append(len(body))
        self.wfile.write(body)
        if hold:
            self.wfile.flush()
            hold.wait(5)

    def log_message(self, *_):
        pass


@contextmanager
def serving(monkeypatch):
    """A server whose downloads hardly wait between attempts."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer, "PAUSES", (0.01, 0.01))
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def refusal(call):
    with pytest.raises(ValueError, match=r"\w") as caught:
        call()
    return str(caught.value)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def here(tmp_path):
    return tmp_path / "here"


@pytest.fixture
def fetch(server, here):
    """Fetches a dataset from the server into `here`; returns the message."""
    return lambda name="sbw": download.download(name, here, server.url)
