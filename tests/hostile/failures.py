"""Every failure is one line and an exit code; TITLES_DEBUG=1 shows more."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from hostile.harness import MIB, Place, case, cases, excerpt, small_disk
from hostile.numba_caches import cut, empty, garbage, zeros
from hostile.special import device

KIND = "failures"


def absent(path: Path) -> None:
    path.unlink()


def twice(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def carriage(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


FILES = ("model.json", "labels.txt", "vocabulary.tsv", "golden.json", "weights.safetensors")


@cases(
    KIND,
    {
        f"a model's {name}, {damage.__name__}": (name, damage)
        for name in FILES
        for damage in (
            cut,
            empty,
            zeros,
            garbage,
            absent,
            twice,
            *((carriage,) if name in FILES[1:3] else ()),
        )
    },
)
def damaged_model(place: Place, name: str, damage: Callable[[Path], None]) -> None:
    file = place.models() / "cnn" / name
    damage(file)
    place.refused("predict", "--model", "cnn", "word2", says="cnn")


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, body = {}, b""
    for name, (kind, shape, data) in tensors.items():
        header[name] = {
            "dtype": kind,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def tensors(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {
        name: (each["dtype"], each["shape"], body[slice(*each["data_offsets"])])
        for name, each in header.items()
        if name != "__metadata__"
    }


SHAPES: dict[str, tuple[str, Callable[[str, list[int], bytes], tuple[str, list[int], bytes]]]] = {
    "vectors of rank 3": ("embedding.matrix_VD", lambda kind, shape, data: (kind, [*shape, 1], data)),
    "vectors of rank 1": ("embedding.matrix_VD", lambda kind, shape, data: (kind, [len(data)], data)),
    "a number for vectors": ("embedding.matrix_VD", lambda kind, shape, data: (kind, [], data[:1])),
    "no vectors": ("embedding.matrix_VD", lambda kind, shape, data: (kind, [0, shape[1]], b"")),
    "vectors of dimension 0": (
        "embedding.matrix_VD",
        lambda kind, shape, data: (kind, [shape[0], 0], b""),
    ),
    "vectors turned over": ("embedding.matrix_VD", lambda kind, shape, data: (kind, shape[::-1], data)),
    "n-grams of rank 3": ("embedding.grams_RD", lambda kind, shape, data: (kind, [1, *shape], data)),
    "a number for n-grams": ("embedding.grams_RD", lambda kind, shape, data: (kind, [], data[:1])),
    "scales of rank 2": (
        "embedding.matrix_VD.scale",
        lambda kind, shape, data: (kind, [*shape, 1], data),
    ),
    "a number for scales": ("embedding.matrix_VD.scale", lambda kind, shape, data: (kind, [], data[:2])),
    "too few scales": ("embedding.matrix_VD.scale", lambda kind, shape, data: (kind, [1], data[:2])),
    "scales of NaN": (
        "embedding.matrix_VD.scale",
        lambda kind, shape, data: (kind, shape, b"\xff\x7f" * shape[0]),
    ),
    "vectors as booleans": (
        "embedding.matrix_VD",
        lambda kind, shape, data: ("BOOL", shape, bytes(len(data))),
    ),
    "vectors as unsigned bytes": ("embedding.matrix_VD", lambda kind, shape, data: ("U8", shape, data)),
    "a bias of rank 2": ("output.bias", lambda kind, shape, data: (kind, [1, *shape], data)),
    "a number for a bias": ("output.bias", lambda kind, shape, data: (kind, [], data[:2])),
    "a bias of infinity": (
        "output.bias",
        lambda kind, shape, data: (kind, shape, b"\x00\x7c" * shape[0]),
    ),
    "a bias as integers": ("output.bias", lambda kind, shape, data: ("I16", shape, data)),
}


@cases(KIND, {f"a model with {name}": given for name, given in SHAPES.items()})
def other_shape(place: Place, name: str, change: Callable[..., tuple[str, list[int], bytes]]) -> None:
    file = place.models() / "cnn/weights.safetensors"
    found = tensors(file.read_bytes())
    assert name in found, f"the case is broken: {sorted(found)}"
    found[name] = change(*found[name])
    file.write_bytes(safetensors(found))
    place.refused("predict", "--model", "cnn", "word2", says="cnn")


METRICS: dict[str, tuple[str, bytes]] = {
    "evaluate.json is cut": ("metrics/evaluate.json", b'{"cnn": {'),
    "evaluate.json is a list": ("metrics/evaluate.json", b"[1, 2]"),
    "evaluate.json is a number": ("metrics/evaluate.json", b"0.9"),
    "evaluate.json is empty": ("metrics/evaluate.json", b""),
    "evaluate.json has text for scores": (
        "metrics/evaluate.json",
        b'{"cnn": "good", "mlp": null, "average": []}',
    ),
    "details.json is deep": ("metrics/details.json", b"[" * 100_000),
    "details.json has other types": ("metrics/details.json", b'{"cnn": [], "mlp": 3, "average": "x"}'),
    "details.json has long numbers": ("metrics/details.json", b'{"cnn": ' + b"9" * 6000 + b"}"),
    "details.json is not UTF-8": ("metrics/details.json", b"\xff\xfe{}"),
    "details.json has NaN": ("metrics/details.json", b'{"average": {"balanced_accuracy": NaN}}'),
    "prepare.json is a list": ("metrics/prepare.json", b"[]"),
    "a curve is a dictionary": ("plots/cnn.json", b"{}"),
    "a curve has texts": ("plots/cnn.json", b'[{"step": "x", "validation_balanced_accuracy": "y"}]'),
    "dvc.lock is cut": ("dvc.lock", b"schema: '2.0'\nstages:\n  prepare: ["),
    "dvc.lock is a list": ("dvc.lock", b"- 1\n"),
    "dvc.lock has other types": (
        "dvc.lock",
        b"schema: '2.0'\nstages: {prepare: 3, evaluate: {outs: x}}\n",
    ),
    "params.yaml is a list": ("params.yaml", b"- 1\n"),
}


@cases(KIND, {f"report: {name}": given for name, given in METRICS.items()})
def damaged_metrics(place: Place, name: str, content: bytes) -> None:
    """What is damaged is named in one line, or left out with a warning; main stays comparable."""
    place.project()
    assert (place / name).is_file(), "the case is broken: no such file"
    place.write(name, content)
    made = ["report.html", "report.md"]
    place.settled("report", "main", "workspace", makes=made)
    place.settled("seeds")
    before = place.entries()
    done = place.run("gate", "main", "workspace")
    assert done.code in (0, 3), f"gate ends with {done.code}: {excerpt(done.err)}"
    place.unchanged(before)


@case(KIND, "report: predictions that are garbage")
def damaged_predictions(place: Place) -> None:
    place.project()
    found = [path for path in (place / "predictions").rglob("*") if path.is_file()]
    assert found
    for path in found:
        path.unlink()
        path.write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")
    place.settled("report", "main", "workspace", makes=["report.html", "report.md"])


@cases(KIND, {f"{size} MiB of addresses": size for size in (700, 1000, 1500, 2500)})
def little_memory(place: Place, size: int) -> None:
    place.models()
    place.write("in.csv", "title\n" + "word2 word3\n" * 200_000)
    limits = {resource.RLIMIT_AS: size * MIB}
    before = place.entries()
    done = place.run("predict", "--file", "in.csv", "--out", "out.csv", limits=limits, loose=True)
    assert "Traceback" not in done.err, f"a traceback: {excerpt(done.last)}"
    assert done.code in (0, 1), f"exit code {done.code}: {excerpt(done.err)}"
    assert done.code == 0 or "error: " in done.last, excerpt(done.last)
    place.unchanged(before, ["out.csv"] if done.code == 0 else [])


@cases(KIND, {f"prepare with {size} MiB of addresses": size for size in (250, 400, 700)})
def prepare_with_little_memory(place: Place, size: int) -> None:
    place.parameters(max_title_chars=10**6)
    place.write(
        "listing.csv",
        "title,category\n" + "".join(f"palabra{n} x{n % 99},KIND{n % 9}\n" for n in range(300_000)),
    )
    done = place.run("prepare", limits={resource.RLIMIT_AS: size * MIB}, loose=True)
    assert "Traceback" not in done.err, f"a traceback: {excerpt(done.last)}"
    assert done.code in (0, 1), f"exit code {done.code}: {excerpt(done.err)}"
    assert done.code == 0 or not (place / "data/prepared").exists()


def closing(*numbers: int) -> tuple[str, ...]:
    words = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in numbers)
    return "sh", "-c", f'exec "$@" {words}', "sh"


@cases(
    KIND, {"stdin": (0,), "stdout": (1,), "stderr": (2,), "stdout and stderr": (1, 2), "all": (0, 1, 2)}
)
def closed_streams(place: Place, *numbers: int) -> None:
    place.models()
    through = closing(*numbers)
    place.done("predict", "word2", "--out", "out.csv", through=through, makes=["out.csv"])
    assert (place / "out.csv").stat().st_size > 20
    place.settled("predict", "word2", through=through)
    place.settled("--help", through=through)
    place.done("sample", "s.csv", "--rows", "50", through=through, makes=["s.csv"])
    assert len((place / "s.csv").read_text().splitlines()) == 51
    if 0 in numbers:
        before = place.entries()
        done = place.run("predict", through=through)
        assert done.code in (1, 2), f"predict without titles: {done.code}"
        place.unchanged(before)
    if 2 in numbers:
        before = place.entries()
        assert place.run("predict", "--file", "absent.csv", through=through).code == 1
        place.unchanged(before)


@cases(KIND, {kind: kind for kind in ("csv", "jsonl", "parquet", "table")})
def closed_pipe(place: Place, kind: str) -> None:
    place.models()
    place.write("in.csv", "title\n" + "word2 word3\n" * 200_000)
    process = place.start(
        "predict",
        "--file",
        "in.csv",
        "--out-format",
        kind,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read().decode()
    code = process.wait(120)
    assert code in (0, 141, -13), f"exit code {code}: {excerpt(told)}"
    assert told == "", excerpt(told)


@cases(
    KIND,
    {
        "help": ("--help",),
        "predict --help": ("predict", "--help"),
        "seeds": ("seeds",),
        "mlflow find": ("mlflow", "find", "main"),
        "doctor": ("doctor",),
    },
)
def pipe_that_nobody_reads(place: Place, *command: str) -> None:
    if "--help" not in command:
        place.project()
    reading, writing = os.pipe()
    os.close(reading)
    done = place.run(*command, stdout=writing)
    os.close(writing)
    assert done.code in (0, 1, 141), f"exit code {done.code}: {excerpt(done.err)}"
    assert "BrokenPipe" not in done.err, excerpt(done.err)


@cases(
    KIND,
    {
        "predict": ("predict", "word2"),
        "predict jsonl": ("predict", "word2", "--out-format", "jsonl"),
        "predict parquet": ("predict", "word2", "--out-format", "parquet"),
        "predict table": ("predict", "word2", "--out-format", "table"),
        "explain": ("explain", "word2"),
        "--help": ("--help",),
        "predict --help": ("predict", "--help"),
    },
)
def full_output(place: Place, *command: str) -> None:
    place.models()
    with Path("/dev/full").open("wb") as full:
        place.refused(*command, says="space", stdout=full)


@cases(
    KIND,
    {
        "doctor": ("doctor",),
        "seeds": ("seeds",),
        "gate": ("gate", "main", "workspace"),
        "report": ("report", "main", "workspace"),
    },
)
def full_output_of_a_project(place: Place, *command: str) -> None:
    place.project()
    code = 3 if command[0] == "gate" else 1
    with Path("/dev/full").open("wb") as full:
        place.refused(*command, says="space", code=code, stdout=full, makes=["report.html", "report.md"])


@case(KIND, "stderr is full")
def full_errors(place: Place) -> None:
    place.models()
    with Path("/dev/full").open("wb") as full:
        assert place.run("predict", "--file", "absent.csv", stderr=full).code == 1
        place.done("predict", "word2", "--out", "out.csv", stderr=full, makes=["out.csv"])


WRITERS: dict[str, tuple[str, ...]] = {
    "sample": ("sample", "out.csv", "--rows", "5000"),
    "sample, packed": ("sample", "out.csv.gz", "--rows", "5000"),
    "sample's truth": ("sample", "s.csv", "--rows", "5000", "--truth", "t.csv"),
    "predict csv": ("predict", "--file", "in.csv", "--out", "out.csv"),
    "predict csv.gz": ("predict", "--file", "in.csv", "--top", "4", "--out", "out.csv.gz"),
    "predict jsonl": ("predict", "--file", "in.csv", "--out", "out.jsonl"),
    "predict parquet": ("predict", "--file", "in.csv", "--out", "out.parquet"),
    "submit": ("submit", "test.csv", "--out", "out.csv"),
    "explain": ("explain", "word2", "--html", "out.html"),
    "export onnx": ("export", "onnx", "--out", "out"),
    "export mlflow": ("export", "mlflow", "--out", "out"),
    "export hub": ("export", "hub", "--out", "out"),
    "describe": ("describe", "listing.csv"),
    "prepare": ("prepare",),
}


def ready(place: Place) -> None:
    place.models()
    place.parameters()
    place.listing()
    titles = "".join(f"word{n % 12} word{n % 7} x{n * 7919 % 9973}\n" for n in range(8000))
    place.write("in.csv", "title\n" + titles)
    rows = "".join(f"{n},word{n % 12},spanish\n" for n in range(3000))
    place.write("test.csv", "id,title,language\n" + rows)


@cases(KIND, {f"no file over 8 KiB: {name}": command for name, command in WRITERS.items()})
def limited_files(place: Place, *command: str) -> None:
    ready(place)
    size = 2048 if command[0] in ("prepare", "explain", "describe") else 8192
    # Files of the first output may be whole where only the second does not fit.
    place.refused(
        *command,
        says="" if "mlflow" in command else "large",
        limits={resource.RLIMIT_FSIZE: size},
        makes=["s.csv"] if "t.csv" in command else [],
    )


@cases(
    KIND,
    {
        f"a disk of 64 KiB: {name}": WRITERS[name]
        for name in ("sample", "predict csv", "predict parquet", "export onnx")
    },
)
def small_disks(place: Place, *command: str) -> None:
    ready(place)
    with small_disk(place / "disk", 65536):
        (place / "disk/filler").write_bytes(bytes(60_000))
        words = [f"disk/{word}" if word.startswith("out") else word for word in command]
        place.refused(*words, says="space")


@cases(
    KIND,
    {
        name: WRITERS[name]
        for name in (
            "sample",
            "predict parquet",
            "submit",
            "explain",
            "export onnx",
            "export hub",
            "describe",
            "prepare",
        )
    },
)
def read_only_folder(place: Place, *command: str) -> None:
    ready(place)
    place.folder.chmod(0o555)
    try:
        place.refused(*command, says="denied", as_others=True)
    finally:
        place.folder.chmod(0o755)


@cases(KIND, {"data cannot be written": "data", "metrics cannot be written": "metrics"})
def read_only_outputs(place: Place, name: str) -> None:
    ready(place)
    (place / name).mkdir(mode=0o555)
    place.refused(
        "prepare", says="denied", as_others=True, makes=["data/prepared"] if name == "metrics" else []
    )


@cases(
    KIND,
    {
        "predict": ("predict", "--file", "absent.csv"),
        "prepare": ("prepare",),
        "report": ("report", "absent"),
    },
)
def trace_for_those_who_ask(place: Place, *command: str) -> None:
    place.models()
    done = place.run(*command, variables={"TITLES_DEBUG": "1"}, loose=True)
    assert done.code != 0
    assert "Traceback (most recent" in done.err, excerpt(done.err)


@case(KIND, "the current folder is gone")
def without_a_folder(place: Place) -> None:
    models = place.models()
    (place / "gone").mkdir()
    through = ("sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh")
    place.run("predict", "--models", str(models), "word2", through=through)
    (place / "gone").mkdir()
    place.run("prepare", through=through)


@case(KIND, "few open files")
def few_open_files(place: Place) -> None:
    place.models()
    done = place.run("predict", "word2", limits={resource.RLIMIT_NOFILE: 24}, loose=True)
    assert "Traceback" not in done.err, excerpt(done.last)
    assert done.code in (0, 1), f"exit code {done.code}"


@case(KIND, "no temporary folder")
def without_a_temporary_folder(place: Place) -> None:
    place.models()
    place.listing()
    place.parameters()
    variables = {"TMPDIR": str(place / "absent")}
    place.settled("predict", "word2", variables=variables)
    place.settled("prepare", variables=variables, makes=["data", "metrics"])


@case(KIND, "/dev/zero and /dev/full in the place of a listing")
def devices(place: Place) -> None:
    place.models()
    device(place / "full", 7)
    place.refused("predict", "--file", "full", "--format", "csv", seconds=60)
