"""Rows to classify, from files of all kinds: each row is there, in order, whatever is wrong with it."""

import csv
import gzip
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titles.listings import rows
from titles.listings.files import CSV, JSON_LINES, LINES, PARQUET, format_of, opened

GOOD = b"id,title\n1,Funda Roja\n"


@pytest.fixture(params=[32_768, 2], ids=["one chunk", "small chunks"], autouse=True)
def chunk_rows(request, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ROWS", request.param)


def read(file, kind, column="title", keep=None):
    """(line, values, title, problem) of each row, and the columns."""
    rows = []
    with opened(file, kind, column, keep) as found:
        for chunk in found.chunks:
            lines = chunk.lines or [0] * len(chunk.titles)
            for place, values in enumerate(zip(*chunk.columns, strict=True)):
                problem = chunk.problems.get(place, "")
                rows.append((lines[place], list(values), chunk.titles[place], problem))
    return found.columns, rows


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", LINES),
        ("a.TXT.gz", LINES),
        ("a.csv", CSV),
        ("a.b.csv.gz", CSV),
        ("a.jsonl", JSON_LINES),
        ("a.ndjson.gz", JSON_LINES),
        ("a.parquet", PARQUET),
    ],
)
def test_an_ending_tells_the_format(tmp_path, name, kind):
    assert format_of(tmp_path / name, "--format") == kind


@pytest.mark.parametrize("name", ["a", "a.gz", "csv", "a.parquet.gz", "a.json"])
def test_another_ending_asks_for_the_format(tmp_path, name):
    with pytest.raises(ValueError, match="--format"):
        format_of(tmp_path / name, "--format")


LINE_ROWS = [
    (1, ["Funda Roja"], "Funda Roja", ""),
    (2, [""], "", "empty title"),
    (3, ["  ñandú\u2028x "], "  ñandú\u2028x ", ""),
    (4, ["caf\\udce9"], "", "not UTF-8"),
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_lines_are_rows(tmp_path, pack):
    text = "\ufeffFunda Roja\n\n  ñandú\u2028x \r\n".encode() + b"caf\xe9"
    assert read(written(tmp_path / "a", pack(text)), LINES) == (["title"], LINE_ROWS)


def test_the_standard_input_is_read_like_a_file(monkeypatch):
    raw = io.BufferedReader(io.BytesIO(gzip.compress(b"Funda Roja\n")))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    assert read(None, LINES) == (["title"], LINE_ROWS[:1])
    with pytest.raises(ValueError, match="Parquet cannot be read from the standard input"):
        read(None, PARQUET)


BROKEN_CSV = {
    "too few fields": (b"2", "wrong number of fields"),
    "too many fields": (b"2,a,b", "wrong number of fields"),
    "text behind a quote": (b'2,"a"b', "broken CSV"),
    "stray quote": (b'2,"a', "broken CSV"),
    "no text": (b"2,", "empty title"),
    "blanks": (b"2,   ", "empty title"),
    "not UTF-8": (b"2,caf\xe9", "not UTF-8"),
    "not UTF-8 beside the title": (b"\xe9,a", "not UTF-8"),
    "a field past all bounds": (b"2," + b"x" * 1024 * 1024 + b"x", "broken CSV"),
}


@pytest.mark.parametrize("broken", BROKEN_CSV)
@pytest.mark.parametrize("before", [0, 300])
def test_a_broken_csv_row_costs_itself_alone(tmp_path, broken, before):
    row, problem = BROKEN_CSV[broken]
    many = b"".join(b"%d,Mesa %d\n" % (n, n) for n in range(before))
    after = b'3,"two\nlines"\n\n4,"Con ""comillas"", y coma"\r\n5,Fin'
    _, rows = read(written(tmp_path / "a.csv", b"id,title\n" + many + row + b"\n" + after), CSV)
    assert [row[:3] for row in rows[:before]] == [
        (n + 2, [str(n), f"Mesa {n}"], f"Mesa {n}") for n in range(before)
    ]
    found, *others = rows[before:]
    assert (found[0], found[2], found[3]) == (before + 2, "", problem)
    assert others == [
        (before + 3, ["3", "two\nlines"], "two\nlines", ""),
        (before + 6, ["4", 'Con "comillas", y coma'], 'Con "comillas", y coma', ""),
        (before + 7, ["5", "Fin"], "Fin", ""),
    ]


def test_a_quote_that_is_never_closed_leaves_the_rows_below_it(tmp_path):
    rows = [b"%d,Mesa %d" % (n, n) for n in range(70_000)]  # more than a field may hold
    rows[7] = b'7,"Mesa 7'
    _, found = read(written(tmp_path / "a.csv", b"id,title\n" + b"\n".join(rows)), CSV)
    assert len(found) == len(rows)
    assert [row[0] for row in found if row[3]] == [9]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=6)] * 2), min_size=1))
def test_what_a_csv_writer_wrote_comes_back(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "title"], *rows])
    assert [tuple(row[1]) for row in read(file, CSV)[1]] == rows


