"""Listings in files and streams: plain lines, CSV, JSON lines, Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from titles.data import contract
from titles.listings import json_reader
from titles.listings.csv_reader import CsvReader
from titles.listings.listing import Listing, of_batches
from titles.listings.rows import Batch, Lines

FORMATS = LINES, CSV, JSON_LINES, PARQUET = "lines", "csv", "jsonl", "parquet"
# Each can be followed by .gz, except Parquet, which compresses its own content.
ENDINGS = {".txt": LINES, ".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".parquet": PARQUET}
_KEY_LINES = 1000  # of JSON, searched for keys


def format_of(file: Path, option: str) -> str:
    """The format of the file's ending; raises ValueError with a hint to `option` if it has none."""
    name = file.name.lower()
    for ending, kind in ENDINGS.items():
        if name.endswith(ending) or (kind != PARQUET and name.endswith(f"{ending}.gz")):
            return kind
    raise ValueError(
        f"the ending of {file} is none of {', '.join(ENDINGS)}: set its format with {option}"
    )


@contextmanager
def opened(
    file: Path | None,
    kind: str,
    column: str = "title",
    keep: Sequence[str] | None = None,
    hint: str = "--column says which one holds the titles",
) -> Iterator[Listing]:
    """Open a listing. Text may be compressed by gzip, whatever its name.

    Args:
        file: None is the standard input.
        kind: of FORMATS.
        column: column, or key, of the titles; plain lines have only this one.
        keep: further columns to keep; None keeps all. JSON lines have those of their first 1000 lines.
        hint: closes the message about a missing column.

    Raises:
        ValueError: the file as a whole is unusable: missing, damaged, or without such columns. Damage
            further on is raised while rows are read.
    """
    name = str(file or "the standard input")
    if file and not file.exists():
        raise ValueError(f"{file} does not exist")
    if file and file.is_dir():
        raise ValueError(f"{file} is a folder: expected one file")
    if kind == PARQUET:
        if not file:
            raise ValueError("Parquet cannot be read from the standard input: name the file")
        from titles.listings import parquet_reader

        with parquet_reader.opened(file) as table:
            columns = _kept(name, table.schema_arrow.names, column, keep, hint)
            types = {each: table.schema_arrow.types[place] for each, place in columns.items()}
            if not parquet_reader.is_text(types[column]):
                raise ValueError(f"{name}: column {column!r} holds {types[column]}, not text; {hint}")
            places = list(columns.values())
            batches = parquet_reader.rows(file, table, places, {columns[column]})
            total = table.metadata.num_rows
            yield of_batches(list(columns), column, batches, list(types.values()), total)
        return
    with contract.opened(file) as raw:
        if kind == CSV:
            table = CsvReader(raw, name, f"with {column}")
            columns = _kept(name, table.header, column, keep, hint)
            yield of_batches(list(columns), column, table.rows(list(columns.values()), keep=True))
        elif kind == JSON_LINES:
            lines = Lines(raw, name)
            keys, count = json_reader.first_keys(lines, _KEY_LINES)
            if count and column not in keys:
                found = f"keys {','.join(keys)[:200]}" if keys else "no JSON object"
                raise ValueError(
                    f"{name} has no key {column!r} in its first {count} lines, but {found}; {hint}"
                )
            wanted = [column, *(keys if keep is None else keep)]
            defaults = {key: None for key in [*keys, *wanted] if key in wanted}
            yield of_batches(list(defaults), column, json_reader.rows(lines, defaults))
        else:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
            yield of_batches([column], column, _plain_lines(Lines(text, name)))


def _plain_lines(lines: Lines[str]) -> Iterator[Batch]:
    first = lines.number
    while taken := lines.take():
        yield Batch([[line.rstrip("\r\n")] for line in taken], range(first, lines.number), lines.size)
        first = lines.number


def _kept(
    name: str, names: Sequence[str], column: str, keep: Sequence[str] | None, hint: str
) -> dict[str, int]:
    """The columns to keep, each with its place, in the order of the file; they include the titles.

    Raises ValueError if one that was asked for is missing, or there twice.
    """
    places = {each: place for place, each in enumerate(_distinct(names))}
    asked = [column, *(keep or ())]
    for each in asked:
        if names.count(each) > 1:
            raise ValueError(f"{name} has the column {each!r} twice")
        if each not in places:
            raise ValueError(
                f"{name} has no column {each!r}. Its columns, separated by commas, are "
                f"{','.join(names)[:200]}; {hint}"
            )
    return places if keep is None else {each: p for each, p in places.items() if each in asked}


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; a repeated one has its place added, and so has an empty one, called column.

    Bytes that are not UTF-8 are written out.
    """
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    taken = set(names)
    found: list[str] = []
    for place, name in enumerate(names, start=1):
        each = name
        if not name or name in names[: place - 1]:
            each = f"{name or 'column'}.{place}"
            while each in taken:
                each += "_"
        taken.add(each)
        found.append(each)
    return found
