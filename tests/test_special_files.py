"""Outputs that are no plain files: pipes, devices, descriptors, and what cannot hold one."""

import io
import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from test_files import names, write
from titles.data.files import WriteError, atomic_file, atomic_folder, atomic_stream


@contextmanager
def special(kind, path):
    """A thing of a kind at a path."""
    with ExitStack() as stack:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(os.path.relpath(path))
        elif kind == "block device":
            if os.geteuid():
                pytest.skip("only root makes devices")
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
        elif kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_bytes(b"mine")
        elif kind == "terminal":
            for end in pty.openpty():
                stack.callback(os.close, end)
            path.symlink_to(os.ttyname(end))
        yield


@pytest.mark.parametrize("kind", ["socket", "block device", "folder"])
@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("opened", [atomic_file, atomic_stream])
def test_what_cannot_hold_a_file_is_refused(tmp_path, monkeypatch, kind, link, opened):
    monkeypatch.chdir(tmp_path)
    place = Path("special")
    if link:
        Path("link").symlink_to("special")
    with special(kind, place):
        before = place.lstat()
        word = kind.split()[-1]
        with (
            pytest.raises(WriteError, match=f"cannot write .*: it is a {word}"),
            opened(Path("link") if link else place),
        ):
            pytest.fail("it was opened")
        assert place.lstat() == before


@pytest.mark.parametrize("kind", ["socket", "block device", "pipe", "terminal", "file"])
def test_what_is_no_folder_is_not_replaced_by_one(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    place = Path("special")
    with special(kind, place):
        before = place.lstat()
        with pytest.raises(WriteError, match=r"cannot write .*: it is a "), atomic_folder(place):
            pytest.fail("it was opened")
        assert place.lstat() == before


def test_what_appears_meanwhile_is_not_replaced_by_another_kind(tmp_path):
    with pytest.raises(WriteError, match="it is a folder"):
        write("file", tmp_path / "out", b"new", during=(tmp_path / "out").mkdir)
    (tmp_path / "out").rmdir()
    with pytest.raises(WriteError, match="it is a pipe"):
        write("folder", tmp_path / "out", b"new", during=lambda: os.mkfifo(tmp_path / "out"))
    assert (tmp_path / "out").is_fifo()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("opened", [atomic_file, atomic_stream])
def test_a_pipe_gets_the_content(tmp_path, opened):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with opened(pipe) as out:
        (out.write_bytes if isinstance(out, Path) else out.write)(b"x" * 200_000)
    reader.join(30)
    assert got == [b"x" * 200_000]
    assert pipe.is_fifo()


def test_parquet_goes_through_a_pipe():
    reading, writing = os.pipe()
    table = pa.table({"a": [1, 2, 3]})
    with (
        atomic_stream(Path(f"/dev/fd/{writing}")) as out,
        pq.ParquetWriter(out, table.schema) as parquet,
    ):
        parquet.write_table(table)
    os.close(writing)
    with os.fdopen(reading, "rb") as whole:
        assert pq.read_table(io.BytesIO(whole.read())) == table


def test_a_pipe_gets_nothing_of_what_fails(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with suppress(KeyError), atomic_file(pipe) as partial:
        partial.write_bytes(b"half")
        raise KeyError
    reader.join(30)
    assert got == [b""]


def test_a_stream_is_written_at_once(tmp_path):
    reading, writing = os.pipe()
    with atomic_stream(Path(f"/dev/fd/{writing}")) as out:
        out.write(b"first")
        out.flush()
        assert os.read(reading, 100) == b"first"
    os.close(writing)
    assert os.read(reading, 100) == b""
    os.close(reading)


CODE = """
import sys
from pathlib import Path
from titles.data.files import atomic_file
print("before")
for text in ("one", "two"):
    with atomic_file(Path(sys.argv[1])) as partial:
        partial.write_text(text)
print("after")
"""


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1", "link"]
)
@pytest.mark.parametrize("into", ["pipe", "new", "append"])
def test_the_standard_output_is_continued(tmp_path, name, into):
    (tmp_path / "link").symlink_to("/dev/stdout")
    out = tmp_path / "out"
    out.write_text("old ")
    with ExitStack() as stack:
        modes = {"pipe": subprocess.PIPE, "new": "wb", "append": "ab"}
        stdout = modes[into] if into == "pipe" else stack.enter_context(out.open(modes[into]))
        command = [sys.executable, "-c", CODE, name]
        done = subprocess.run(command, cwd=tmp_path, stdout=stdout, check=True)
    found = done.stdout.decode() if into == "pipe" else out.read_text()
    assert found == "old " * (into == "append") + "before\nonetwoafter\n"
    assert names(tmp_path) == ["link", "out"]


def test_devices_stay_devices(tmp_path):
    with special("terminal", tmp_path / "terminal"):
        write("file", tmp_path / "terminal", b"shown")
        assert (tmp_path / "terminal").is_char_device()
    write("file", Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("number", ["987", "9" * 20, "9" * 5000, "read only"])
def test_a_descriptor_that_cannot_be_written_is_refused(number):
    reading, writing = os.pipe()
    path = Path(f"/dev/fd/{reading if number == 'read only' else number}")
    told = "(reading only|Bad file descriptor|No such file|name too long)"
    with pytest.raises(WriteError, match=f"cannot write /dev/fd/.*{told}"), atomic_file(path):
        pass
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("name", [".", "a/..", "link/"])
def test_a_folder_can_be_named_in_any_way(tmp_path, monkeypatch, name):
    (tmp_path / "here/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    if name == "link/":
        Path("link").symlink_to(".")
    with atomic_folder(Path(name)) as place:
        (place / "new").touch()
    assert names(tmp_path / "here") == ["new"]
    assert names(tmp_path) == ["here"]
