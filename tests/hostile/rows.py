"""Odd values cost their row, not the file."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess

from hostile.harness import Place, SkippedError, case, cases, excerpt

KIND = "rows"
csv.field_size_limit(2**30)

JSON_ROWS: dict[str, bytes] = {
    "deep lists": b'{"title": "word2", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep title": b'{"title": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "1,000 levels": b'{"title": "word2", "x": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
    "unclosed": b'{"title": ' + b"[" * 100_000,
    "5,000 digits": b'{"title": "word2", "x": ' + b"9" * 5000 + b"}",
    "a title of 5,000 digits": b'{"title": ' + b"9" * 5000 + b"}",
    "10,000 digits after the point": b'{"title": "word2", "x": 0.' + b"3" * 10_000 + b"}",
    "an exponent": b'{"title": "word2", "x": 1e999999999}',
    "minus zero and 2^64": b'{"title": "word2", "x": -0, "y": 18446744073709551616, "z": -9e99}',
    "NaN": b'{"title": "word2", "x": NaN}',
    "a lone surrogate": b'{"title": "word2 \\ud800", "x": "\\udfff"}',
    "a surrogate as a key": b'{"title": "word2", "\\ud800": 1}',
    "NUL in the title": b'{"title": "word2\\u0000word3"}',
    "a raw control character": b'{"title": "word2\x01"}',
    "not UTF-8": b'{"title": "word2\xff"}',
    "title twice": b'{"title": "word2", "title": "word3"}',
    "title null": b'{"title": null}',
    "title of an object": b'{"title": {"a": [1]}}',
    "a list": b'["word2"]',
    "a byte order mark": b'\xef\xbb\xbf{"title": "word2"}',
    "two objects": b'{"title": "word2"} {"title": "word3"}',
    "a title of 2 MiB": b'{"title": "' + b"word2 " * 350_000 + b'"}',
    "a value of 3 MiB": b'{"title": "word2", "x": "' + b"y" * 3_000_000 + b'"}',
    "a key of 1 MiB": b'{"title": "word2", "' + b"k" * 2**20 + b'": 1}',
    "an empty key": b'{"title": "word2", "": 1}',
    "an escape sequence": b'{"title": "\\u001b[2Jword2"}',
}
GOOD = b'{"title": "word3", "x": 1}'


@case(KIND, "JSON: each odd row between good ones, kept as CSV, JSON and Parquet")
def odd_json_together(place: Place) -> None:
    place.models()
    place.write(
        "in.jsonl",
        b"\n".join([GOOD, *(row for odd in JSON_ROWS.values() for row in (odd, GOOD))]) + b"\n",
    )
    expected = 2 * len(JSON_ROWS) + 1
    for ending in ("csv", "jsonl"):
        place.done(
            "predict",
            "--file",
            "in.jsonl",
            "--keep",
            "",
            "--out",
            f"out.{ending}",
            makes=[f"out.{ending}"],
        )
    with (place / "out.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == expected, f"{len(found)} rows of {expected}"
    lost = [row["row"] for row in found[::2] if not row["category_1"]]
    assert not lost, f"good rows {lost} have no category"
    assert len((place / "out.jsonl").read_bytes().splitlines()) == expected


@cases(KIND, {f"JSON: {name}": row for name, row in JSON_ROWS.items()})
def odd_json(place: Place, row: bytes) -> None:
    """With all columns kept; the column of the odd row may be left out of what is known."""
    place.models()
    place.write("in.jsonl", b"\n".join([GOOD, row, GOOD, b'{"title": "word4"}']) + b"\n")
    done = place.done(
        "predict", "--file", "in.jsonl", "--top", "1", "--out", "out.jsonl", makes=["out.jsonl"]
    )
    found = [json.loads(line) for line in (place / "out.jsonl").read_text("utf-8").splitlines()]
    assert len(found) == 4, f"{len(found)} rows: {excerpt(done.err)}"
    assert all(found[place]["category_1"] for place in (0, 2, 3)), "a good row has no category"


COURSE: dict[str, bytes] = {
    name: JSON_ROWS[name]
    for name in (
        "deep lists",
        "5,000 digits",
        "a lone surrogate",
        "title null",
        "a list",
        "unclosed",
        "not UTF-8",
    )
}


@case(KIND, "prepare: the course's files with odd rows")
def course(place: Place) -> None:
    def row(number: int) -> bytes:
        values = {"language": "spanish", "label_quality": "reliable", "category": f"KIND{number % 3}"}
        return json.dumps(values | {"title": f"palabra{number} cosa{number % 5}"}).encode()

    for split, size in (("train", 120), ("validation", 30), ("test", 30)):
        start = {"train": 0, "validation": 1000, "test": 2000}[split]
        odd = COURSE.values() if split == "train" else ()
        lines = [*odd, *(row(start + n) for n in range(size))]
        place.write(f"course/spanish.{split}.jsonl", b"\n".join(lines) + b"\n")
    place.parameters(source="course")
    place.done("prepare", makes=["data", "metrics"])
    rows = json.loads((place / "metrics/prepare.json").read_text())
    assert rows["rows"]["read"] == 180 + len(COURSE), rows["rows"]
    assert sum(rows["rejected"].values()) >= len(COURSE), rows["rejected"]


CSV_ROWS: dict[str, bytes] = {
    "a field of 2 MiB": b"word2 " * 350_000 + b",x\n",
    "a quoted field of 2 MiB": b'"' + b"word2\n" * 350_000 + b'",x\n',
    "another field of 5 MiB": b"word2," + b"y" * 5_000_000 + b"\n",
    "NUL bytes": b"word2\x00word3,x\n",
    "10,000 fields": b"word2" + b"," * 10_000 + b"\n",
    "one field": b"word2\n",
    "a lone quote": b'word2 7",x\n',
    "a quote in the middle": b'"word2" word3,x\n',
    "not UTF-8": b"word2 \xff\xfe,x\n",
    "an overlong encoding": b"word2 \xc0\xaf,x\n",
    "a surrogate": b"word2 \xed\xa0\x80,x\n",
    "a lone carriage return": b'"word2\rword3",x\n',
    "a line separator": "word2\u2028word3,x\n".encode(),
    "a form feed": b"word2\x0cword3,x\n",
    "the end of a file": b"word2\x1aword3,x\n",
    "empty": b"\n",
    "commas": b",\n",
}


@cases(KIND, {f"CSV: {name}": row for name, row in CSV_ROWS.items()})
def odd_csv(place: Place, row: bytes) -> None:
    place.models()
    place.write("in.csv", b"title,other\nword3,1\n" + row + b"word4,2\nword5,3\n")
    place.done("predict", "--file", "in.csv", "--top", "1", "--out", "out.csv", makes=["out.csv"])
    with (place / "out.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    good = [each for each in found if each["title"] in ("word3", "word4", "word5")]
    assert [each["title"] for each in good] == ["word3", "word4", "word5"], excerpt(str(found))
    assert all(each["category_1"] for each in good)
    assert len(found) == (3 if name_is_blank(row) else 4), f"{len(found)} rows"


def name_is_blank(row: bytes) -> bool:
    return row == b"\n"


# A quote that is open for many lines hides rows: prepare refuses that file.
ROWS_OF_PREPARE = [row for name, row in CSV_ROWS.items() if name != "a quoted field of 2 MiB"]


@case(KIND, "prepare: odd rows of CSV are counted, good ones kept")
def odd_csv_of_prepare(place: Place) -> None:
    place.listing()
    with (place / "listing.csv").open("ab") as stream:
        for row in ROWS_OF_PREPARE:
            stream.write(row)
    place.parameters()
    place.done("prepare", makes=["data", "metrics"])
    metrics = json.loads((place / "metrics/prepare.json").read_text())
    rows = metrics["rows"]
    splits = ("train", "validation", "calibration", "test")
    used = sum(rows[split] for split in splits) + rows.get("dropped", 0)
    assert rows["read"] >= 300 + len(ROWS_OF_PREPARE) - 1, rows
    assert used + sum(metrics["rejected"].values()) == rows["read"], metrics
    assert used >= 290, rows


PARQUET: dict[str, str] = {
    "dates": "pa.array([-2**31, 2**31 - 1, 0], pa.date32())",
    "dates in milliseconds": "pa.array([-2**62, 2**62, 0], pa.int64()).cast(pa.date64(), safe=False)",
    "seconds": "pa.array([-2**52, 2**52, 0], pa.timestamp('s'))",
    "milliseconds with a zone": "pa.array([-2**62, 2**62, 0], pa.timestamp('ms', 'Asia/Kathmandu'))",
    "an unknown zone": "pa.array([0, 1, 2], pa.timestamp('us', 'Mars/Olympus'))",
    "nanoseconds": "pa.array([-2**63 + 1, 2**63 - 1, 0], pa.timestamp('ns'))",
    "durations": "pa.array([-2**62, 2**62, None], pa.duration('s'))",
    "times": "pa.array([0, 86_399_999_999_999, None], pa.time64('ns'))",
    "decimals": "pa.array([D('9' * 38), D('-0.1'), None], pa.decimal256(76, 10))",
    "halves": "pa.array(np.array([np.nan, np.inf, 1e-7], np.float16))",
    "doubles": "pa.array([float('nan'), float('-inf'), 5e-324])",
    "unsigned": "pa.array([2**64 - 1, 0, None], pa.uint64())",
    "bytes": "pa.array([b'\\xff\\x00', b'', None])",
    "bytes of one length": "pa.array([b'\\xff\\x00', b'ab', None], pa.binary(2))",
    "text that is not UTF-8": "pa.array([b'\\xff\\xfe', b'', None]).view(pa.string())",
    "a dictionary": "pa.array(['a', 'b', 'a']).dictionary_encode()",
    "lists of lists": "pa.array([[[1], []], None, [[2**62]]])",
    "structs": "pa.array([{'a': {'b': float('nan')}}, None, {'a': None}])",
    "maps": "pa.array([[('a', 1), ('a', 2)], [], None], pa.map_(pa.string(), pa.int32()))",
    "maps of dates": "pa.array([[(b'\\xff', -2**31)], [], None], pa.map_(pa.binary(), pa.date32()))",
    "nothing": "pa.nulls(3)",
    "text of 3 MB": "pa.array(['x' * 3_000_000, '', None])",
    "an escape sequence": "pa.array(['\\x1b[2J', '\\x9b', '\\u202e'])",
}
MAKE = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from decimal import Decimal as D
values = eval(sys.argv[1])
title = values if sys.argv[2] == "title" else pa.array(["word2", "word3", "word4"])
table = {"title": title} | ({"other": values} if sys.argv[2] == "other" else {})
pq.write_table(pa.table(table), "in.parquet")
"""


