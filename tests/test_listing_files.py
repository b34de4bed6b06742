"""Rows to classify, from files of all kinds: each row is there, in order, whatever is wrong with it."""

import csv
import datetime
import gzip
import io
import json
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titles.listings import json_reader, rows
from titles.listings.files import CSV, JSON_LINES, LINES, PARQUET, format_of, opened
from titles.listings.names import listed

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
    "a field past all bounds": (b"2," + b"x" * 1024 * 1024 + b"x", "line longer than 1 MiB"),
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
        pytest.param(b'{"a":1,"b":2}', JSON_LINES, "but keys a, b; --column", id="other keys"),
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


NUMBERS = [
    "123456789012345678901234567890",
    "18446744073709551616",
    "-9223372036854775809",
    "-0",
    "9007199254740993",
    "1" * 5000,  # more digits than int() takes
    "0.1000000000000000055511151231257827",
    "12345678901234567.25",
    "199.90",
    "0.00001",
    "0.000012",
    "1e16",
    "1e5",
    "1E+400",
    "-2.5e-400",
    "NaN",
    "-Infinity",
]


@pytest.mark.parametrize("value", ["{}", "[{}]", '{{"a": [1, {}]}}'], ids=["bare", "list", "object"])
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_json_keep_all_their_digits(tmp_path, number, value):
    line = '{"title": "Mesa -0 1.5", "id": ' + value.format(number) + ', "n": 7}\n'
    _, rows = read(written(tmp_path / "a.jsonl", line.encode() * 3), JSON_LINES)
    for _, (title, found, seven), _, problem in rows:
        assert (title, seven, problem) == ("Mesa -0 1.5", 7, "")
        while isinstance(found, list | dict):
            found = found["a"] if isinstance(found, dict) else found[-1]
        # orjson writes nested values.
        nested = value != "{}" and not isinstance(found, json_reader.Number)
        assert (orjson.dumps(found).decode() if nested else str(found)) == number


def test_a_number_is_told_apart_from_equal_ones_in_its_line(tmp_path):
    line = '{"title": "1.5, 1.50", "x": 1.5, "n": {"x": 1.5}, "id": 1.50, "m": [1.5, -0.0, 0.10]}\n'
    _, [row] = read(written(tmp_path / "a.jsonl", line.encode()), JSON_LINES)
    assert [str(value) for value in row[1][1:]] == ["1.5", "{'x': 1.5}", "1.50", "[1.5, -0.0, 0.10]"]


def test_prices_do_not_slow_the_reading_of_json(tmp_path, monkeypatch):
    lines = b'{"title": "Mesa", "price": 19.99, "tags": ["a b", 2.5]}\n' * 600
    monkeypatch.setattr(json_reader, "_record", None)  # Python's json, several times slower
    file = written(tmp_path / "a.jsonl", lines)
    with file.open("rb") as stream:
        defaults = {"title": None, "price": None, "tags": None}
        batches = list(json_reader.rows(rows.Lines(stream, "a"), defaults))
    found = [row for batch in batches for row in batch.rows]
    assert found == [["Mesa", 19.99, ["a b", 2.5]]] * 600


REPEATED = {
    "titles": (b'{"title": "a", "title": "b"}', "title"),
    "equal titles": (b'{"title":"a","title":"a"}', "title"),
    "with an escape": (b'{"title": "a", "t\\u0069tle": "b"}', "title"),
    "beside an address": (b'{"title": "a", "link": "http://b:1", "title": "b"}', "title"),
    "kept": (b'{"title": "a", "o": 1.5, "o": 1.5}', "o"),
    "in an object": (b'{"title": "a", "o": {"k": 1, "k": 2}}', "k"),
    "in a list": (b'{"title": "a", "o": [[{"k": "\\u00e1", "k": 2}]]}', "k"),
    "beside a number": (b'{"title": "a", "o": 1e999, "title": "b"}', "title"),
    "no letters": (b'{"title": "a", "o": {"\\ud83d": 1, "\\ud83d": 2}}', "\\ud83d"),
}


