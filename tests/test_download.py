import bz2
import gzip
import hashlib
import http.server
import io
import json
import random
import resource
import socket
import tarfile
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from titles import cli
from titles.data import contract
from titles.datasets import archive, download, transfer
from titles.datasets.public import DATASETS
from titles.listings import sources

pytestmark = pytest.mark.pipeline  # real servers on loopback

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


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer, "PAUSES", (0.01, 0.01))
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetches a dataset from the server into `tmp_path`/here; returns the message."""
    return lambda name="sbw": download.download(name, tmp_path / "here", server.url)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "here"


def refusal(call):
    with pytest.raises(ValueError, match=r"\w") as caught:
        call()
    return str(caught.value)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_comes_whole_and_with_a_record_of_what_it_is(server, fetch, here):
    server.last_modified = "Tue, 01 Oct 2019 00:00:00 GMT"
    told = fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert names(here) == [SBW, SBW + ".download.json"]
    sha256 = hashlib.sha256(VECTORS).hexdigest()
    assert json.loads((here / (SBW + ".download.json")).read_text()) == {
        "address": f"{server.url}/{SBW}",
        "etag": f'"{hashlib.md5(VECTORS).hexdigest()}"',
        "last_modified": "Tue, 01 Oct 2019 00:00:00 GMT",
        "size": len(VECTORS),
        "sha256": sha256,
    }
    assert f"fetched from {server.url}/{SBW}, sha256 {sha256}" in told


def test_a_file_is_on_the_disk_before_it_has_its_name(fetch, here, monkeypatch):
    synced = []
    real = contract.to_disk

    def spy(path):
        real(path)
        synced.append((path.relative_to(here).as_posix(), SBW in names(here)))

    monkeypatch.setattr(contract, "to_disk", spy)
    fetch()
    records = [(SBW + end, False) for end in (".part.json.partial", ".download.json.partial")]
    assert synced == [
        records[0],
        (".", False),
        records[1],
        (".", False),
        (SBW + ".part", False),
        (".", True),
    ]


@pytest.mark.parametrize(
    ("name", "path", "settings"),
    [
        ("course", COURSE, "-S prepare.source={} -S prepare.language=spanish"),
        ("challenge", "train.csv.gz", "-S prepare.source={}"),
        ("sbw", SBW, "-S embed.method=pretrained -S embed.pretrained={} -S embed.dimension=300"),
    ],
)
def test_the_message_names_the_next_commands(fetch, here, name, path, settings):
    lines = fetch(name).splitlines()
    path = here / path
    assert path.exists()
    assert lines[-3:] == ["next:", f"  dvc add {path}", f"  dvc exp run {settings.format(path)}"]


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_second_call_asks_the_server_for_nothing(server, fetch, here, name):
    first = fetch(name)
    before, asked = names(here), len(server.asked)
    second = fetch(name)
    assert (names(here), len(server.asked)) == (before, asked)
    assert second.count("is there and whole, nothing to do") == len(DATASETS[name].files)
    assert second.splitlines()[-3:] == first.splitlines()[-3:]


@pytest.mark.parametrize(
    ("etag", "last_modified"),
    [
        ('"{}"', None),
        (None, "Tue, 01 Oct 2019 00:00:00 GMT"),
        ('W/"{}"', "Tue, 01 Oct 2019 00:00:00 GMT"),
    ],
)
def test_a_cut_transfer_resumes_where_it_was_cut(server, fetch, here, etag, last_modified):
    server.etag, server.last_modified = etag, last_modified
    server.answers = [{"stop": MIDDLE}]
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.asked == [(SBW, None), (SBW, f"bytes={MIDDLE}-")]
    assert sum(server.sent) == len(VECTORS)


def test_a_transfer_cut_too_often_keeps_its_part_and_the_same_command_resumes(server, fetch, here):
    server.answers = [{"stop": 1000}, {"stop": 2000}, {"stop": 3000}]
    told = refusal(fetch)
    assert f"3000 bytes are kept in {here / SBW}.part: the same command resumes there" in told
    assert "the connection ended after 3000 of" in told
    assert f"{server.url}/{SBW}" in told
    assert not (here / SBW).exists()
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.asked[3:] == [(SBW, "bytes=3000-")]


def test_a_part_that_a_killed_process_completed_is_not_asked_for_again(server, fetch, here):
    server.answers = [{"stop": 1000}] * 3
    refusal(fetch)
    (here / (SBW + ".part")).write_bytes(VECTORS)
    asked = len(server.asked)
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert len(server.asked) == asked


def test_a_server_without_ranges_starts_again(server, fetch, here):
    server.ranges = False
    server.answers = [{"stop": MIDDLE}]
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.sent == [MIDDLE, len(VECTORS)]


def test_a_server_that_names_no_version_of_its_file_starts_again(server, fetch, here):
    server.etag = None
    server.answers = [{"stop": MIDDLE}]
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.asked == [(SBW, None), (SBW, None)]


@pytest.mark.parametrize("obeys", [True, False], ids=["If-Range obeyed", "If-Range ignored"])
def test_a_file_that_changed_between_is_fetched_from_its_start(server, fetch, here, obeys):
    server.answers = [{"stop": 1000}] * 3
    refusal(fetch)
    changed = gzip.compress(NOISE[::-1], mtime=0)
    server.files[SBW] = changed
    if not obeys:  # a server that takes the old version for this one
        server.last_modified = f'"{hashlib.md5(VECTORS).hexdigest()}"'
    fetch()
    assert (here / SBW).read_bytes() == changed
    assert server.asked[3] == (SBW, "bytes=1000-")


def test_a_part_from_another_address_is_not_gone_on_with(server, fetch, here):
    server.answers = [{"stop": 1000}] * 3
    refusal(fetch)
    state = here / (SBW + ".part.json")
    state.write_text(state.read_text().replace(server.url, "http://127.0.0.1/other"))
    fetch()
    assert server.asked[3:] == [(SBW, None)]
    assert (here / SBW).read_bytes() == VECTORS


def test_a_body_that_ends_before_its_announced_length_is_not_taken_for_whole(server, fetch, here):
    server.ranges = False
    server.answers = [{"announced": len(VECTORS) + 5}] * 3
    assert f"ended after {len(VECTORS)} of {len(VECTORS) + 5} bytes" in refusal(fetch)
    assert not (here / SBW).exists()


def test_a_body_is_read_up_to_its_announced_length_and_refused_if_that_is_too_short(server, fetch, here):
    server.answers = [{"announced": len(VECTORS) - 5}]
    told = refusal(fetch)
    assert "it ends too early" in told
    assert "name a mirror with --url" in told
    assert names(here) == []


def test_a_connection_that_stays_open_after_the_last_byte_does_no_harm(server, fetch, here, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.2)
    held = threading.Event()
    server.answers = [{"hold": held}]
    fetch()
    held.set()
    assert (here / SBW).read_bytes() == VECTORS
    assert len(server.asked) == 1


def test_a_connection_that_falls_silent_is_given_up_and_resumed(server, fetch, here, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.2)
    held = threading.Event()
    server.answers = [{"stop": MIDDLE, "hold": held}]
    fetch()
    held.set()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.asked[1] == (SBW, f"bytes={MIDDLE}-")


@pytest.mark.parametrize("framing", ["close", "chunked"])
@pytest.mark.parametrize(("name", "path"), [("sbw", SBW), ("course", COURSE)])
def test_without_an_announced_length_the_content_has_to_end(server, fetch, here, framing, name, path):
    size = len(server.files[DATASETS[name].files[0]])
    server.answers = [{"framing": framing, "stop": size - 3}, {"framing": framing}]
    fetch(name)
    assert (here / path).exists()
    assert len(server.asked) == 2
    if framing == "close":  # of a chunk that is cut, nothing may have come
        assert server.asked[1][1] == f"bytes={size - 3}-"


def test_a_file_without_length_that_never_ends_is_refused(server, fetch, here):
    server.files[SBW] = VECTORS[:-3]
    server.answers = [{"framing": "close"}]
    assert "it ends too early" in refusal(fetch)
    assert names(here) == []


def test_a_plain_file_needs_a_length_or_chunks(server, fetch, here):
    server.answers = [{}, {"framing": "close"}]
    assert "does not say how long the file is" in refusal(partial(fetch, "challenge"))
    assert not (here / "test.csv").exists()
    server.answers = [{"framing": "chunked"}]
    fetch("challenge")
    assert (here / "test.csv").read_bytes() == TEST


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        pytest.param(SBW, VECTORS[:-1], "ends too early", id="gzip cut"),
        pytest.param(SBW, VECTORS[:-6] + b"\0" * 6, "CRC check failed", id="gzip of another content"),
        pytest.param(SBW, VECTORS + b"more", "Not a gzipped file", id="gzip with something after it"),
        pytest.param(SBW, b"", "it is empty", id="empty"),
        pytest.param(SBW, b"plain text", "Not a gzipped file", id="no gzip"),
        pytest.param("test.csv", b"\n<!DOCTYPE html>", "it is a web page", id="web page"),
        pytest.param(COURSE + ".tar.bz2", packed()[:-1], "its end mark is missing", id="bzip2 cut"),
        pytest.param(
            COURSE + ".tar.bz2", packed() + b"x", "Invalid data stream", id="bzip2 with something after"
        ),
        pytest.param(
            COURSE + ".tar.bz2", packed() + b"BZ0" * 9, "Invalid", id="bzip2 with a damaged stream"
        ),
        pytest.param(COURSE + ".tar.bz2", b"plain text", "Invalid data stream", id="no bzip2"),
    ],
)
def test_damaged_content_of_the_right_length_is_refused(server, fetch, here, file, content, reason):
    server.files[file] = content
    name = next(name for name, dataset in DATASETS.items() if file in dataset.files)
    told = refusal(partial(fetch, name))
    assert reason in told
    assert f"{server.url}/{file}" in told
    assert not [path for path in names(here) if "train.csv.gz" not in path]


def test_bzip2_of_several_streams_is_whole(server, fetch, here):
    tar = bz2.decompress(packed())
    server.files[COURSE + ".tar.bz2"] = bz2.compress(tar[:1000]) + bz2.compress(tar[1000:])
    fetch("course")
    assert names(here / COURSE) == sorted(LISTINGS)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_of_the_server_is_told_at_once_with_the_address(server, fetch, code):
    server.answers = [{"error": code}]
    told = refusal(fetch)
    assert told.startswith(f"{server.url}/{SBW}: the server answers {code} ")
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_passing_problem_of_the_server_is_tried_again(server, fetch, here, code, capfd):
    server.answers = [{"error": code}]
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert f"the server answers {code}" in capfd.readouterr().err


def test_a_lasting_problem_of_the_server_ends_in_an_error(server, fetch):
    server.answers = [{"error": 503}] * 3
    assert f"{server.url}/{SBW}: the server answers 503 Service Unavailable; try the same" in refusal(
        fetch
    )


def test_a_host_that_cannot_be_reached_is_named(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        told = refusal(partial(download.download, "sbw", tmp_path, url))
    assert told.startswith(
        f"{url}/{SBW}: the server cannot be reached (Connection refused); try the same"
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc",
        "host/x",
        "",
        "http://",
        "http://h:port/x",
        "http://h/a b",
        "http://h/ñ",
    ],
)
def test_an_address_of_another_kind_is_refused(tmp_path, url):
    assert "is not an address: " in refusal(partial(download.download, "sbw", tmp_path, url))


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path):
    assert "secret" not in refusal(
        partial(download.download, "sbw", tmp_path, "https://me:secret@host/x")
    )


def test_a_redirect_is_followed_to_a_web_address_only(server, fetch, here, monkeypatch):
    def lead(to):
        def do_GET(handler):
            if handler.path.startswith("/moved/"):
                handler.path = handler.path.replace("/moved/", "/data/")
                original(handler)
                return
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.end_headers()

        monkeypatch.setattr(Handler, "do_GET", do_GET)

    original = Handler.do_GET
    for address in ("ftp://127.0.0.1/x", "file:///etc/passwd"):
        lead(address)
        assert address in refusal(fetch)
    lead(f"/moved/{SBW}")
    server.answers = [{"stop": MIDDLE}]
    fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert server.asked == [(SBW, None), (SBW, f"bytes={MIDDLE}-")]


def test_a_redirect_from_https_to_http_is_refused():
    answer = requests.Response()
    answer.url, answer.status_code = "https://host/x", 302
    answer.headers["Location"] = "http://host/x"
    target = partial(transfer._Session().get_redirect_target, answer)
    assert "expected an https address" in refusal(target)
    answer.headers["Location"] = "/y"
    assert target() == "/y"


def test_a_full_disk_is_told_and_what_came_is_kept(server, fetch, here):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIDDLE, hard))
    try:
        told = refusal(fetch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    part = here / (SBW + ".part")
    assert told.startswith(f"cannot write {part}: File too large. What came is kept")
    assert part.read_bytes() == VECTORS[:MIDDLE]
    fetch()
    assert server.asked[1:] == [(SBW, f"bytes={MIDDLE}-")]
    assert (here / SBW).read_bytes() == VECTORS


def test_an_interrupt_keeps_what_came_and_exits_with_130(server, fetch, here, monkeypatch, capsys):
    server.answers = [{"stop": MIDDLE}]

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=interrupt))
    assert cli.main(["download", "sbw", "--into", str(here), "--url", server.url]) == 130
    assert (here / (SBW + ".part")).read_bytes() == VECTORS[:MIDDLE]
    assert cli.main(["download", "sbw", "--into", str(here), "--url", server.url]) == 0
    assert server.asked[1:] == [(SBW, f"bytes={MIDDLE}-")]


@pytest.mark.parametrize("content", [VECTORS[:-1], VECTORS[:-1] + b"?"], ids=["size", "checksum"])
def test_a_file_that_is_not_what_was_fetched_is_an_error(server, fetch, here, content):
    fetch()
    (here / SBW).write_bytes(content)
    told = refusal(fetch)
    assert "it is not what was fetched. Remove" in told
    assert f"{here / SBW} has" in told
    assert (here / SBW).read_bytes() == content
    assert len(server.asked) == 1


@pytest.mark.parametrize("record", [None, "[]", "{"])
def test_a_file_without_a_good_record_is_left_alone(server, fetch, here, record):
    here.mkdir()
    (here / SBW).write_text("mine")
    if record:
        (here / (SBW + ".download.json")).write_text(record)
    assert ("is damaged" if record else "move it away") in refusal(fetch)
    assert (here / SBW).read_text() == "mine"
    assert not server.asked


def test_two_downloads_into_one_folder_do_not_mix(fetch, here):
    here.mkdir()
    with download._locked(here):
        assert f"another download into {here} is running" in refusal(fetch)
    fetch()


@pytest.mark.parametrize("prefix", [COURSE + "/", "", "./", f"./{COURSE}/"])
def test_the_course_unpacks_to_a_folder_that_prepare_reads(server, fetch, here, prefix):
    folder = member(prefix or "x", kind=tarfile.DIRTYPE)
    server.files[COURSE + ".tar.bz2"] = packed(folder, prefix=prefix)
    fetch("course")
    # The archive and its record are gone.
    assert sorted(path.name for path in here.iterdir()) == [COURSE, COURSE + ".download.json"]
    rows = [
        (chunk.split, title)
        for chunk in sources.read(here / COURSE, "spanish", 100)
        for title in chunk.titles
    ]
    assert rows == [(split, f"Funda {split}") for split in ("train", "validation", "test")]
    record = json.loads((here / (COURSE + ".download.json")).read_text())
    assert record["sha256"] == hashlib.sha256(server.files[COURSE + ".tar.bz2"]).hexdigest()
    assert {name: values["sha256"] for name, values in record["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in LISTINGS.items()
    }


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        pytest.param(member("../evil", b"x"), "'../evil' lies outside", id="above"),
        pytest.param(member(COURSE + "/a/../../evil", b"x"), "lies outside", id="above, later"),
        pytest.param(member("/tmp/titles-evil", b"x"), "lies outside", id="absolute"),
        pytest.param(
            member("evil", kind=tarfile.SYMTYPE, link="/etc"), "neither a plain file", id="symlink"
        ),
        pytest.param(
            member("evil", kind=tarfile.LNKTYPE, link=f"{COURSE}/spanish.test.jsonl.gz"),
            "neither a plain file",
            id="hardlink",
        ),
        pytest.param(member("evil", kind=tarfile.CHRTYPE), "neither a plain file", id="device"),
        pytest.param(member("evil", kind=tarfile.BLKTYPE), "neither a plain file", id="block device"),
        pytest.param(member("evil", kind=tarfile.FIFOTYPE), "neither a plain file", id="pipe"),
        pytest.param(
            member(COURSE, kind=tarfile.SYMTYPE, link=".."), "neither a plain file", id="link as folder"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.XHDTYPE), "header of 70000 bytes", id="pax bomb"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.XGLTYPE), "header of 70000", id="global pax bomb"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.GNUTYPE_LONGNAME), "header of 70000", id="name bomb"
        ),
        pytest.param(member("spanish.test.jsonl.gz", b"x"), "in the way", id="twice"),
        pytest.param(member(COURSE, b"x"), "in the way", id="file for the folder"),
        pytest.param(member("big", b"x" * 9000), "unpacks to more than 9000 bytes", id="bytes"),
    ],
)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(
    server, fetch, here, monkeypatch, extra, reason
):
    monkeypatch.setattr(archive, "MAX_BYTES", 9000)
    server.files[COURSE + ".tar.bz2"] = packed(extra)
    told = refusal(partial(fetch, "course"))
    assert "the archive is refused" in told
    assert reason in told
    assert names(here.parent) == ["here"]
    assert not Path("/tmp/titles-evil").exists()


def test_an_archive_of_too_many_members_is_refused(fetch, here, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    assert "more than 2 members" in refusal(partial(fetch, "course"))
    assert names(here) == []


def test_a_bomb_of_headers_is_refused_in_little_memory(server, fetch, here):
    """tarfile reads a header whole: a few hundred bytes of archive would fill gigabytes of memory."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    packer = bz2.BZ2Compressor()
    archive = packer.compress(header.tobuf(tarfile.GNU_FORMAT))
    for _ in range(32):
        archive += packer.compress(bytes(2**20))
    server.files[COURSE + ".tar.bz2"] = archive + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header of 8589934592 bytes" in refusal(partial(fetch, "course"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB
    assert names(here) == []