@cases(KIND, {f"Parquet, a column of {name}": code for name, code in PARQUET.items()})
def odd_parquet(place: Place, code: str) -> None:
    place.models()
    try:
        place.python(MAKE, code, "other")
    except AssertionError as error:
        if "pyarrow.lib" not in str(error):
            raise
        raise SkippedError(f"Parquet does not hold it: {str(error)[-100:]}") from None
    for ending in ("csv", "jsonl", "parquet"):
        out = f"out.{ending}"
        # What other forms cannot hold is refused, and the message says what to do.
        if place.settled(
            "predict", "--file", "in.parquet", "--top", "1", "--out", out, makes=[out]
        ).code:
            assert ending == "parquet", f"{ending} is refused"
        elif ending != "parquet":
            found = (place / out).read_text("utf-8")
            assert found.count("0.") >= 3, f"rows without a category: {excerpt(found)}"


ODD_COLUMNS = (
    "dates",
    "seconds",
    "bytes",
    "text that is not UTF-8",
    "a dictionary",
    "structs",
    "nothing",
)


@cases(
    KIND,
    {
        f"Parquet, titles of {name}": PARQUET[name]
        for name in (
            *ODD_COLUMNS,
            "doubles",
            "decimals",
            "an unknown zone",
        )
    },
)
def odd_parquet_title(place: Place, code: str) -> None:
    place.models()
    place.python(MAKE, code, "title")
    done = place.settled("predict", "--file", "in.parquet", "--top", "1")
    assert done.code or len(done.out.splitlines()) == 4, excerpt(done.out.decode())


