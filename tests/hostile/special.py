"""Outputs and inputs that are not regular files, and folders in the place of files."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from hostile.harness import Place, SkippedError, case, cases

KIND = "special"


def device(path: Path, minor: int) -> None:
    """/dev/null (3), /dev/zero (5) or /dev/full (7) in our folder, where harm to it harms nobody."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("rb").close()
    except PermissionError:
        raise SkippedError("no devices can be made here") from None


WRITING: dict[str, tuple[str, ...]] = {
    "sample": ("sample", "OUT", "--rows", "30"),
    "predict csv": ("predict", "word2", "--out", "OUT", "--out-format", "csv"),
    "predict jsonl": ("predict", "word2", "--out", "OUT", "--out-format", "jsonl"),
    "submit": ("submit", "test.csv", "--out", "OUT"),
    "explain": ("explain", "word2", "--html", "OUT"),
}
EMPTY = {"sample": 31, "predict csv": 2, "predict jsonl": 1, "submit": 2, "explain": 5}


def ready(place: Place, name: str, out: str) -> list[str]:
    if name != "sample":
        place.models()
        place.write("test.csv", "id,title,language\n0,word2,spanish\n")
    return [out if word == "OUT" else word for word in WRITING[name]]


@cases(KIND, {f"{name} to /dev/null": name for name in WRITING})
def to_null(place: Place, name: str) -> None:
    device(place / "null", 3)
    place.done(*ready(place, name, "null"))
    assert stat.S_ISCHR((place / "null").lstat().st_mode)


@case(KIND, "predict parquet to /dev/null")
def parquet_to_null(place: Place) -> None:
    place.models()
    device(place / "null", 3)
    place.done("predict", "word2", "--out", "null", "--out-format", "parquet")


@case(KIND, "sample to a link to /dev/null")
def to_a_link_to_null(place: Place) -> None:
    (place / "dev").mkdir()
    device(place / "dev/null", 3)
    (place / "out").symlink_to("dev/null")
    place.done("sample", "out", "--rows", "30")


@cases(KIND, {f"{name} to /dev/full": name for name in ("sample", "predict csv", "explain")})
def to_full(place: Place, name: str) -> None:
    device(place / "full", 7)
    place.refused(*ready(place, name, "full"), says="space")


@cases(
    KIND, {f"{name} to {out}": (name, out) for name in WRITING for out in ("/dev/stdout", "/dev/fd/1")}
)
def to_standard_output(place: Place, name: str, out: str) -> None:
    """By a link of ours: a fault would replace the machine's."""
    (place / "stdout").symlink_to(f"/proc/self/fd/{out[-1] if out[-1].isdigit() else 1}")
    command = ready(place, name, "stdout")
    before = place.entries()
    process = place.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out_bytes, told = process.communicate(timeout=180)
    place.unchanged(before)
    assert process.returncode == 0, told[-300:]
    assert len(out_bytes.splitlines()) >= EMPTY[name]


@cases(KIND, {f"{name} to a pipe": name for name in WRITING})
def to_a_pipe(place: Place, name: str) -> None:
    os.mkfifo(place / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((place / "pipe").read_bytes()), daemon=True)
    reader.start()
    try:
        place.done(*ready(place, name, "pipe"))
        reader.join(10)
        assert got, "nothing came through the pipe"
        assert len(got[0].splitlines()) >= EMPTY[name]
    finally:
        if reader.is_alive():  # let go of the reader
            os.close(os.open(place / "pipe", os.O_RDWR | os.O_NONBLOCK))


@cases(KIND, {f"{name} to a socket": name for name in ("sample", "predict csv")})
def to_a_socket(place: Place, name: str) -> None:
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(place.folder)  # a path of a socket is short
        listening.bind("socket")
        os.chdir(here)
        place.refused(*ready(place, name, "socket"))


@cases(KIND, {f"{name} to a folder": name for name in WRITING})
def to_a_folder(place: Place, name: str) -> None:
    place.write("out/mine.txt", "mine")
    place.refused(*ready(place, name, "out"), says="out")


@cases(
    KIND,
    {
        "export onnx to a file": ("export", "onnx", "--out", "file"),
        "export onnx below a file": ("export", "onnx", "--out", "file/out"),
        "sample below a file": ("sample", "file/out.csv", "--rows", "20"),
        "predict below a file": ("predict", "word2", "--out", "file/out.csv"),
        "download into a file": ("download", "sbw", "--into", "file", "--url", "http://127.0.0.1:9"),
        "models in a file": ("predict", "word2", "--models", "file"),
        "models of a file": ("predict", "word2", "--models", "file/models"),
    },
)
def file_for_a_folder(place: Place, *command: str) -> None:
    place.models()
    place.write("file", "mine")
    place.refused(*command, says="file")


@cases(KIND, {"data/prepared is a file": "data/prepared", "data is a file": "data"})
def outputs_of_a_stage(place: Place, name: str) -> None:
    place.parameters()
    place.listing()
    place.write(name, "mine")
    place.refused("prepare", says=name)


@case(KIND, "metrics/prepare.json is a folder")
def metrics_in_a_folder(place: Place) -> None:
    place.parameters()
    place.listing()
    place.write("metrics/prepare.json/mine", "mine")
    place.refused("prepare", says="prepare.json", makes=["data/prepared"])


@cases(KIND, {"params.yaml": "params.yaml", "listing.csv": "listing.csv"})
def folders_for_inputs(place: Place, name: str) -> None:
    place.parameters()
    place.listing()
    (place / name).unlink()
    (place / name).mkdir()
    place.refused("prepare", says=name.partition(".")[0])


@cases(KIND, {name: name for name in ("model.json", "labels.txt", "weights.safetensors", "golden.json")})
def folders_in_a_model(place: Place, name: str) -> None:
    file = place.models() / "cnn" / name
    file.unlink()
    file.mkdir()
    place.refused("predict", "--model", "cnn", "word2", says="cnn")


def pipe_that_is_fed(path: Path, content: bytes) -> Callable[[], None]:
    os.mkfifo(path)
    feeder = threading.Thread(target=path.write_bytes, args=(content,), daemon=True)
    feeder.start()
    return lambda: feeder.join(10)


@case(KIND, "predict from a pipe with a name, and from /dev/stdin")
def from_a_pipe(place: Place) -> None:
    place.models()
    join = pipe_that_is_fed(place / "pipe.csv", b"title\nword2\nword3\n")
    assert len(place.done("predict", "--file", "pipe.csv").out.splitlines()) == 3
    join()
    with place.write("in.txt", "word2\nword3\n").open("rb") as stream:
        done = place.done(
            "predict", "--file", "/dev/stdin", "--format", "csv", "--column", "word2", stdin=stream
        )
    assert len(done.out.splitlines()) == 2


@cases(KIND, {"csv": "csv", "parquet": "parquet", "jsonl": "jsonl"})
def from_null(place: Place, kind: str) -> None:
    place.models()
    place.settled("predict", "--file", "/dev/null", "--format", kind, seconds=60)


@case(KIND, "prepare from a socket")
def from_a_socket(place: Place) -> None:
    place.parameters()
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(place.folder)
        listening.bind("listing.csv")
        os.chdir(here)
        place.refused("prepare", says="listing.csv", seconds=60)