@pytest.mark.parametrize("case", REPEATED)
def test_a_key_that_is_there_twice_costs_its_row(tmp_path, case):
    line, key = REPEATED[case]
    file = written(tmp_path / "a.jsonl", b'{"title": "Mesa", "o": 1}\n' + line + b'\n{"title": "x:y"}\n')
    told = f'JSON with the key "{key}" twice'
    assert [row[2:] for row in read(file, JSON_LINES)[1]] == [("Mesa", ""), ("", told), ("x:y", "")]


@pytest.mark.parametrize(
    "line", [b'{"title": "a", "x": 1, "x": 2}', b'{"title": "a", "x": {"k": 1, "k": 2}}']
)
def test_a_repeated_key_that_is_not_read_does_not_matter(tmp_path, line):
    file = written(tmp_path / "a.jsonl", line)
    assert read(file, JSON_LINES, keep=[])[1] == [(1, ["a"], "a", "")]


def test_a_csv_field_that_is_too_long_says_so(tmp_path):
    half = "x" * (512 * 1024)
    rows = [f'"{half}\n{half}",a', "1,b", f'"{half[1:]}\n{half[1:]}",c']
    file = written(tmp_path / "a.csv", "\n".join(["id,title", *rows]).encode())
    problems = [row[3] for row in read(file, CSV)[1]]
    # A row that is broken costs its first line; the next is then a row of its own.
    assert problems[0] == "a field of 1,048,577 characters, past 1,048,576"
    assert [bool(problem) for problem in problems] == [True, False, False, False]
    assert read(file, CSV, keep=[])[1][-1][2:] == ("c", "")


def test_a_byte_order_mark_before_json_is_no_part_of_it(tmp_path):
    lines = b'\xef\xbb\xbf{"title": "Funda"}\n{"title": "Mesa"}\n'
    rows = [(1, ["Funda"], "Funda", ""), (2, ["Mesa"], "Mesa", "")]
    for content in (lines, gzip.compress(lines)):
        assert read(written(tmp_path / "a.jsonl", content), JSON_LINES) == (["title"], rows)
    twice = read(written(tmp_path / "a.jsonl", lines * 2), JSON_LINES)[1]  # files that were joined
    assert [row[2] for row in twice] == ["Funda", "Mesa"] * 2
    assert read(written(tmp_path / "a.jsonl", b"\xef\xbb\xbf\n"), JSON_LINES) == (["title"], [])
    (row,) = read(written(tmp_path / "a.jsonl", b"\xef\xbb\xbf" * 5000 + lines), JSON_LINES)[1][:1]
    assert row[3] == "broken JSON"


ODD_JSON = {
    "NaN": (b"NaN", ""),
    "infinity": (b"[-Infinity]", ""),
    "not UTF-8": (b'"caf\xe9"', "broken JSON"),
    "half of a surrogate pair": (b'["\\ud83d"]', "broken JSON"),
    "half of a surrogate pair in a key": (b'{"\\ud83d": 1}', "broken JSON"),
    "deeper than can be written": (b"[" * 300 + b"]" * 300, "JSON nested too deeply"),
    "objects deeper than can be written": (b'{"a":' * 300 + b"1" + b"}" * 300, "JSON nested too deeply"),
}


