"""Croissant metadata of files of listings, and the rows that mlcroissant reads by it."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imports import SRC
from titles.cli import main
from titles.datasets import croissant
from titles.datasets.sample import generate
from titles.listings import sources

ROOT = SRC.parent
ROWS = [
    ("Funda para celular, roja", "CELLPHONE_COVERS", "spanish", "reliable"),
    ('Tela 5" ñandú', "SCREENS", "portuguese", "unreliable"),
    ("Mesa 12", "TABLES", "spanish", "reliable"),
]
HEADER = ("title", "category", "language", "label_quality")
NEEDED = pytest.mark.skipif(
    find_spec("mlcroissant") is None, reason="NOT RUN: pip install mlcroissant to include it"
)
# Loads each file of metadata in a process of its own, as mlcroissant changes settings of others.
READER = """
import json, sys
import mlcroissant
for path in sys.argv[1:]:
    dataset = mlcroissant.Dataset(jsonld=path)
    problems = list(dataset.metadata.ctx.issues.errors)
    rows = [{k.rpartition("/")[2]: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
            for row in dataset.records("records")]
    print(json.dumps([problems, rows]))
"""


def csv_bytes(header: tuple[str, ...] = HEADER, delimiter: str = ",") -> bytes:
    text = io.StringIO()
    places = [HEADER.index(name.strip()) for name in header]
    rows = [[row[place] for place in places] for row in ROWS]
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue().encode()


def json_bytes() -> bytes:
    return b"".join(
        json.dumps(dict(zip(HEADER, row, strict=True)) | {"price": 3}).encode() + b"\n" for row in ROWS
    )


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__MACOSX/._inner.csv", b"attributes")
        archive.writestr("inner.csv", content)
    return stream.getvalue()


def parquet_bytes(kind: Any) -> bytes:
    stream = io.BytesIO()
    columns = [pa.array([row[place].encode() for row in ROWS]).cast(kind) for place in range(4)]
    pq.write_table(pa.table([*columns, pa.array([1, 2, 3])], names=[*HEADER, "price"]), stream)
    return stream.getvalue()


GOOD: dict[str, bytes] = {
    "plain.csv": csv_bytes(),
    "two.columns.csv": csv_bytes(("category", "title")),
    "spelled.csv": csv_bytes((" title ", "category")),
    "marked.csv": b"\xef\xbb\xbf" + csv_bytes(),
    "blank.csv": b"\n\n" + csv_bytes(),
    "packed.csv.gz": gzip.compress(csv_bytes(), mtime=0),
    "PACKED.CSV.GZ": gzip.compress(csv_bytes(), mtime=0),
    "tabs.tsv": csv_bytes(delimiter="\t"),
    "tabs.packed.csv.gz": gzip.compress(csv_bytes(delimiter="\t"), mtime=0),
    "zipped.csv.zip": zipped(csv_bytes()),
    "lines.jsonl": json_bytes(),
    "lines.ndjson.gz": gzip.compress(json_bytes(), mtime=0),
    "lines.of.no.ending": json_bytes(),
    "text.parquet": parquet_bytes(pa.string()),
    "bytes.parquet": parquet_bytes(pa.binary()),
    "name with spaces & ñ.csv": csv_bytes(),
}


def describe(file: Path) -> dict[str, Any]:
    assert main(["describe", str(file)]) == 0
    found: dict[str, Any] = json.loads(croissant.beside(file).read_text(encoding="utf-8"))
    return found


def columns(described: dict[str, Any]) -> dict[str, str]:
    (records,) = described["recordSet"]
    assert {field["dataType"] for field in records["field"]} == {"sc:Text"}
    return {f["name"]: f["source"]["extract"]["column"] for f in records["field"]}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_is_named_with_its_hash_size_and_columns(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(GOOD[name])
    described = describe(file)
    whole = described["distribution"][0]
    assert whole["contentUrl"] == name
    assert whole["sha256"] == hashlib.sha256(GOOD[name]).hexdigest()
    assert whole["contentSize"] == f"{len(GOOD[name])} B"
    wanted = {"two.columns.csv": ["category", "title"], "spelled.csv": ["title", "category"]}
    assert list(columns(described)) == wanted.get(name, list(HEADER))
    assert columns(described)["title"] == (" title " if name == "spelled.csv" else "title")
    first = croissant.beside(file).read_bytes()
    os.utime(file, (1, 1))
    describe(file)
    assert croissant.beside(file).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, croissant.beside(file).name]
    )


def test_texts_that_stand_there_stay_unless_others_are_given(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(GOOD["two.columns.csv"])
    assert main(["describe", str(file), "--name", "mine", "--description", "Of my own."]) == 0
    first = croissant.beside(file).read_bytes()
    assert describe(file)["description"] == "Of my own."
    assert croissant.beside(file).read_bytes() == first
    assert main(["describe", str(file), "--description", "Another."]) == 0
    assert [describe(file)[key] for key in ("name", "description")] == ["mine", "Another."]


@pytest.mark.parametrize(
    "before",
    [
        "no JSON",
        "[]",
        "{}",
        '{"name": "n", "description": "d"}',
        '{"name": "n", "description": "d", "distribution": []}',
        '{"name": "n", "description": "d", "distribution": [{"contentUrl": "a.jsonl"}]}',
        '{"name": 1, "description": "d", "distribution": [{"contentUrl": "a.csv"}]}',
    ],
)
def test_texts_of_something_else_are_not_kept(before: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(GOOD["two.columns.csv"])
    croissant.beside(file).write_text(before)
    described = describe(file)
    assert described["name"] == "a"
    assert described["description"].startswith("Titles of marketplace listings")


@NEEDED
def test_mlcroissant_reads_the_rows_that_prepare_reads(tmp_path: Path) -> None:
    paths = []
    for number, (name, content) in enumerate(GOOD.items()):
        file = tmp_path / str(number) / name
        file.parent.mkdir()
        file.write_bytes(content)
        describe(file)
        paths.append(croissant.beside(file))
    environment = os.environ | {"CROISSANT_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", READER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, check=True)
    told = list(map(json.loads, done.stdout.splitlines()))
    for (problems, rows), (name, path) in zip(told, zip(GOOD, paths, strict=True), strict=True):
        assert problems == []
        names = list(columns(json.loads(path.read_text(encoding="utf-8"))))
        assert rows == [{key: row[HEADER.index(key)] for key in names} for row in ROWS], name


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("semicolons.csv", csv_bytes(delimiter=";"), "separated by semicolons or bars"),
        ("excel.csv", b"sep=,\r\n" + csv_bytes(), "save it with commas"),
        ("wide.csv", csv_bytes().decode().encode("utf-16"), "UTF-16"),
        ("wide.csv.gz", gzip.compress(csv_bytes().decode().encode("utf-32")), "UTF-32"),
        ("packed.csv.bz2", bz2.compress(csv_bytes()), "neither bzip2 nor xz"),
        ("packed.csv.xz", lzma.compress(csv_bytes()), "neither bzip2 nor xz"),
        ("no_title.csv", b"name,category\na,b\n", "columns name, category are not known"),
        ("no_category.csv", b"title,price\na,b\n", "has titles but no categories"),
        ("twice.csv", b"title,title,category\na,b,c\n", "has the column 'title' twice"),
        ("no_key.jsonl", b'{"title": "a"}\n', "has no key 'category' in its first 1 lines"),
        ("keys.jsonl", b'{"title": "a", "category": "b", "title ": "c"}\n', "two spellings of a key"),
        ("empty.csv", b"", "is empty"),
        ("cut.csv.gz", gzip.compress(csv_bytes() * 9000)[:-20], "is damaged"),
        ("table.zip", b"PK\x03\x04" + bytes(90), "is a zip that is damaged"),
        ("numbers.parquet", None, "holds int64, not text"),
        ("missing.csv", ..., "does not exist"),
        ("folder", Path, "is a folder: describe its files one by one"),
    ],
)
def test_what_cannot_be_described_is_told_in_one_line(
    name: str, content: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    if content is Path:
        file.mkdir()
    elif content is None:
        pq.write_table(pa.table({"title": ["a"], "category": [3]}), file)
    elif content is not ...:
        file.write_bytes(content)
    assert main(["describe", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not croissant.beside(file).exists()


def test_rows_that_prepare_rejects_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.csv"
    file.write_bytes(csv_bytes() + b",SCREENS,spanish,reliable\n")
    describe(file)
    assert "describes 4 rows, 1 of which `prepare` rejects" in capsys.readouterr().err
    file = tmp_path / "some.jsonl"
    file.write_bytes(json_bytes() + b'{"title": "a"}\n{broken\n')
    describe(file)
    assert "describes 5 rows, 2 of which `prepare` rejects" in capsys.readouterr().err


def test_a_name_and_a_description_can_be_given(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_bytes(csv_bytes())
    assert main(["describe", str(file), "--name", "Ours", "--description", "Of 2019."]) == 0
    described = json.loads(croissant.beside(file).read_text(encoding="utf-8"))
    assert (described["name"], described["description"]) == ("Ours", "Of 2019.")
    croissant.beside(file).unlink()
    assert describe(file)["name"] == "some"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sample.csv.gz", "sample"),
        ("a.b.csv", "a.b"),
        ("a.parquet", "a"),
        ("a.PQ", "a"),
        ("a.gz", "a"),
        ("a.txt", "a.txt"),
        (".csv", ".csv"),
        ("csv", "csv"),
        ("a.croissant.json", "a.croissant.json"),
    ],
)
def test_metadata_stands_beside_its_file(name: str, wanted: str) -> None:
    assert croissant.beside(Path("data") / name) == Path("data") / f"{wanted}.croissant.json"


# -- the sample


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.parquet"])
def test_a_sample_comes_with_its_metadata(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    assert main(["sample", str(out), "--rows", "30", "--workers", "1"]) == 0
    described = json.loads((tmp_path / "s.croissant.json").read_text(encoding="utf-8"))
    assert described["distribution"][0]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert "30 rows, 246 categories, seed 2019" in described["description"]
    assert set(columns(described)) == set(HEADER)
    first = (tmp_path / "s.croissant.json").read_bytes()
    assert main(["sample", str(out), "--rows", "30", "--workers", "1"]) == 0
    assert (tmp_path / "s.croissant.json").read_bytes() == first


@NEEDED
def test_mlcroissant_reads_the_sample(tmp_path: Path) -> None:
    out = tmp_path / "s.csv.gz"
    assert main(["sample", str(out), "--rows", "400", "--workers", "1"]) == 0
    command = [sys.executable, "-c", READER, str(croissant.beside(out))]
    environment = os.environ | {"CROISSANT_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, env=environment, text=True, check=True)
    problems, rows = json.loads(done.stdout)
    assert problems == []
    wanted = [row._asdict() for row in generate(400, 2019)]
    assert rows == [{key: row[key] for key in rows[0]} for row in wanted]
    (chunk,) = sources.read(out, "all", 1000)
    assert [row["title"] for row in rows] == chunk.titles


def test_a_sample_to_the_standard_output_or_a_device_has_none(tmp_path: Path) -> None:
    target = tmp_path / "got.csv"
    for out in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/null"):
        with target.open("wb") as stream:
            command = [
                sys.executable,
                "-m",
                "titles.cli",
                "sample",
                out,
                "--rows",
                "5",
                "--workers",
                "1",
            ]
            subprocess.run(command, stdout=stream, cwd=tmp_path, check=True)
        assert len(target.read_text().splitlines()) == (0 if out == "/dev/null" else 6)
        assert [path.name for path in tmp_path.iterdir()] == ["got.csv"]


def test_the_true_categories_do_not_take_the_place_of_the_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "s.csv"), "--rows", "5", "--truth", str(tmp_path / "s.croissant.json")]
    assert main(["sample", *arguments]) == 1
    assert "is the path of the metadata of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_sample_whose_name_leaves_no_room_is_written_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x" * 251 + ".csv")
    assert main(["sample", str(out), "--rows", "5", "--workers", "1"]) == 0
    assert "warning: cannot write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_the_committed_metadata_is_that_of_the_committed_sample() -> None:
    described = json.loads((ROOT / "data/raw/sample.croissant.json").read_text(encoding="utf-8"))
    (whole,) = described["distribution"]
    tracked = (ROOT / "data/raw/sample.csv.gz.dvc").read_text(encoding="utf-8")
    assert f"size: {whole['contentSize'].split()[0]}\n" in tracked
    assert "60,000 rows, 246 categories, seed 2019" in described["description"]
    sample = ROOT / "data/raw/sample.csv.gz"
    if sample.exists():
        assert whole["sha256"] == hashlib.sha256(sample.read_bytes()).hexdigest()
        assert columns(described) == columns(croissant.metadata(sample))
