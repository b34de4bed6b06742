"""Memory stays bounded, whatever a file holds: lines without an end, wide tables, documents that
multiply, numbers beyond all use, models that announce more than they have."""

from __future__ import annotations

import os
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from titles.listings import rows, sources
from titles.listings.files import CSV, JSON_LINES, LINES, opened

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
