"""The transfer of a file: resumed, refused, cut, damaged."""

import bz2
import gzip
import hashlib
import io
import json
import resource
import socket
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import requests

from download_server import (  # noqa: F401, fixtures among them
    COURSE,
    LISTINGS,
    MIDDLE,
    NOISE,
    SBW,
    TEST,
    VECTORS,
    Handler,
    fetch,
    here,
    names,
    packed,
    refusal,
    server,
    serving,
)
from titles import cli
from titles.datasets import download, transfer
from titles.datasets.public import DATASETS

pytestmark = pytest.mark.pipeline  # real servers on loopback


def test_a_part_that_is_whole_is_not_fetched_again_though_its_length_was_not_announced(
    server, fetch, here
):
    server.answers = [{"stop": MIDDLE}] * 4
    refusal(fetch)
    state = here / (SBW + ".part.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"size": None}))
    (here / (SBW + ".part")).write_bytes(VECTORS)
    before = sum(server.sent)
    fetch()
    assert sum(server.sent) == before
    assert (here / SBW).read_bytes() == VECTORS


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


def test_a_redirect_from_https_to_http_is_refused(monkeypatch):
    asked = []

    def get(session, address, **_):
        asked.append(address)
        answer = requests.Response()
        answer.url, answer.status_code, answer.raw = address, 302, io.BytesIO()
        answer.headers["Location"] = "/y" if len(asked) == 1 else "http://host/x"
        return answer

    monkeypatch.setattr(requests.Session, "get", get)
    told = refusal(partial(transfer._asked, requests.Session(), "https://host/x", {}))
    assert "leads to http://host/x, expected an https address" in told
    assert asked == ["https://host/x", "https://host/y"]


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