def test_columns_are_chosen_by_name(tmp_path):
    file = written(tmp_path / "a.csv", b"\xef\xbb\xbfid, nombre ,marca\n1,Funda,X\n")
    assert read(file, CSV, "nombre") == (
        ["id", "nombre", "marca"],
        [(2, ["1", "Funda", "X"], "Funda", "")],
    )
    assert read(file, CSV, "nombre", ["marca"])[1] == [(2, ["Funda", "X"], "Funda", "")]
    assert read(file, CSV, "nombre", [])[1] == [(2, ["Funda"], "Funda", "")]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        pytest.param(b"", CSV, "is empty: expected a header with title", id="no header"),
        pytest.param(b"id:title\n1:a\n", CSV, "no column 'title'.*separated by commas", id="colons"),
        pytest.param(b"title,title\na,b\n", CSV, "has the column 'title' twice", id="title twice"),
        pytest.param(b'"a"b\n', CSV, "the header is no CSV", id="broken header"),
        pytest.param(gzip.compress(GOOD * 99)[:-9], CSV, "damaged", id="cut gzip"),
        pytest.param(b"\x1f\x8bxxxxxxxx", LINES, "damaged", id="no gzip"),
        pytest.param(GOOD, JSON_LINES, "no key 'title' in its first 2 lines, but no JSON", id="no JSON"),
        pytest.param(b'{"a":1,"b":2}', JSON_LINES, "but keys a,b; --column", id="other keys"),
        pytest.param(GOOD, PARQUET, "damaged, or no Parquet file", id="no Parquet"),
    ],
)
def test_an_input_that_is_unusable_as_a_whole_is_refused(tmp_path, content, kind, message):
    with pytest.raises(ValueError, match=f"a.x.*{message}"):
        read(written(tmp_path / "a.x", content), kind)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist"):
        read(tmp_path / "nowhere.csv", CSV)
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path, CSV)


@pytest.mark.parametrize("kind", [LINES, JSON_LINES])
def test_no_line_is_no_row(tmp_path, kind):
    assert read(written(tmp_path / "a", b""), kind) == (["title"], [])
    assert read(written(tmp_path / "a.csv", b"title\n"), CSV) == (["title"], [])


JSON_ROWS = {
    b'{"id": 7, "title": "Funda"}': ([7, "Funda"], "Funda", ""),
    b'{"title": "Mesa", "more": 1}': ([None, "Mesa"], "Mesa", ""),
    b'{"id": {"a": [1]}}': ([{"a": [1]}, None], "", "no title"),
    b'{"title": null}': ([None, None], "", "no title"),
    b'{"title": 12}': ([None, 12], "", "title is no text"),
    b'{"title": " "}': ([None, " "], "", "empty title"),
    b'{"title": "cut': ([None, None], "", "broken JSON"),
    b'["Funda"]': ([None, None], "", "broken JSON"),
    b'{"title": "caf\xe9"}': ([None, None], "", "broken JSON"),
    b'{"title": "\\ud800"}': ([None, None], "", "broken JSON"),
    b'{"title": "nul \\u0000"}': ([None, "nul \0"], "nul \0", ""),
}


def test_a_broken_line_of_json_costs_itself_alone(tmp_path):
    file = written(tmp_path / "a.jsonl", b"\n\n".join(JSON_ROWS))  # blank lines are no rows
    columns, rows = read(file, JSON_LINES, keep=["id"])
    assert columns == ["id", "title"]
    assert [row[1:] for row in rows] == list(JSON_ROWS.values())
    assert [row[0] for row in rows] == list(range(1, 2 * len(JSON_ROWS), 2))
    assert read(file, JSON_LINES)[0] == ["id", "title", "more"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_keeps_values_and_their_types(tmp_path, kind):
    titles = pa.array(["Funda", None, "", "Mesa"], pa.string()).cast(kind)
    table = pa.table({"price": [1.5, None, 2.0, 3.0], "title": titles, "tags": [["a"], [], None, ["b"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    with opened(tmp_path / "a.parquet", PARQUET) as found:
        assert found.types == table.schema.types
        assert found.total == 4
    columns, rows = read(tmp_path / "a.parquet", PARQUET)
    assert columns == ["price", "title", "tags"]
    assert rows == [
        (0, [1.5, "Funda", ["a"]], "Funda", ""),
        (0, [None, None, []], "", "no title"),
        (0, [2.0, "", None], "", "empty title"),
        (0, [3.0, "Mesa", ["b"]], "Mesa", ""),
    ]


def test_parquet_without_text_is_refused(tmp_path):
    pq.write_table(pa.table({"title": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="'title' holds int64, not text"):
        read(tmp_path / "a.parquet", PARQUET)


def test_text_in_parquet_that_is_not_utf8_costs_its_row_alone(tmp_path):
    bad = pa.array([b"caf\xe9", b"Mesa"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"title": bad}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", PARQUET)[1] == [
        (0, ["caf\\udce9"], "", "not UTF-8"),
        (0, ["Mesa"], "Mesa", ""),
    ]


def test_long_rows_come_in_small_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_BYTES", 5000)
    long = "x" * 1000
    written(tmp_path / "a.jsonl", (json.dumps({"title": long}) + "\n").encode() * 50)
    written(tmp_path / "a.txt", f"{long}\n".encode() * 50)
    for kind in (JSON_LINES, LINES):
        name = "a.jsonl" if kind == JSON_LINES else "a.txt"
        with opened(tmp_path / name, kind) as found:
            sizes = [len(chunk.titles) for chunk in found.chunks]
        assert sum(sizes) == 50
        assert max(sizes) <= 5
