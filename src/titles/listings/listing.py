"""Listings to classify: every row is kept, in order, and a row without a usable title has a problem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from titles.listings.rows import LINE_TOO_LONG, Batch, Broken, gather, is_utf8
from titles.listings.streams import TOLD_LONGEST

_PROBLEMS = {
    "broken_csv": "broken CSV",
    "wrong_number_of_fields": "wrong number of fields",
    "field_too_long": "{}",
    "broken_json": "broken JSON",
    LINE_TOO_LONG: f"line longer than {TOLD_LONGEST}",
    "repeated_key": "JSON with the key {} twice",
    "invalid_utf8": "broken JSON",
    "nested_too_deeply": "JSON nested too deeply",
    "unreadable_value": "unreadable value in column {}",
}


class Chunk(NamedTuple):
    """Consecutive rows, in columns."""

    columns: list[Sequence[Any]]  # values, for each of Listing.columns
    lines: Sequence[int]  # where rows start, from 1; empty where the source has no lines
    titles: list[str]  # "" where there is none
    problems: dict[int, str]  # by the row's position in the chunk
    table: Any = None  # of pyarrow: the columns of Parquet as they stand in the file


class Listing(NamedTuple):
    """The rows of a source, and the columns of it that are kept."""

    columns: list[str]
    title: int  # position of the titles in `columns`
    types: list[Any] | None  # of pyarrow, for Parquet; None where values are text or JSON values
    total: int | None  # rows; None if unknown before reading
    chunks: Iterator[Chunk]


def of_batches(
    columns: list[str],
    column: str,
    batches: Iterable[Batch],
    types: list[Any] | None = None,
    total: int | None = None,
) -> Listing:
    """A listing of rows with these columns, of which `column` holds the titles."""
    title = columns.index(column)
    chunks = (_chunk(batch, len(columns), title) for batch in gather(batches))
    return Listing(columns, title, types, total, chunks)


def of_titles(titles: Sequence[Any]) -> Listing:
    """A listing of titles in memory, or what stands in the place of one, in one chunk."""
    rows = [title if isinstance(title, Broken) else [title] for title in titles]
    chunks = iter([_chunk(Batch(rows, (), 0), 1, 0)] if titles else [])
    return Listing(["title"], 0, None, len(titles), chunks)


def _chunk(batch: Batch, width: int, title: int) -> Chunk:
    """The rows, at least one, in columns, with all their problems."""
    rows, problems = batch.rows, {}
    if Broken in set(map(type, rows)):
        broken = {place: row for place, row in enumerate(rows) if isinstance(row, Broken)}
        problems = {place: _PROBLEMS[row.reason].format(row.excerpt) for place, row in broken.items()}
        rows = list(rows)
        for place, row in broken.items():
            rows[place] = row.values or [None] * width
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    for place in _not_utf8(columns):
        problems[place] = "not UTF-8"
        rows[place] = [_readable(value) for value in rows[place]]
    if problems:
        columns = list(zip(*rows, strict=True))
    titles = list(columns[title])
    # Checking all rows at once finds clean chunks, which most are, at a fraction of the cost.
    if problems or not (set(map(type, titles)) <= {str} and all(map(str.strip, titles))):
        for place, value in enumerate(titles):
            problem = problems.get(place) or _problem(value)
            if problem:
                problems[place], titles[place] = problem, ""
    return Chunk(columns, batch.lines, titles, problems, batch.table)


def _readable(value: Any) -> Any:
    """A text with its bytes that are not UTF-8 written out; other values as they are."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _problem(title: Any) -> str:
    if title is None:
        return "no title"
    if not isinstance(title, str):
        return "title is no text"
    return "" if title.strip() else "empty title"


def _not_utf8(columns: list[Sequence[Any]]) -> list[int]:
    """Rows with bytes that are not UTF-8."""
    found: set[int] = set()
    for column in columns:
        texts = column
        if set(map(type, column)) != {str}:
            texts = [value if isinstance(value, str) else "" for value in column]
        if not is_utf8("".join(texts)):
            found |= {place for place, text in enumerate(texts) if not is_utf8(text)}
    return sorted(found)
