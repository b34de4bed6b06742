"""Listings in files and streams: plain lines, CSV, JSON lines, Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from titles.listings import json_reader, streams
from titles.listings.csv_reader import CsvReader
from titles.listings.listing import Listing, of_batches
from titles.listings.names import canonical, listed
from titles.listings.rows import LINE_TOO_LONG, Batch, Broken, Lines, Row, check_width

FORMATS = LINES, CSV, JSON_LINES, PARQUET = "lines", "csv", "jsonl", "parquet"
# To write. Each can be followed by .gz, except Parquet, which compresses its own content.
ENDINGS = {".txt": LINES, ".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".parquet": PARQUET}
_ENDINGS_READ = {**ENDINGS, ".tsv": CSV, ".tab": CSV, ".pq": PARQUET}
_PACKED = ".gz", ".bz2", ".xz", ".zip"
KEY_LINES = 1000  # of JSON, searched for keys
_MOST_COLUMNS, _EXCERPT = 40, 200  # of a file, and characters of their names, in a message


def format_of(file: Path, option: str) -> str:
    """The format to read a file of this name in; raises ValueError with a hint to `option` if there is
    none."""
    if kind := format_by_name(file.name):
        return kind
    raise _unknown(file, _ENDINGS_READ, option)


def format_to_write(file: Path, option: str) -> str:
    """The format of the file's ending to write it in; raises ValueError as `format_of` does."""
    name = file.name.lower()
    for ending, kind in ENDINGS.items():
        if name.endswith(ending) or (kind != PARQUET and name.endswith(f"{ending}.gz")):
            return kind
    raise _unknown(file, ENDINGS, option)


def format_by_name(name: str) -> str | None:
    """The format of a file's ending, in any case; None if it has none."""
    stem, dot, last = name.lower().rpartition(".")
    packed = f".{last}" in _PACKED
    if packed:
        stem, dot, last = stem.rpartition(".")
    kind = _ENDINGS_READ.get(dot + last)
    return None if packed and kind == PARQUET else kind


def _unknown(file: Path, endings: Iterable[str], option: str) -> ValueError:
    return ValueError(
        f"the ending of {file} is none of {', '.join(endings)}: set its format with {option}"
    )


@contextmanager
def opened(
    file: Path | None,
    kind: str,
    column: str = "title",
    keep: Sequence[str] | None = None,
    hint: str = "--column says which one holds the titles",
) -> Iterator[Listing]:
    """Open a listing. Text may be packed or in UTF-16, see `streams.opened`, whatever its name.

    Args:
        file: None is the standard input.
        kind: of FORMATS.
        column: column, or key, of the titles; plain lines have only this one. Names of columns are the
            same if their canonical spellings are.
        keep: further columns to keep; None keeps all. JSON lines have those of their first 1000 lines.
        hint: closes the message about a missing column.

    Raises:
        ValueError: the file as a whole is unusable: missing, damaged, or without such columns. Damage
            further on is raised while rows are read.
    """
    name = str(file or "the standard input")
    column, keep = canonical(column), keep and list(map(canonical, keep))
    if file and not file.exists():
        raise ValueError(f"{file} does not exist")
    if file and file.is_dir():
        raise ValueError(f"{file} is a folder: expected one file")
    if kind == PARQUET:
        if not file:
            raise ValueError("Parquet cannot be read from the standard input: name the file")
        from titles.listings import parquet_reader

        with parquet_reader.opened(file) as table:
            columns = _kept(name, list(map(canonical, table.schema_arrow.names)), column, keep, hint)
            types = {each: table.schema_arrow.types[place] for each, place in columns.items()}
            if not parquet_reader.is_text(types[column]):
                raise ValueError(f"{name}: column {column!r} holds {types[column]}, not text; {hint}")
            places = list(columns.values())
            batches = parquet_reader.rows(file, table, places, {columns[column]}, keep=True)
            total = table.metadata.num_rows
            yield of_batches(list(columns), column, batches, list(types.values()), total)
        return
    with streams.opened(file) as raw:
        if kind == CSV:
            table = CsvReader(raw, name, f"with {column}", {column, *(keep or ())})
            columns = _kept(name, table.header, column, keep, hint)
            yield of_batches(list(columns), column, table.rows(list(columns.values()), keep=True))
        elif kind == JSON_LINES:
            lines = Lines(streams.lines(raw), name)
            keys, count = json_reader.first_keys(lines, KEY_LINES)
            names = list(dict.fromkeys(map(canonical, keys)))
            if count and column not in names:
                found = f"keys {listed(keys, _MOST_COLUMNS)[:_EXCERPT]}" if keys else "no JSON object"
                raise ValueError(
                    f"{name} has no key {column!r} in its first {count} lines, but {found}; {hint}"
                )
            wanted = dict.fromkeys([column, *(names if keep is None else keep)])
            check_width(len(wanted), name)
            defaults = {key: None for key in [*names, *wanted] if key in wanted}
            yield of_batches(list(defaults), column, json_reader.named_rows(lines, defaults, keys))
        else:
            yield of_batches([column], column, _plain_lines(Lines(streams.lines(raw), name)))


def _plain_lines(lines: Lines[bytes]) -> Iterator[Batch]:
    first, before = lines.number, b""
    while taken := lines.take():
        rows: list[Row] = []
        numbers = []
        for number, line in enumerate(taken, first):
            # CR CR LF, which some programs write for CRLF, ends one line.
            if line != b"\r\n" or not before.endswith(b"\r"):
                text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
                long = isinstance(line, streams.TooLong)
                rows.append(Broken(LINE_TOO_LONG, text) if long else [text])
                numbers.append(number)
            before = line
        yield Batch(rows, numbers, lines.size)
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
                f"{listed(names, _MOST_COLUMNS)[:_EXCERPT]}; {hint}"
            )
    found = places if keep is None else {each: p for each, p in places.items() if each in asked}
    check_width(len(found), name)
    return found


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; a repeated one has its place added, and so has an empty one, called column.

    Bytes that are not UTF-8 are written out.
    """
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    taken, before = set(names), set[str]()
    found: list[str] = []
    for place, name in enumerate(names, start=1):
        each = name
        if not name or name in before:
            each = f"{name or 'column'}.{place}"
            while each in taken:
                each += "_"
        before.add(name)
        taken.add(each)
        found.append(each)
    return found
