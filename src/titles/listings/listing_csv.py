"""Rows of a CSV file. A broken row costs itself alone."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, TextIO

from titles.listings.listing import Chunk, Gathered, Listing, kept_columns

# Rows read at a time, and gone through one by one if anything is odd about them.
_ROWS = 128
# The limit is one for the whole process, and the same as that of `sources`: a longer field is what lies
# behind a stray quote.
csv.field_size_limit(1024 * 1024)


class _Lines:
    """Lines for the CSV reader, which can be given back: a stray quote then costs its own line alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._back: deque[str] = deque()
        self.taken: list[str] = []  # since the last `done`
        self.number = 1  # of the first of them

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._stream)
        self.taken.append(line)
        return line

    def give_back(self, first: int) -> None:
        """All lines taken, from the given one on."""
        self._back.extendleft(reversed(self.taken[first:]))
        del self.taken[first:]

    def done(self) -> None:
        self.number += len(self.taken)
        self.taken.clear()


def read_csv(stream: BinaryIO, name: str, column: str, keep: Sequence[str] | None, hint: str) -> Listing:
    """See `listing_files.opened`."""
    lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=""))
    # strict: `"a"b` and a quote that is never closed are errors and not guesses.
    reader = csv.reader(lines, strict=True)
    try:
        header = [field.strip() for field in next(reader)]
    except StopIteration:
        raise ValueError(f"{name} is empty: expected a header with {column}") from None
    except csv.Error as error:
        raise ValueError(f"{name}: the header is no CSV: {error}") from None
    lines.done()
    columns = kept_columns(name, header, column, keep, hint)
    title = columns.index(column)
    return Listing(columns, title, None, None, _chunks(reader, lines, header, columns, title))


def _chunks(
    reader: Iterator[list[str]], lines: _Lines, header: list[str], columns: list[str], title: int
) -> Iterator[Chunk]:
    places = [header.index(name) for name in columns]
    gathered = Gathered(len(columns), title)

    def add(rows: list[list[str]]) -> None:
        gathered.rows += (
            rows if len(places) == len(header) else [[row[place] for place in places] for row in rows]
        )
        gathered.bytes += sum(map(len, lines.taken))

    while True:
        try:
            rows = list(islice(reader, _ROWS))
        except csv.Error:
            rows = []
        if not lines.taken:
            break
        if len(rows) == len(lines.taken) and set(map(len, rows)) == {len(header)}:
            gathered.lines += range(lines.number, lines.number + len(rows))
            add(rows)
            lines.done()
            if gathered.full():
                yield gathered.taken()
            continue
        # Once more, row by row, up to where that came to.
        end = lines.number + len(lines.taken)
        lines.give_back(0)
        while lines.number < end:
            fields: list[str] = []
            problem = ""
            try:
                fields = next(reader)
            except csv.Error:
                problem = "broken CSV"
            if fields and len(fields) != len(header):
                problem = "wrong number of fields"
            if problem:
                lines.give_back(1)
                gathered.add_broken(problem, lines.number)
            elif fields:  # a blank line is no row
                gathered.lines.append(lines.number)
                add([fields])
            lines.done()
            if gathered.full():
                yield gathered.taken()
    if gathered.rows:
        yield gathered.taken()