def test_headers_one_after_another_without_end_are_refused(server, fetch, here):
    headers = [member("x", b"11 path=a\n\n", kind=tarfile.XHDTYPE)] * 3000
    server.files[COURSE + ".tar.bz2"] = packed(*headers)
    assert "the archive is refused" in refusal(partial(fetch, "course"))
    assert names(here) == []


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        pytest.param(
            packed(listings={"spanish.test.jsonl.gz": b"x"}), "it lacks spanish.train", id="other files"
        ),
        pytest.param(
            bz2.compress(bz2.decompress(packed())[:700]), "unexpected end", id="cut before packing"
        ),
        pytest.param(bz2.compress(b"no tar" * 200), "", id="no tar"),
    ],
)
def test_an_archive_of_something_else_is_refused(server, fetch, here, archive, reason):
    server.files[COURSE + ".tar.bz2"] = archive
    assert reason in refusal(partial(fetch, "course"))
    assert names(here) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_unpacking_that_stops_leaves_nothing_and_goes_on_from_the_archive(
    server, fetch, here, monkeypatch, error
):
    def stop(tar, info, folder, **options):
        (folder / "half").touch()
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(tarfile.TarFile, "extract", stop)
        with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
            fetch("course")
    if caught.type is ValueError:
        assert "No space left on device. The archive is kept" in str(caught.value)
    assert names(here) == [COURSE + ".tar.bz2", COURSE + ".tar.bz2.download.json"]
    fetch("course")
    assert len(server.asked) == 1
    assert names(here / COURSE) == sorted(LISTINGS)


@pytest.mark.parametrize("content", [None, b"other"], ids=["missing", "changed"])
def test_a_course_folder_that_is_not_what_was_fetched_is_an_error(fetch, here, content):
    fetch("course")
    file = here / COURSE / "spanish.train.jsonl.gz"
    file.unlink() if content is None else file.write_bytes(content)
    told = refusal(partial(fetch, "course"))
    assert str(file) in told
    assert f"Remove {here / COURSE} and" in told


def test_the_command_exits_as_the_others_do(server, here, capsys):
    arguments = ["--into", str(here), "--url", server.url]
    assert cli.main(["download", "challenge", *arguments]) == 0
    assert f"dvc add {here}/train.csv.gz" in capsys.readouterr().out
    (here / "test.csv").write_text("other")
    assert cli.main(["download", "challenge", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {here}/test.csv has {{'size': 5, ")
    with pytest.raises(SystemExit) as caught:
        cli.main(["download", "everything"])
    assert caught.value.code == 2


def test_every_dataset_has_an_https_address_and_a_folder_of_the_project():
    for dataset in DATASETS.values():
        assert download._checked(dataset.base).startswith("https://")
        assert str(dataset.folder) in ("data/raw", "data/pretrained")
