"""Inputs without bounds: endless lines, aliases, parameters and layers that no memory holds."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hostile.harness import MEMORY, MIB, Place, case, cases, excerpt
from hostile.special import device

KIND = "bounds"
GIB = 2**30


def sparse(path: Path, head: bytes, size: int = 20 * GIB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(size)


def letters(pack: Callable[[bytes], bytes], head: bytes = b"") -> bytes:
    """Two gigabytes of one line, packed to some megabytes."""
    return pack(head) + pack(b"a" * (16 * MIB)) * 128


def zipped(head: bytes) -> bytes:
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("in.csv", "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(40):
            member.write(b"a" * (32 * MIB))
    return made.getvalue()


ENDLESS: dict[str, tuple[str, Callable[[bytes], bytes], bytes]] = {
    "gzip, its header": ("in.csv.gz", lambda head: letters(gzip.compress, head), b""),
    "gzip, a title": ("in.csv.gz", lambda head: letters(gzip.compress, head), b"title\nword2\n"),
    "gzip, in quotes": ("in.csv.gz", lambda head: letters(gzip.compress, head), b'title\nword2\n"'),
    "gzip, JSON": (
        "in.jsonl.gz",
        lambda head: letters(gzip.compress, head),
        b'{"title": "word2"}\n{"title": "',
    ),
    "gzip, lines": ("in.txt", lambda head: letters(gzip.compress, head), b"word2\n"),
    "bzip2, a title": ("in.csv.bz2", lambda head: letters(bz2.compress, head), b"title\nword2\n"),
    "xz, a title": ("in.csv.xz", lambda head: letters(lzma.compress, head), b"title\nword2\n"),
    "zip, a title": ("in.csv.zip", zipped, b"title\nword2\n"),
}


@cases(KIND, {f"predict an endless line: {name}": given for name, given in ENDLESS.items()})
def endless_line(place: Place, name: str, pack: Callable[[bytes], bytes], head: bytes) -> None:
    place.models()
    place.write(name, pack(head))
    kind = ("--format", "lines") if name == "in.txt" else ()
    place.settled("predict", "--file", name, *kind, "--out", "out.csv", makes=["out.csv"], seconds=90)


@cases(
    KIND,
    {
        "a header": b"",
        "a title": b"title,category\nuno dos,A\n",
        "in quotes": b'title,category\nuno dos,A\n"',
        "no challenge's header": b"title,label_quality,language,category\nuno dos,reliable,spanish,A\n",
    },
)
def endless_source(place: Place, head: bytes) -> None:
    place.parameters(source="listing.csv.gz")
    place.write("listing.csv.gz", letters(gzip.compress, head))
    place.settled("prepare", makes=["data", "metrics"], seconds=90)


@cases(KIND, {"of text": b"title\n" + b"word2\n" * 3000, "of zeros": b"", "of one line": b"a" * 20000})
def sparse_listing(place: Place, head: bytes) -> None:
    place.models()
    sparse(place / "in.csv", head, 3 * GIB)
    place.settled("predict", "--file", "in.csv", "--out", "out.csv", makes=["out.csv"], seconds=90)


@cases(KIND, {kind: kind for kind in ("lines", "csv", "jsonl", "parquet")})
def zeros_without_end(place: Place, kind: str) -> None:
    place.models()
    device(place / "zero", 5)
    place.refused("predict", "--file", "zero", "--format", kind, seconds=60)


@case(KIND, "the standard input is one endless line")
def endless_input(place: Place) -> None:
    """Whoever waits for the end of the line waits in bounded memory."""
    place.models()
    endless = ["sh", "-c", "exec yes word2 | tr -d '\\n'"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, start_new_session=True) as source:
        process = place.start("predict", "--out", "o.csv", stdin=source.stdout, stderr=subprocess.PIPE)
        try:
            told = process.communicate(timeout=40)[1].decode()
            assert process.returncode == 1, f"exit code {process.returncode}: {excerpt(told)}"
            assert "Traceback" not in told, excerpt(told[-200:])
            assert "error: " in told, excerpt(told)
        except subprocess.TimeoutExpired:
            used = psutil.Process(process.pid).memory_info().rss
            assert used < MEMORY, f"{used // MIB} MiB of memory"
        finally:
            os.killpg(source.pid, signal.SIGKILL)
            process.kill()
            process.wait()


FILES = {
    "params.yaml": b"seed: 3 # ",
    "models/cnn/model.json": b'{"format": 6, "a": "',
    "models/cnn/labels.txt": b"BIKES\nCARS\n",
    "models/cnn/vocabulary.tsv": b"",
    "models/cnn/golden.json": b'[{"title": "',
    "models/cnn/weights.safetensors": b"\x40" + bytes(7) + b"{" + b" " * 63,
}


@cases(KIND, {f"{name} of 20 GiB": (name, head) for name, head in FILES.items()})
def sparse_file(place: Place, name: str, head: bytes) -> None:
    place.models()
    place.parameters()
    place.listing()
    sparse(place / name, head)
    command = ("prepare",) if name == "params.yaml" else ("predict", "--model", "cnn", "word2")
    place.refused(*command, says=Path(name).name.partition(".")[0] + "|models/cnn", seconds=60)


@cases(
    KIND,
    {
        name: name
        for name in ("params.yaml", "models/cnn/model.json", "models/cnn/labels.txt", "listing.csv")
    },
)
def link_to_zero(place: Place, name: str) -> None:
    place.models()
    place.parameters()
    place.listing()
    device(place / "zero", 5)
    (place / name).unlink()
    (place / name).symlink_to(place / "zero")
    command = ("predict", "--model", "cnn", "word2") if "cnn" in name else ("prepare",)
    place.refused(*command, seconds=60)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGES = "m0: &m0 {a: 1}\n" + "".join(
    f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
YAML: dict[str, str | bytes] = {
    "aliases that multiply": LAUGHS,
    "aliases that multiply, as a key's value": LAUGHS.replace("a9:", "seed:"),
    "an alias to itself": "seed: &a [*a]\n",
    "merges that multiply": MERGES,
    "lists in lists, 100,000 deep": "seed: " + "[" * 100_000,
    "dictionaries in dictionaries": "".join(" " * n + "a:\n" for n in range(3000)),
    "an integer of 6,000 digits": "seed: " + "9" * 6000,
    "an integer of 100,000 hexadecimal digits": "seed: 0x" + "f" * 100_000,
    "a base of sixty": "seed: " + ":".join(["59"] * 20_000),
    "a value of 3 MB": "seed: " + "x" * 3_000_000,
    "a key of 1 MB": "x" * 1_000_000 + ": 1\n",
    "50,000 unknown keys": "".join(f"key{n}: {n}\n" for n in range(50_000)),
    "an object of Python": "seed: !!python/object/apply:os.system ['touch owned']\n",
    "an unknown tag": "seed: !secret 3\n",
    "binary": "seed: !!binary aGVsbG8=\n",
    "a date that is none": "seed: 2024-99-99\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a list": "- 1\n- 2\n",
    "a number": "3\n",
    "nothing": "",
    "NUL bytes": b"seed: 1\x00\n",
    "not UTF-8": b"seed: \xff\xfe\xfd\n",
    "half a UTF-16": b"\xff\xfes\x00e",
    "a key that is a list": "? [1, 2]\n: 3\n",
    "a set as a key": "? {a: 1}\n: 3\n",
    "an escape sequence as a key": '"\\e[2J": 3\n',
    "a lone surrogate as a value": 'seed: "\\ud800"\n',
}


@cases(KIND, {f"params.yaml: {name}": text for name, text in YAML.items()})
def yaml_bomb(place: Place, text: str | bytes) -> None:
    place.listing()
    place.write("params.yaml", text)
    place.refused("prepare", says="params.yaml", seconds=60)


@cases(
    KIND,
    {
        name: YAML[name]
        for name in (
            "aliases that multiply",
            "lists in lists, 100,000 deep",
            "an alias to itself",
            "a key of 1 MB",
            "merges that multiply",
            "not UTF-8",
        )
    },
)
def yaml_bomb_of_a_search(place: Place, text: str | bytes) -> None:
    place.project()
    place.write("experiments/hostile.yaml", text)
    place.refused("search", "experiments/hostile.yaml", says="hostile.yaml", seconds=60)
    place.refused("pruebas", "experiments/hostile.yaml", says="hostile.yaml", seconds=60)


HUGE: dict[str, tuple[str, str]] = {
    "filter_count": ("filter_count", "1000000000000"),
    "fc_size": ("fc_size", "1000000000000"),
    "heads": ("heads", "1000000000000"),
    "filter_lengths": ("filter_lengths", "[2, 1000000000000]"),
    "hidden_layers, wide": ("hidden_layers", "[1000000000000]"),
    "hidden_layers, many": ("hidden_layers", "[" + ", ".join(["8"] * 100_000) + "]"),
    "leading_words": ("leading_words", "1000000000000"),
    "dimension": ("dimension", "1000000000000"),
    "subword_buckets": ("subword_buckets", "100000000000000"),
    "max_words": ("max_words", "1000000000000000000000"),
    "max_title_chars": ("max_title_chars", "1" + "0" * 30),
    "epochs": ("epochs", "1" + "0" * 30),
    "threads": ("threads", "1000000000"),
    "bootstrap_samples": ("bootstrap_samples", "1" + "0" * 15),
    "min_rows": ("min_rows", "1" + "0" * 30),
    "min_steps": ("min_steps", "1" + "0" * 30),
}


@cases(KIND, {f"a huge {name}": given for name, given in HUGE.items()})
def huge_parameter(place: Place, key: str, value: str) -> None:
    """Refused before any work starts; data of any size need no limit of rows per category."""
    place.listing()
    text = place.parameters().read_text()
    lines = [f"  {key}: {value}" if line.startswith(f"  {key}:") else line for line in text.splitlines()]
    assert lines != text.splitlines(), "the case is broken: no such parameter"
    place.write("params.yaml", "\n".join(lines) + "\n")
    if key == "min_rows":
        place.refused("prepare", seconds=60)
    else:
        place.refused("prepare", says=key, seconds=60)


def settings(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda model: model["settings"].update(changes)


def top(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda model: model.update(changes)


def subwords(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda model: model["subwords"].update(changes)


def text(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda model: model["text"].update(changes)


MODEL: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "fc_size of 10^9": ("cnn", settings(fc_size=10**9)),
    "fc_size of 10^30": ("cnn", settings(fc_size=10**30)),
    "filter_count of 10^9": ("cnn", settings(filter_count=10**9)),
    "a filter of 10^9 words": ("cnn", settings(filter_lengths=[10**9])),
    "100,000 filters": ("cnn", settings(filter_lengths=list(range(1, 100_001)))),
    "a negative size": ("cnn", settings(fc_size=-5)),
    "a size of text": ("cnn", settings(fc_size="x" * 100_000)),
    "a fractional size": ("cnn", settings(fc_size=9.5)),
    "an unknown setting of 1 MB": ("cnn", settings(**{"x" * 1_000_000: 1})),
    "100,000 layers": ("mlp", settings(hidden_layers=[8] * 100_000)),
    "a layer of 10^12": ("mlp", settings(hidden_layers=[10**12])),
    "leading_words of 10^12": ("mlp", settings(leading_words=10**12)),
    "10^12 buckets": ("cnn", subwords(buckets=10**12)),
    "n-grams of 10^9 letters": ("cnn", subwords(longest=10**9)),
    "n-grams of no letter": ("cnn", subwords(shortest=-1)),
    "max_words of 10^18": ("cnn", text(max_words=10**18)),
    "max_title_chars of 10^30": ("cnn", text(max_title_chars=10**30)),
    "a temperature that is NaN": ("cnn", top(temperature=float("nan"))),
    "a temperature of 10^400": ("cnn", top(temperature=10**400)),
    "a temperature that is true": ("cnn", top(temperature=True)),
    "a loss that is a list": ("cnn", top(calibrated_loss=[[[]]])),
    "an unknown network of 1 MB": ("cnn", top(architecture="x" * 1_000_000)),
    "a network that is a list": ("cnn", top(architecture=["cnn"])),
    "a format of 1 MB": ("cnn", top(format="x" * 1_000_000)),
    "the other network": ("cnn", top(architecture="mlp")),
    "weights in an unknown form": ("cnn", top(saved_weights="x" * 100_000)),
    "training of 1 MB": ("cnn", top(training="x" * 1_000_000)),
}


@cases(KIND, {f"model.json: {name}": given for name, given in MODEL.items()})
def enormous_model(place: Place, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = place.models() / name / "model.json"
    model = json.loads(file.read_text())
    change(model)
    file.write_text(json.dumps(model))
    harmless = name == "cnn" and any(
        model["text"][key] > 10**12 for key in ("max_words", "max_title_chars")
    )
    (place.settled if harmless else place.refused)("predict", "--model", name, "word2", seconds=60)


MODEL_TEXT = {
    "deep": '{"a": ' * 100_000,
    "deep lists": '{"settings": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "6,000 digits": '{"format": ' + "6" * 6000 + "}",
    "a list": "[6]",
    "null": "null",
    "a string": '"format"',
    "a byte order mark": "\ufeff{}",
    "empty": "",
}


@cases(KIND, {f"model.json is {name}": text for name, text in MODEL_TEXT.items()})
def odd_json(place: Place, text: str) -> None:
    (place.models() / "cnn/model.json").write_text(text)
    place.refused("predict", "--model", "cnn", "word2", says="cnn", seconds=60)


WEIGHTS = {
    "a header of 2^62 bytes": (2**62).to_bytes(8, "little") + b"{}",
    "a header of 99 MB": (99_000_000).to_bytes(8, "little") + b'{"a":' * 1000,
    "a tensor past the end": b"",
}


@cases(KIND, {f"weights: {name}": data for name, data in WEIGHTS.items()})
def odd_weights(place: Place, data: bytes) -> None:
    header = json.dumps(
        {
            "embedding.matrix_VD": {
                "dtype": "F32",
                "shape": [10**9, 300],
                "data_offsets": [0, 12 * 10**11],
            }
        }
    )
    data = data or len(header).to_bytes(8, "little") + header.encode()
    (place.models() / "cnn/weights.safetensors").write_bytes(data)
    place.refused("predict", "--model", "cnn", "word2", says="cnn", seconds=60)


LONG = "x" * 100_000
WIDE = ",".join(f"column{n}" for n in range(50_000))
MESSAGES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a column's long name": (("--file", "in.csv", "--column", LONG), "title\nword2\n", "column"),
    "a long header": (("--file", "in.csv"), f"{LONG * 9}\nword2\n", "title"),
    "a wide header": (("--file", "in.csv"), f"{WIDE}\n1\n", "title"),
    "many columns to keep": (
        ("--file", "in.csv", "--keep", ",".join(["no"] * 30_000)),
        "title\nword2\n",
        "no",
    ),
    "a key of JSON": (("--file", "in.jsonl"), json.dumps({LONG * 9: 1}) + "\n", ""),
    "a file's long name": (("--file", "d/" * 20_000 + "in.csv"), "", "too long"),
    "a format by a long ending": (("--file", "in." + LONG[:240]), "", ""),
    "models with a long name": (("word2", "--models", LONG), "", ""),
}


@cases(KIND, {f"a message about {name}": given for name, given in MESSAGES.items()})
def long_message(place: Place, options: tuple[str, ...], content: str, says: str) -> None:
    place.models()
    for name in ("in.csv", "in.jsonl"):
        place.write(name, content)
    if options[1] == "in.jsonl":
        place.settled("predict", *options, seconds=60)
    else:
        place.refused("predict", *options, says=says, seconds=60)


USAGE: dict[str, tuple[str, ...]] = {
    "--top of 5,000 digits": ("predict", "a", "--top", "9" * 5000),
    "--top in other digits": ("predict", "a", "--top", "\u0665"),
    "--top of zero": ("predict", "a", "--top", "0"),
    "--at-least nan": ("predict", "a", "--at-least", "nan"),
    "--at-least 1e999": ("predict", "a", "--at-least", "1e999"),
    "--at-least of 100 KB": ("predict", "a", "--at-least", LONG),
    "--port": ("serve", "--port", "99999999999999999999"),
    "--port of 5,000 digits": ("serve", "--port", "1" * 5000),
    "an unknown command of 100 KB": (LONG,),
    "an unknown option of 100 KB": ("predict", "a", f"--{LONG}"),
    "an unknown model of 100 KB": ("predict", "a", "--model", LONG),
    "--folds of 5,000 digits": ("audit", "--folds", "9" * 5000),
    "--seed of 5,000 digits": ("sample", "a.csv", "--seed", "9" * 5000),
    "--within nan": ("gate", "a", "b", "--within", "nan"),
}


@cases(KIND, {f"usage: {name}": given for name, given in USAGE.items()})
def bad_usage(place: Place, *command: str) -> None:
    place.refused(*command, code=2, seconds=60)


VALUES: dict[str, tuple[str, ...]] = {
    "--rows of 10^30": ("sample", "a.csv", "--rows", "1" + "0" * 30),
    "--rows of -1": ("sample", "a.csv", "--rows", "-1"),
    "--seed of -1": ("sample", "a.csv", "--seed", "-1"),
    "--folds of 10^30": ("audit", "--folds", "1" + "0" * 30),
    "--folds of 1": ("audit", "--folds", "1"),
    "--top of -3": ("audit", "--top", "-3"),
}


@cases(KIND, {f"a value: {name}": given for name, given in VALUES.items()})
def bad_value(place: Place, *command: str) -> None:
    """By the usage or by an error, as long as it is at once."""
    place.project() if command[0] == "audit" else None
    before = place.entries()
    done = place.run(*command, seconds=60)
    assert done.code in (1, 2), f"exit code {done.code}"
    place.unchanged(before)


@cases(
    KIND,
    {
        "a title of 120 KB": "word2 " * 20_000,
        "of no space": "w" * 120_000,
        "of accents": "a" + "\u0301" * 60_000,
        "of ligatures": "\ufdfa" * 40_000,
    },
)
def long_title(place: Place, title: str) -> None:
    place.models()
    done = place.done("predict", title, seconds=60)
    assert len(done.out.splitlines()) == 2


@case(KIND, "word vectors with a header of 10^12 words")
def vectors(place: Place) -> None:
    place.listing()
    place.parameters(method="pretrained", dimension=3, pretrained="vectors.txt")
    place.write("vectors.txt", "1000000000000 3\nuno 1 2 3\n")
    place.done("prepare", makes=["data", "metrics"])
    place.refused("embed", says="vectors.txt", seconds=60)
    place.write("vectors.txt.gz", letters(gzip.compress, b"10 3\nuno 1 2 3\n"))
    place.parameters(method="pretrained", dimension=3, pretrained="vectors.txt.gz")
    place.refused("embed", says="vectors.txt", seconds=60)
    sparse(place / "vectors.txt", b"10 3\nuno 1 2 3\n")
    place.parameters(method="pretrained", dimension=3, pretrained="vectors.txt")
    place.refused("embed", says="vectors.txt", seconds=60)
    os.truncate(place / "vectors.txt", 0)
