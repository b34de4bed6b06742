"""Columns of Parquet that predict carries along: all types, with the most extreme values of each."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from titles.listings import sources
from titles.listings.files import CSV, JSON_LINES, PARQUET, opened
from titles.predict.classifier import Ranked
from titles.predict.files import Predicted, writer

INT32, INT64 = [-(2**31), 2**31 - 1, 0, None], [-(2**63), 2**63 - 1, 0, None]
BAD = [b"caf\xe9", b"\x00", b"", None]
STARTS = [0, 1, 2, 3, 4]
ZONES = [None, "UTC", "America/Sao_Paulo", "Nowhere/City", "+05:30", "-23:59", "+99:99", "UTC+3", "\n"]
COLUMNS = {}


def add(values, kind, name=None):
    COLUMNS[name or str(kind)] = pa.array(values, kind)


def add_viewed(kind, name=None):
    small = kind.bit_width == 32
    column = pa.array(INT32 if small else INT64, pa.int32() if small else pa.int64()).view(kind)
    COLUMNS[name or str(kind)] = column
    return column


COLUMNS["null"] = pa.nulls(4)
add([True, False, None, True], pa.bool_())
for bits in (8, 16, 32, 64):
    add([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, None], getattr(pa, f"int{bits}")())
    add([0, 2**bits - 1, 1, None], getattr(pa, f"uint{bits}")())
add([np.float16(65504), np.float16("nan"), np.float16("-inf"), None], pa.float16())
add([0.1, 1e-45, float("nan"), None], pa.float32())
add([float("inf"), 5e-324, -0.0, None], pa.float64())
for places in (pa.decimal32(9, 9), pa.decimal64(18, 0), pa.decimal128(38, 38), pa.decimal256(76, 0)):
    most, least = (decimal.Decimal((s, (9,) * places.precision, -places.scale)) for s in (0, 1))
    add([most, least, decimal.Decimal(0), None], places)
DATES = add_viewed(pa.date32())
add([datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None, None], pa.date64(), "date64 of Python")
COLUMNS["date64"] = pa.array([-864 * 10**16, 864 * 10**16, 0, None], pa.int64()).view(pa.date64())
add_viewed(pa.time32("ms"))
COLUMNS["time32[s]"] = pa.array([-1, 86400, 0, None], pa.int32()).view(pa.time32("s"))
for unit in ("us", "ns"):
    add_viewed(pa.time64(unit))
COLUMNS["nanoseconds"] = pa.array([1, 999, 10**9 + 1, None], pa.int64()).view(pa.time64("ns"))
for unit in ("s", "ms", "us", "ns"):
    add_viewed(pa.duration(unit))
    for zone in ZONES:
        kind = pa.timestamp(unit, zone)
        # Parquet has no seconds: they are written as milliseconds.
        most = 2**53 if unit == "s" else 2**63 - 1
        COLUMNS[str(kind)] = pa.array([-most, most, 0, None], pa.int64()).view(kind)
add([b"\xff\x00ab", b"    ", b"abcd", None], pa.binary(4))
for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
    add(BAD, kind)
for kind in (pa.string(), pa.large_string(), pa.string_view()):
    add(["é", "", "\x00\r\n\x1b", None], kind)
COLUMNS["factor"] = pa.array(["a", None, "b", "a"]).dictionary_encode()
COLUMNS["factor of numbers"] = pa.array([2**63 - 1, None, 0, 1]).dictionary_encode()
COLUMNS["list"] = pa.ListArray.from_arrays(STARTS, DATES)
COLUMNS["large list"] = pa.LargeListArray.from_arrays(STARTS, DATES)
COLUMNS["list view"] = pa.ListViewArray.from_arrays(STARTS[:4], [1] * 4, DATES)
COLUMNS["large list view"] = pa.LargeListViewArray.from_arrays(STARTS[:4], [1] * 4, DATES)
COLUMNS["fixed size list"] = pa.FixedSizeListArray.from_arrays(DATES, 1)
COLUMNS["list of nothing"] = pa.array([[None], [], None, [None, None]], pa.list_(pa.null()))
COLUMNS["list of bytes"] = pa.ListArray.from_arrays(STARTS, pa.array(BAD, pa.binary()))
COLUMNS["struct"] = pa.StructArray.from_arrays(
    [DATES, COLUMNS["timestamp[ns, tz=Nowhere/City]"], COLUMNS["duration[s]"]], ["d", "t", "u"]
)
COLUMNS["names twice"] = pa.StructArray.from_arrays([pa.array([1, 2, 3, 4])] * 2, ["d", "d"])
add([[("a", 1), ("a", 2)], [], None, [("b", None)]], pa.map_(pa.string(), pa.int64()))
COLUMNS["map of dates"] = pa.MapArray.from_arrays(STARTS, DATES.fill_null(1), DATES)
COLUMNS["map of lists"] = pa.MapArray.from_arrays(STARTS, pa.array([[1], [2], [], [3]]), DATES)
COLUMNS["uuid"] = pa.ExtensionArray.from_storage(
    pa.uuid(), pa.array([b"\xff" * 16, b"\0" * 16, b"a" * 16, None], pa.binary(16))
)
COLUMNS["json"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', "[", "", None]))
COLUMNS["bool8"] = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1, 1, None], pa.int8()))
COLUMNS["opaque"] = pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "t", "v"), pa.array(BAD))
COLUMNS["tensor"] = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.int32(), [1, 2]),
    pa.FixedSizeListArray.from_arrays(pa.array(range(8), pa.int32()), 2),
)


def nested(depth):
    column = pa.array([1, 2, 3, 4])
    for _ in range(depth):
        column = pa.ListArray.from_arrays(STARTS, column)
    return column


COLUMNS["90 lists"], COLUMNS["120 lists"] = nested(90), nested(120)


def predicted(tmp_path, column, into, name="v", with_schema=True):
    """The output of a listing of four titles and this column, and the problems that were found."""
    file, out = tmp_path / "in.parquet", tmp_path / f"out.{into}"
    # The schema of Arrow cannot be as deep as that of Parquet.
    table = pa.table({"title": ["Mesa", "Silla", "Funda", "Tapa"], name: column})
    pq.write_table(table, file, store_schema=with_schema)
    with opened(file, PARQUET) as listing, writer(out, into, listing, ["A"], 1) as write:
        for chunk in listing.chunks:
            count = len(chunk.titles)
            ranked = Ranked(np.zeros((count, 1), np.int64), np.ones((count, 1), np.float32))
            told = [chunk.problems.get(place, "") for place in range(count)]
            write(Predicted(1, chunk, ranked, told))
    return file, out, told


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_each_type_is_the_same_in_parquet(tmp_path, name):
    file, out, _ = predicted(tmp_path, COLUMNS[name], PARQUET)
    before, after = pq.read_table(file)["v"], pq.read_table(out)["v"]
    assert after.type == before.type
    assert str(after) == str(before)
    # NaN equals nothing, also where it is kept.
    assert after.equals(before) or "float" in name or "halffloat" in name


@pytest.mark.parametrize("into", [CSV, JSON_LINES])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_each_type_is_written_as_text_without_losing_a_value(tmp_path, name, into):
    _, out, told = predicted(tmp_path, COLUMNS[name], into)
    assert told == [""] * 4
    content = out.read_bytes().decode()
    if into == CSV:
        values = [row["v"] for row in csv.DictReader(io.StringIO(content))]
    else:
        values = [json.loads(line)["v"] for line in content.split("\n")[:-1]]
    # JSON has no NaN and no infinity: they are null, as in lists.
    if "float" in name or name == "double":
        return
    column = COLUMNS[name]
    kept = [
        (scalar, str(value)) for scalar, value in zip(column, values, strict=True) if scalar.is_valid
    ]
    for one, text in kept:
        for other, its in kept:
            assert (text == its) == one.equals(other)


TEXTS = {
    "date32[day]": ["-2147483648 day", "2147483647 day", "1970-01-01", ""],
    "time32[ms]": ["-2147483648 ms", "2147483647 ms", "00:00:00", ""],
    "nanoseconds": ["00:00:00.000000001", "00:00:00.000000999", "00:00:01.000000001", ""],
    "duration[ms]": ["-9223372036854775808 ms", "9223372036854775807 ms", "0:00:00", ""],
    "timestamp[us, tz=Nowhere/City]": [
        *("-28164-12-21 19:59:05.224193Z", "32103-01-10 04:00:54.775807Z"),
        *("1970-01-01 00:00:00+00:00", ""),
    ],
    "timestamp[ns]": ["1677-09-21 00:12:43.145224193", "2262-04-11 23:47:16.854775807", None, ""],
    "names twice": [f'[["d",{n}],["d",{n}]]' for n in (1, 2, 3, 4)],
}


@pytest.mark.parametrize("name", TEXTS)
def test_values_beyond_those_of_python_are_told_in_full(tmp_path, name):
    _, out, _ = predicted(tmp_path, COLUMNS[name], CSV)
    found = [row["v"] for row in csv.DictReader(out.open(encoding="utf-8", newline=""))]
    assert [f for f, t in zip(found, TEXTS[name], strict=True) if t is not None] == list(
        filter(lambda text: text is not None, TEXTS[name])
    )


def test_the_least_number_of_nanoseconds_is_a_time(tmp_path):
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", "America/Sao_Paulo"), pa.duration("ns")):
        column = pa.array([-(2**63), 0, 1, None], pa.int64()).view(kind)
        _, out, _ = predicted(tmp_path, column, CSV)
        first, *_, last = csv.DictReader(out.open(encoding="utf-8", newline=""))
        assert first["v"].startswith(("1677-09-21", "-9223372036854775808 ns"))
        assert last["v"] == ""


@pytest.mark.parametrize("into", [CSV, JSON_LINES, PARQUET])
def test_lists_deeper_than_json_can_be_cost_their_rows(tmp_path, into):
    column = nested(300).take(pa.array([0, None, 1, None]))
    file, out, told = predicted(tmp_path, column, into, with_schema=False)
    assert told == ["unreadable value in column v", ""] * 2
    if into == PARQUET:
        assert pq.read_table(out)["v"].equals(pq.read_table(file)["v"])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("into", [CSV, JSON_LINES, PARQUET])
def test_text_that_is_not_utf8_is_written_out(tmp_path, into, inside):
    column = pa.array(BAD).view(pa.string())
    column = pa.ListArray.from_arrays(STARTS, column) if inside else column
    _, out, told = predicted(tmp_path, column, into)
    assert told == ["" if inside else "not UTF-8", "", "", ""]
    if into == PARQUET:
        value = pq.read_table(out)["v"].to_pylist()[0]
        assert value == (["caf\\xe9"] if inside else "caf\\udce9")
    else:
        assert b"caf" in out.read_bytes()
        out.read_text(encoding="utf-8")


def test_lists_of_fixed_size_that_pyarrow_cannot_read_are_told(tmp_path):
    column = pa.array([[1], None, [2], [3]], pa.list_(pa.int64(), 1))
    with pytest.raises(ValueError, match="lists of fixed size, of which some are missing"):
        predicted(tmp_path, column, PARQUET)


@pytest.mark.parametrize("name", COLUMNS)
def test_prepare_does_not_read_columns_that_it_does_not_use(tmp_path, name):
    table = pa.table({"title": [*"abcd"], "category": [*"ABCD"], "v": COLUMNS[name]})
    pq.write_table(table, tmp_path / "a.parquet")
    (chunk,) = sources.read(tmp_path / "a.parquet", "all", 50)
    assert (chunk.titles, chunk.rejected) == ([*"abcd"], [])
