"""Listings in files and streams: plain lines, CSV, JSON lines, Parquet."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from titles.listings.listing import Chunk, Gathered, Listing
from titles.listings.listing_csv import read_csv
from titles.listings.listing_parquet import opened_parquet

LINES, CSV, JSON_LINES, PARQUET = "lines", "csv", "jsonl", "parquet"
FORMATS = (LINES, CSV, JSON_LINES, PARQUET)
# Also with .gz after them, but for Parquet, which is compressed by itself.
ENDINGS = {
    ".txt": LINES,
    ".csv": CSV,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".parquet": PARQUET,
}
# Lines of JSON to look at for the keys that there are.
_FIRST_LINES = 1000


def format_of(file: Path, option: str) -> str:
    """The format that a file's ending tells; raises ValueError, naming `option`, if it tells none."""
    name = file.name.lower()
    for ending, kind in ENDINGS.items():
        if name.endswith(ending) or (kind != PARQUET and name.endswith(f"{ending}.gz")):
            return kind
    raise ValueError(
        f"the ending of {file} is none of {', '.join(ENDINGS)}: say its format with {option}"
    )


@contextmanager
def opened(
    file: Path | None,
    kind: str,
    column: str = "title",
    keep: Sequence[str] | None = None,
    hint: str = "--column says which one holds the titles",
) -> Iterator[Listing]:
    """Open a listing. Text may be gzip, whatever it is called.

    Args:
        file: None is the standard input.
        kind: of FORMATS.
        column: the column, or key, that holds the titles; there is but one in plain lines.
        keep: other columns to keep; None keeps all, of JSON lines those that its first 1000 have.
        hint: closes the message about a column that is not there.

    Raises:
        ValueError: the file as a whole is unusable: missing, damaged, or without such columns. Damage
            further on is raised by the rows.
    """
    name = str(file) if file else "the standard input"
    if file and not file.exists():
        raise ValueError(f"{file} does not exist")
    if file and file.is_dir():
        raise ValueError(f"{file} is a folder: expected one file")
    if kind == PARQUET:
        if not file:
            raise ValueError("Parquet cannot be read from the standard input: name the file")
        with opened_parquet(file, column, keep, hint) as listing:
            yield listing
        return
    with _stream(file) as stream, _undamaged(name):
        if kind == CSV:
            yield read_csv(stream, name, column, keep, hint)
        elif kind == JSON_LINES:
            yield _json_lines(stream, name, column, keep, hint)
        else:
            yield Listing([column], 0, None, None, _lines(stream))


@contextmanager
def _stream(file: Path | None) -> Iterator[BinaryIO]:
    # What is no file on disk, as `<(command)` in a shell, has no way back after a look at its start.
    raw = cast(io.BufferedReader, file.open("rb") if file else sys.stdin.buffer)
    try:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(raw, "rb") as unzipped, io.BufferedReader(unzipped) as buffered:
                yield buffered
        else:
            yield raw
    finally:
        if file:
            raw.close()


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is damaged: {error}. Get the file again") from None


def _lines(stream: BinaryIO) -> Iterator[Chunk]:
    gathered = Gathered(1, 0)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    for number, line in enumerate(text, start=1):
        gathered.rows.append([line.rstrip("\r\n")])
        gathered.lines.append(number)
        gathered.bytes += len(line)
        if gathered.full():
            yield gathered.taken()
    if gathered.rows:
        yield gathered.taken()


def _json_lines(
    stream: BinaryIO, name: str, column: str, keep: Sequence[str] | None, hint: str
) -> Listing:
    records = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
    first = list(islice(records, _FIRST_LINES))
    keys: dict[str, None] = {}
    for _, line in first:
        record = _loaded(line)
        keys |= dict.fromkeys(record if isinstance(record, dict) else ())
    if first and column not in keys:
        found = f"keys {','.join(keys)[:200]}" if keys else "no JSON object"
        raise ValueError(
            f"{name} has no key {column!r} in its first {len(first)} lines, but {found}; {hint}"
        )
    wanted = [column, *(keys if keep is None else keep)]
    columns = list(dict.fromkeys(key for key in [*keys, *wanted] if key in wanted))
    title = columns.index(column)
    return Listing(columns, title, None, None, _json_chunks(chain(first, records), columns, title))


def _loaded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _json_chunks(
    records: Iterator[tuple[int, bytes]], columns: list[str], title: int
) -> Iterator[Chunk]:
    gathered = Gathered(len(columns), title)
    for number, line in records:
        record = _loaded(line)
        if isinstance(record, dict):
            gathered.rows.append(list(map(record.get, columns)))
            gathered.lines.append(number)
        else:
            gathered.add_broken("broken JSON", number)
        gathered.bytes += len(line)
        if gathered.full():
            yield gathered.taken()
    if gathered.rows:
        yield gathered.taken()
