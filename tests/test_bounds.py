"""Memory stays bounded, whatever a file holds: lines without an end, wide tables, documents that
multiply, numbers beyond all use, models that announce more than they have."""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fuzz import bounded_memory
from saved_models import write_models
from titles.commands import positive
from titles.data import documents, memory
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary, read_labels
from titles.datasets import sample
from titles.embed.vectors import read_pretrained
from titles.experiments.search.space_file import read_space
from titles.experiments.suite.plan import read_plan
from titles.listings import rows, sources
from titles.listings.files import CSV, JSON_LINES, LINES, PARQUET, opened
from titles.models import registry
from titles.models.parts import saved
from titles.models.parts.embedding import WordEmbedding
from titles.models.registry import NETWORKS, load_params, parse_params
from titles.params import Text
from titles.training import run

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
LONG = 64  # MiB of a line: several times what reading it may take


@contextmanager
def at_most(mib: float) -> Iterator[None]:
    """Fail if Python allocates more at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < mib * MIB, f"{peak / MIB:.0f} MiB"


def packed(path: Path, *parts: bytes) -> Path:
    """A gzip file of the parts; LONG stands for as many MiB of one letter."""
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as file:
        for part in parts:
            for _ in range(LONG if part == b"LONG" else 1):
                file.write(packer.compress(b"x" * MIB if part == b"LONG" else part))
        file.write(packer.flush())
    return path


def predicted(file: Path, kind: str) -> list[tuple[str, str]]:
    with opened(file, kind) as found:
        return [
            (title, chunk.problems.get(place, ""))
            for chunk in found.chunks
            for place, title in enumerate(chunk.titles)
        ]


ROWS: dict[str, tuple[str, list[bytes]]] = {
    "csv": (CSV, [b"title,category\nMesa,T\n", b"LONG", b"\nSilla,S\n"]),
    "csv, CRLF": (CSV, [b"title,category\r\nMesa,T\r\n", b"LONG", b"\r\nSilla,S\r\n"]),
    "csv, CR": (CSV, [b"title,category\rMesa,T\r", b"LONG", b"\rSilla,S\r"]),
    "csv, one row": (CSV, [b'title,category\nMesa,T\n"', b"LONG", b'",A\nSilla,S\n']),
    "csv, at the end": (CSV, [b"title,category\nMesa,T\nSilla,S\n", b"LONG"]),
    "json": (JSON_LINES, [b'{"title":"Mesa"}\n{"title":"', b"LONG", b'"}\n{"title":"Silla"}\n']),
    "json, whole and then blank": (
        JSON_LINES,
        [b'{"title":"Mesa"}\n{"title":"a"}', b" " * 2 * MIB, b'\n{"title":"Silla"}\n'],
    ),
    "lines": (LINES, [b"Mesa\n", b"LONG", b"\nSilla\n"]),
}


@pytest.mark.parametrize("case", ROWS)
def test_an_endless_line_is_one_row_with_a_problem(tmp_path, case):
    kind, parts = ROWS[case]
    file = packed(tmp_path / "listings.gz", *parts)
    with at_most(16):
        found = predicted(file, kind)
    assert sorted(found) == [
        ("", "line longer than 1 MiB"),
        ("Mesa", ""),
        ("Silla", ""),
    ]


@pytest.mark.parametrize("case", [case for case in ROWS if case.startswith("csv")])
def test_an_endless_line_is_set_aside_and_counted(tmp_path, case):
    file = packed(tmp_path / "listings.gz", *ROWS[case][1])
    with at_most(16):
        chunks = list(sources.read(file, "all", 1000))
    assert [title for chunk in chunks for title in chunk.titles] == ["Mesa", "Silla"]
    assert [row.reason for chunk in chunks for row in chunk.rejected] == ["line_too_long"]
    assert sum(chunk.rows_read for chunk in chunks) == 3


def test_an_endless_line_of_the_course_is_set_aside(tmp_path):
    for split in ("train", "validation", "test"):
        row = f'{{"title":"Mesa","category":"T","split":"{split}"}}\n'.encode()
        packed(tmp_path / f"spanish.{split}.jsonl.gz", row, b'{"title":"', b"LONG", b'"}\n', row)
    with at_most(16):
        chunks = list(sources.read(tmp_path, "all", 1000))
    assert [len(chunk.titles) for chunk in chunks] == [2, 2, 2]
    assert [row.reason for chunk in chunks for row in chunk.rejected] == ["line_too_long"] * 3


def test_a_quote_before_an_endless_line_hides_rows(tmp_path):
    file = packed(tmp_path / "a.gz", b'title,category\n"Mesa,T\n', b"LONG", b"\nSilla,S\n")
    with at_most(16), pytest.raises(ValueError, match="opened in line 2 is not closed by line 3"):
        list(sources.read(file, "all", 1000))
    assert predicted(file, CSV) == [
        ("", "broken CSV"),
        ("", "line longer than 1 MiB"),
        ("Silla", ""),
    ]


def test_an_endless_header_is_refused(tmp_path):
    file = packed(tmp_path / "a.gz", b"title,category,", b"LONG")
    with at_most(16), pytest.raises(ValueError, match="the header is longer than 1 MiB"):
        list(sources.read(file, "all", 1000))
    file = packed(tmp_path / "b.gz", b'[{"title": "', b"LONG", b'"}]')
    with at_most(16), pytest.raises(ValueError, match="no JSON object"):
        predicted(file, JSON_LINES)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
@pytest.mark.parametrize("size", [MIB - 2, MIB - 1, MIB, MIB + 1, MIB + 8192])
def test_the_limit_of_a_line_is_exact(tmp_path, size, end):
    line = b"y" * (size - len(end)) + end
    (tmp_path / "a").write_bytes(line + b"Silla\n" * bool(end))
    first, *rest = predicted(tmp_path / "a", LINES)
    told = ("", "line longer than 1 MiB")
    assert first == (told if size > MIB else ("y" * (size - len(end)), ""))
    assert rest == [("Silla", "")] * bool(end)


def test_a_pipe_that_never_ends_its_line_is_read_in_bounded_memory(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as out:
            for part in (b"Mesa\n", *[b"x" * MIB] * LONG, b"\nSilla"):
                out.write(part)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with at_most(16):
        found = predicted(pipe, LINES)
    writer.join(60)
    assert [problem for _, problem in found] == ["", "line longer than 1 MiB", ""]


@pytest.mark.parametrize("kind", [CSV, JSON_LINES])
def test_more_columns_than_a_spreadsheet_has_are_refused(tmp_path, kind):
    names = [f"c{n}" for n in range(rows.MOST_COLUMNS)]
    for count, refused in ((len(names) - 1, False), (len(names), True)):
        head = ",".join(["title", *names[:count]])
        keys = ",".join(f'"{name}":1' for name in ["title", *names[:count]])
        text = f"{head}\nMesa" if kind == CSV else f"{{{keys}}}"
        (tmp_path / "a").write_text(f"{text}\n")
        if refused:
            with pytest.raises(ValueError, match=f"{count + 1} columns, more than {count}"):
                predicted(tmp_path / "a", kind)
        else:
            assert len(predicted(tmp_path / "a", kind)) == 1


def test_short_rows_of_a_wide_table_come_in_small_chunks(tmp_path):
    keys = ",".join(f'"{name}":1' for name in ["title", *(f"c{n}" for n in range(4_999))])
    (tmp_path / "a").write_text(f"{{{keys}}}\n" + '{"title":"Mesa"}\n' * 2_000)
    with opened(tmp_path / "a", JSON_LINES) as found:
        sizes = [len(chunk.titles) for chunk in found.chunks]
    assert sum(sizes) == 2_001
    assert len(sizes) > 1


def test_a_category_past_all_names_is_set_aside(tmp_path):
    (tmp_path / "a").write_text(f"title,category\nMesa,T\nSilla,{'S' * 1001}\nSofa,{'S' * 1000}\n")
    (chunk,) = sources.read(tmp_path / "a", "all", 1000)
    assert chunk.titles == ["Mesa", "Sofa"]
    assert [row.reason for row in chunk.rejected] == ["category_too_long"]


def test_long_texts_of_parquet_are_rows_with_a_problem(tmp_path):
    titles = ["Mesa", "x" * 2 * MIB, None, *["y" * (MIB // 2)] * 300, "Silla"]
    table = pa.table({"title": titles, "category": ["A"] * len(titles)})
    pq.write_table(table, tmp_path / "a.parquet")  # each text once, in a dictionary
    assert (tmp_path / "a.parquet").stat().st_size < MIB
    del table
    before = pa.total_allocated_bytes()
    with opened(tmp_path / "a.parquet", PARQUET) as found:
        told = []
        for chunk in found.chunks:
            assert sum(map(len, chunk.titles)) < 2 * rows.CHUNK_BYTES
            assert pa.total_allocated_bytes() - before < 50 * MIB
            told += [chunk.problems.get(place, title[:5]) for place, title in enumerate(chunk.titles)]
    assert told == ["Mesa", "line longer than 1 MiB", "no title", *["yyyyy"] * 300, "Silla"]
    rejected = [
        row for chunk in sources.read(tmp_path / "a.parquet", "all", MIB) for row in chunk.rejected
    ]
    assert [row.reason for row in rejected] == ["line_too_long", "field_is_not_text"]


def test_texts_of_parquet_that_fill_the_memory_are_refused(tmp_path):
    pq.write_table(
        pa.table({"title": ["x" * 70 * MIB], "category": ["A"]}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        compression="zstd",
    )
    for read in (
        lambda: list(sources.read(tmp_path / "a.parquet", "all", 1000)),
        lambda: predicted(tmp_path / "a.parquet", PARQUET),
    ):
        with pytest.raises(ValueError, match="values of column 'title' are too large"):
            read()


# -- documents

ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
HOSTILE_YAML = {
    "aliases that multiply": (ALIASES, "line 6: more than 100,000 values"),
    "aliases of sections": (
        "a: &a {x: 1, y: 2}\n" + "b: &b [" + "*a, " * 40_000 + "]\n",
        "line 2: more than 100,000 values",
    ),
    "an alias of itself": ("a: &a [*a]\n", "the alias a is not defined before"),
    "depth": ("[" * 100_000, "line 1: more than 50 levels"),
    "depth in lines": ("".join(" " * n + "a:\n" for n in range(60)), "line 51: more than 50 levels"),
    "size": ("# " + "x" * MIB, "more than 1,048,576 bytes"),
    "values": ("- \n" * 100_001, "line 100000: more than 100,000 values"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice, first in line 1"),
    "a key twice in a section": (
        "s:\n  a: 1\n  a: 2\n",
        "line 3: the key 'a' stands twice, first in line 2",
    ),
    "a key twice in a list": ("- {a: 1, b: 2, a: 3}\n", "line 1: the key 'a' stands twice"),
    "a key twice, in quotes": ("a: 1\n'a': 2\n", "line 2: the key 'a' stands twice"),
    "a key twice, by its value": ("true: 1\nyes: 2\n", "line 2: the key 'yes' stands twice"),
    "a key twice, by an alias": ("&a a: 1\n*a : 2\n", "line 2: the key 'a' stands twice"),
    "a section twice": ("cnn: {}\nmlp: {}\ncnn: {}\n", "line 3: the key 'cnn' stands twice"),
    "digits": (f"a: {'9' * 100_000}\n", "line 1: the number 99999999999999999999... has 100,000 digits"),
    "sixties": (f"a: {':'.join(['1'] * 1000)}\n", "line 1: the number"),
    "a tag and no number": ('a: !!int ""\n', "a value is not of the kind that its tag names"),
    "a tag and no truth": ("a: !!bool x\n", "a value is not of the kind that its tag names"),
    "a tag and no date": ("? !!timestamp x\n: 1\n", "a value is not of the kind that its tag names"),
    "month 13": ("a: 2001-13-01\n", "month must be in 1..12"),
    "objects": ("a: !!python/object:os.system x\n", "could not determine a constructor"),
    "not UTF-8": ("a: caf\udce9\n", "can't decode byte"),
}


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_hostile_yaml_is_refused_at_once(tmp_path, case):
    text, told = HOSTILE_YAML[case]
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with at_most(30), pytest.raises(ValueError, match=re.escape(told)) as caught:
        load_params(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "case", ["aliases that multiply", "depth", "a key twice", "size", "digits", "a tag and no number"]
)
def test_suites_and_spaces_are_read_with_the_same_bounds(tmp_path, case):
    text, told = HOSTILE_YAML[case]
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        read_plan(file)
    with pytest.raises(ValueError, match=re.escape(told)):
        read_space(file, {}, load_params(ROOT / "params.yaml"))


def test_aliases_and_merged_keys_within_bounds_are_read():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n"
    assert documents.parse_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2},
    }


def test_committed_documents_are_within_bounds():
    for file in [ROOT / "params.yaml", *ROOT.glob("experiments/*.yaml")]:
        assert documents.parse_yaml(documents.read_yaml_text(file))
    for name in ("dvc.yaml", "dvc.lock"):
        assert documents.parse_yaml((ROOT / name).read_bytes())["stages"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "the key 'b' stands twice"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 10_000, "^a number has too many digits$"),
        ("{", "Expecting"),
    ],
)
def test_hostile_json_is_refused(text, told):
    with pytest.raises(documents.DocumentError, match=told):
        documents.parse_json(text)


def test_a_document_of_a_stage_is_read_up_to_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MOST_BYTES", 100)
    (tmp_path / "a").write_text("A\nB\n" + "C" * 97 + "\n")
    for read in (read_labels, Text.read, documents.read_json):
        with pytest.raises(ValueError, match="more than 100 bytes"):
            read(tmp_path / "a")


def test_messages_about_parameters_do_not_grow_with_the_file(tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values |= {f"{'k' * 500}{n}": 1 for n in range(200)}
    values["cnn"]["filter_lengths"] = ["x" * 100_000] * 1000
    values["seed"] = "y" * 100_000
    values["embed"]["window"] = {"z" * 1000: 1}
    with pytest.raises(ValueError, match=r"and 1[0-9]* more$") as caught:
        parse_params(values)
    assert len(str(caught.value)) < 20_000


# -- numbers


# Those of fields with a validator of their own have other names.
_OF_NUMBERS = {"maximum", "exclusiveMaximum", "le", "lt"}
_LARGEST = {"integer": _OF_NUMBERS, "number": _OF_NUMBERS, "array": {"maxItems", "maxLength"}}


def _numbers(model, path=()):
    """The JSON schema of each number of a schema, by dotted name."""
    schema = model.model_json_schema()

    def walked(part, name):
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        for key, each in part.get("properties", {}).items():
            yield from walked(each, (*name, key))
        for each in [*part.get("anyOf", []), *([part["items"]] if "items" in part else [])]:
            yield from walked(each, name)
        if part.get("type") in ("integer", "number", "array"):
            yield ".".join(name), part

    return list(walked(schema, ()))


def test_every_number_of_the_parameters_has_a_largest_value():
    found = _numbers(registry._schema())
    assert len(found) > 60
    unbounded = [name for name, part in found if not _LARGEST[part["type"]] & part.keys()]
    assert unbounded == []


@pytest.mark.parametrize("value", [10**18, 10**30, 1e308, "1e308", "inf"])
def test_numbers_beyond_all_use_are_refused(value):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = {name for name, _ in _numbers(registry._schema())}
    for name in sorted(names):
        section, _, key = name.rpartition(".")
        changed = copy.deepcopy(values)
        place = changed[section] if section else changed
        place[key] = [value] if isinstance(place[key], list) else value
        with pytest.raises(ValueError, match=re.escape(name)):
            parse_params(changed)


@pytest.mark.parametrize("text", ["0", "-1", "1" + "0" * 30, "9" * 5000, "1e3", "", "٣", "1000000001"])
def test_numbers_of_the_command_line_are_bounded(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match="is not an integer from 1 to 1000000000"
    ) as caught:
        positive(text)
    assert len(str(caught.value)) < 100
    assert positive("1000000000") == 10**9


def test_more_rows_of_a_sample_than_anyone_wants_are_refused():
    with pytest.raises(ValueError, match="at most 1,000,000,000"):
        sample.generate(10**30, 0)


# -- models and memory


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("cnn", {"fc_size": 60_000, "filter_count": 60_000}, "filters"),
        ("cnn", {"fc_size": 10**12}, "fc_size: Input should be less than or equal to 65536"),
        ("cnn", {"filter_lengths": [*range(1, 65)]}, "filters"),
        ("mlp", {"hidden_layers": [65_536] * 20}, "hidden"),
        ("mlp", {"hidden_layers": [1] * 10**5}, "hidden_layers: "),
        ("mlp", {"dropout": 1e308}, "dropout: "),
    ],
)
def test_a_model_that_announces_more_weights_than_it_has_takes_no_memory(tmp_path, name, change, told):
    folder = write_models(tmp_path / "models") / name
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["settings"] |= change
    path.write_text(json.dumps(description))
    with bounded_memory(), pytest.raises(ValueError, match=f"weights do not fit: .*{told}"):
        saved.read(folder, NETWORKS)


def test_a_model_json_with_a_key_twice_is_refused(tmp_path):
    folder = write_models(tmp_path / "models") / "mlp"
    path = folder / "model.json"
    path.write_text(path.read_text().replace("{", '{"temperature": 2,', 1))
    with pytest.raises(ValueError, match=r"model.json is damaged.*'temperature' stands twice"):
        saved.read(folder, NETWORKS)


def test_tables_and_layers_past_the_memory_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    with pytest.raises(ValueError, match=r"subword_buckets: 1000000\) need .* this machine has"):
        WordEmbedding(
            torch.zeros(3, 4),
            torch.zeros(3, dtype=torch.bool),
            False,
            VocabularySubwords(Subwords(3, 4, 1_000_000), ["<pad>", "<unk>", "mesa"]),
        )
    words = Vocabulary(["<pad>", "<unk>", "mesa"], [0, 0, 9])
    with pytest.raises(ValueError, match=r"word vectors \(embed.dimension: 1000000\) need"):
        read_pretrained(Path("none"), words, 1_000_000, 0, str)
    embedding = WordEmbedding(torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool), False)
    settings = {"leading_words": 0, "hidden_layers": [1000, 1000], "dropout": 0.0}
    planned = NETWORKS["mlp"].planned(embedding, 3, settings)
    with pytest.raises(ValueError, match="the layers of mlp with their gradients and moments need"):
        run._check_memory("mlp", planned)


def test_the_memory_of_this_machine_is_known():
    assert 1 << 28 < memory.available() < 1 << 50


def test_vectors_on_an_endless_line_are_refused(tmp_path):
    file = packed(tmp_path / "vectors.gz", b"2 3\nmesa 1 2 3\n", b"LONG", b" 1 2 3\n")
    words = Vocabulary(["<pad>", "<unk>", "mesa"], [0, 0, 9])
    with at_most(30), pytest.raises(ValueError, match="line 3 is longer than 1 MiB"):
        read_pretrained(file, words, 3, 0, str.lower)