@cases(
    KIND,
    {f"prepare, Parquet categories of {name}": PARQUET[name] for name in ODD_COLUMNS},
)
def odd_parquet_category(place: Place, code: str) -> None:
    code_of_table = MAKE.replace(
        '"title": title', '"title": pa.array(["uno dos", "tres", "cuatro"]), "category": title'
    )
    place.python(code_of_table.replace("in.parquet", "listing.parquet"), code, "title")
    place.parameters(source="listing.parquet")
    place.settled("prepare", makes=["data", "metrics"])


@cases(KIND, {"of CSV": "csv", "of Parquet": "parquet"})
def many_shards(place: Place, ending: str) -> None:
    """More files than may be open at once."""
    code = """
import sys, pathlib, pyarrow as pa, pyarrow.parquet as pq
folder = pathlib.Path("shards"); folder.mkdir()
for n in range(1500):
    rows = [(f"palabra{n} cosa{n % 9} x{k}", f"KIND{n % 3}") for k in range(2)]
    if sys.argv[1] == "csv":
        text = "title,category\\n" + "".join(",".join(row) + "\\n" for row in rows)
        (folder / f"{n}.csv").write_text(text)
    else:
        titles, kinds = zip(*rows)
        pq.write_table(pa.table({"title": titles, "category": kinds}), folder / f"{n}.parquet")
"""
    place.python(code, ending)
    place.parameters(source="shards")
    place.done("prepare", makes=["data", "metrics"], limits={resource.RLIMIT_NOFILE: 256})
    assert json.loads((place / "metrics/prepare.json").read_text())["rows"]["read"] == 3000


@case(KIND, "40,000 categories")
def many_categories(place: Place) -> None:
    rows = "".join(f"palabra{n} cosa{n % 77} k{k},KIND{n}\n" for n in range(40_000) for k in range(4))
    place.write("listing.csv", "title,category\n" + rows)
    place.parameters()
    place.done("prepare", makes=["data", "metrics"])
    assert len((place / "data/prepared/labels.txt").read_text().splitlines()) > 39_000


@cases(KIND, {"read-only": "ro", "of 1 page": "size=4096"})
def without_shared_memory(place: Place, options: str) -> None:
    """Workers are started for a listing of several chunks."""
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"',
        "sh",
    ]
    if (
        os.geteuid() != 0
        or not shutil.which("unshare")
        or subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    ):
        raise SkippedError("no mounts of our own here")
    place.write(
        "listing.csv",
        "title,category\n" + "".join(f"palabra{n} cosa{n % 77},KIND{n % 5}\n" for n in range(200_000)),
    )
    place.parameters(threads=2)
    place.done("prepare", makes=["data", "metrics"], through=words)
    place.models()
    place.done("predict", "word2", through=words)