@pytest.mark.parametrize("odd", ODD_JSON)
def test_an_odd_value_of_json_matters_only_where_it_is_read(tmp_path, odd):
    value, problem = ODD_JSON[odd]
    lines = [b'{"title": "Silla"}', b'{"title": "Mesa", "note": ' + value + b"}"]
    file = written(tmp_path / "a.jsonl", b"\n".join(lines * 2))
    assert [row[2:] for row in read(file, JSON_LINES, keep=[])[1]] == [("Silla", ""), ("Mesa", "")] * 2
    rows = read(file, JSON_LINES)[1]
    assert [row[3] for row in rows] == ["", problem] * 2
    assert [row[2] for row in rows] == ["Silla", "" if problem else "Mesa"] * 2


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b"NaN" + b"[" * 100_000])
def test_json_nested_without_end_is_a_broken_row(tmp_path, deep):
    file = written(
        tmp_path / "a.jsonl", b'{"title": "Mesa", "note": ' + deep + b'\n{"title": "Silla"}\n'
    )
    assert [bool(row[3]) for row in read(file, JSON_LINES)[1]] == [True, False]


TEXT_TYPES = [
    *(pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())),
    *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())),
]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_titles_in_parquet_may_be_of_each_type_that_holds_text(tmp_path, kind):
    storage = kind.value_type if pa.types.is_dictionary(kind) else kind
    titles = pa.array([b"Tel\xc3\xa9fono", None, b"caf\xe9", b"Mesa"])
    titles = (
        titles.view(pa.string()).cast(pa.binary())
        if "binary" in str(storage)
        else titles.view(pa.string())
    )
    titles = titles.cast(storage, safe=False)
    titles = titles.dictionary_encode() if pa.types.is_dictionary(kind) else titles
    pq.write_table(pa.table({"title": titles}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", PARQUET)[1] == [
        (0, ["Teléfono"], "Teléfono", ""),
        (0, [None], "", "no title"),
        (0, ["caf\\udce9"], "", "not UTF-8"),
        (0, ["Mesa"], "Mesa", ""),
    ]


def test_a_column_of_titles_without_any_is_no_title_in_each_row(tmp_path):
    pq.write_table(pa.table({"title": pa.nulls(2), "id": [1, 2]}), tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", PARQUET)[1]
    assert rows == [(0, [None, 1], "", "no title"), (0, [None, 2], "", "no title")]


BAD_TEXT = pa.array([b"caf\xe9", b"x"]).view(pa.string())
BEYOND_PYTHON = {
    "date": (pa.array([10**7, 0], pa.date32()), "29349-01-26", datetime.date(1970, 1, 1)),
    "time": (pa.array([2**55, 0], pa.timestamp("ms")), f"{2**55} ms", datetime.datetime(1970, 1, 1)),
    "time before Christ": (
        *(pa.array([-(2**55), 0], pa.timestamp("ms")), f"-{2**55} ms", datetime.datetime(1970, 1, 1)),
    ),
    "duration": (pa.array([2**62, 0], pa.duration("s")), f"{2**62} s", datetime.timedelta(0)),
    "dates in a list": (
        *(pa.array([[0, 10**7], []], pa.list_(pa.date32())),),
        *([datetime.date(1970, 1, 1), "29349-01-26"], []),
    ),
    "text in a list": (pa.ListArray.from_arrays([0, 1, 2], BAD_TEXT), ["caf\\xe9"], ["x"]),
    "text in an object": (
        *(pa.StructArray.from_arrays([BAD_TEXT], ["q"]), {"q": "caf\\xe9"}, {"q": "x"}),
    ),
}


@pytest.mark.parametrize("case", BEYOND_PYTHON)
def test_a_value_of_parquet_beyond_those_of_python_is_text(tmp_path, case):
    column, text, readable = BEYOND_PYTHON[case]
    table = pa.table({"id": [1, 2], "v": column, "title": ["Mesa", "Silla"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", PARQUET)[1] == [
        (0, [1, text, "Mesa"], "Mesa", ""),
        (0, [2, readable, "Silla"], "Silla", ""),
    ]


def test_times_of_an_unknown_zone_are_read_in_utc(tmp_path):
    times = pa.array([0, None], pa.timestamp("us", tz="Nowhere/City"))
    pq.write_table(pa.table({"title": ["Mesa", "Silla"], "at": times}), tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", PARQUET)[1]
    assert [row[1][1] for row in rows] == [datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), None]
    assert [row[3] for row in rows] == ["", ""]


CSV_NAMES = "title,price,,price,,column.3\nMesa,1,2,3,4,5\n"
DISTINCT = ["title", "price", "column.3_", "price.4", "column.5", "column.3"]


def in_csv(path):
    return written(path, CSV_NAMES.encode()), CSV


def in_parquet(path):
    names, values = (line.split(",") for line in CSV_NAMES.split())
    pq.write_table(pa.Table.from_arrays([pa.array([value]) for value in values], names), path)
    return path, PARQUET


@pytest.mark.parametrize("form", [in_csv, in_parquet])
def test_only_columns_that_are_asked_for_need_names_of_their_own(tmp_path, form):
    file, kind = form(tmp_path / "a")
    columns, ((_, values, title, problem),) = read(file, kind)
    assert (columns, values, title, problem) == (DISTINCT, ["Mesa", *"12345"], "Mesa", "")
    assert read(file, kind, keep=["column.3"])[1][0][1] == ["Mesa", "5"]
    assert read(file, kind, keep=["price.4"])[1][0][1] == ["Mesa", "3"]
    with pytest.raises(ValueError, match="has the column 'price' twice"):
        read(file, kind, keep=["price"])
    with pytest.raises(ValueError, match="has the column 'price' twice"):
        read(file, kind, column="price")


def test_names_of_columns_that_are_not_utf8_are_written_out(tmp_path):
    file = written(tmp_path / "a.csv", b"title,a\xf1o,a\xf1o\nMesa,1,2\n")
    assert read(file, CSV)[0] == ["title", "a\\udcf1o", "a\\udcf1o.3"]


def test_parquet_with_a_name_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["Mesa"], "anno": [1]}), file, store_schema=False)
    written(file, file.read_bytes().replace(b"anno", b"a\xf1os"))
    with pytest.raises(ValueError, match=r"a\.parquet: the name of a column is not UTF-8"):
        read(file, PARQUET)


def test_columns_of_parquet_whose_names_begin_alike_are_not_mixed_up(tmp_path):
    table = pa.table({"a.b": ["1"], "title.x": ["2"], "title": ["Mesa"], "a": [{"b": 3}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", PARQUET)[1][0][1] == ["1", "2", "Mesa", {"b": 3}]
    assert read(tmp_path / "a.parquet", PARQUET, keep=["a"])[1][0][1] == ["Mesa", {"b": 3}]
    assert read(tmp_path / "a.parquet", PARQUET, keep=["a.b"])[1][0][1] == ["1", "Mesa"]


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


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a", "b c", "d'e"], "a, b c, d'e"),
        (["a,b", "c"], '"a,b", c'),
        (["a;b", "", " c"], '"a;b", "", " c"'),
        (['say "x", y'], '"say ""x"", y"'),
        (["\x1b[2J", "a\nb"], r"\x1b[2J, a\nb"),
        ([*"abcdefg"], "a, b, c, d, e and 2 more"),
        (["a,b"] * 6, ", ".join(['"a,b"'] * 5) + " and 1 more"),
        ([], ""),
        (["x" * 10**6, "y"], f"{'x' * 199}…, y"),
    ],
)
def test_names_in_a_message_are_told_apart(names, shown):
    assert listed(names, 5) == shown
    if 0 < len(names) < 6 and max(map(len, names)) < 200 and "\x1b" not in names[0]:
        assert next(csv.reader([shown], skipinitialspace=True)) == names


def test_a_column_with_a_comma_is_one_of_the_columns(tmp_path):
    file = tmp_path / "a, b.csv"
    file.write_text('"price, in pesos",name\n1,Mesa\n')
    with (
        pytest.raises(ValueError, match='are "price, in pesos", name; '),
        opened(file, CSV, "title"),
    ):
        pass
