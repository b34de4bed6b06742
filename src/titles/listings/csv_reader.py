"""Rows of a CSV file."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from io import BufferedReader
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from titles.data.messages import printable
from titles.listings import rows, streams
from titles.listings.names import canonical
from titles.listings.rows import LINE_TOO_LONG, Batch, Broken, Lines, Row, check_width

if TYPE_CHECKING:
    from titles.listings.clean import Columns

# Far above any title and its newlines: past either, a stray quote has swallowed rows.
_MOST_LINES = 20
_DELIMITERS = ",;\t|"
_EXCERPT = 200  # characters of a header
# A blank line, or Excel's line that names the delimiter.
_NO_HEADER = re.compile(rf'\s*("?sep=[{_DELIMITERS}]"?\s*)?', re.IGNORECASE)
_MOST_CHARS = streams.LONGEST_LINE  # of a field, which can have several lines
# Of the whole process: the parser's own limit would not tell a long field from a stray quote.
csv.field_size_limit(2**31 - 1)


class _Long(str):
    """The start of a line that is too long."""


class Clean(NamedTuple):
    """Consecutive rows of one line each."""

    columns: Columns
    first: int  # line


class CsvReader:
    """A CSV file whose header has been read: the canonical names of all columns.

    Values are separated by commas, or else by the semicolon, tab or bar with which the header has all
    columns that are needed. Blank lines before the header are skipped.
    """

    def __init__(self, stream: BufferedReader, name: str, expected: str, needed: Set[str]) -> None:
        """Raise ValueError if there is no header; `expected` describes it for the message."""
        self._name, self._raw = name, _Raw(streams.lines(stream))
        self._lines = Lines(self._raw.texts(), name)
        lines = self._lines.take()
        if lines and lines[0].startswith("\ufeff"):  # a second byte order mark
            lines[0] = lines[0][1:]
        while lines and _NO_HEADER.fullmatch(lines[0]):
            lines = lines[1:] or self._lines.take()
        if lines and isinstance(lines[0], _Long):
            raise ValueError(f"{name}: the header is longer than {streams.TOLD_LONGEST}")
        if not lines:
            raise ValueError(f"{name} is empty: expected a header {expected}")
        found = []
        for self._delimiter in _DELIMITERS:
            fields, used, error = self._row(lines, 0)
            names = list(map(canonical, fields))
            found.append((needed <= set(names), not error, len(names), self._delimiter, names, used))
            if found[-1][0]:
                break
        # For the message about missing columns: the delimiter that gives the most.
        *_, self._delimiter, self.header, used = max(found, key=lambda each: each[:3])
        if not self.header:
            told = printable(lines[0].rstrip()[:_EXCERPT])
            raise ValueError(
                f"{name}: the header is no CSV, in which quotes enclose whole names: {told}"
            )
        check_width(len(self.header), name)
        self._lines.give_back(lines[used:])

    def rows(self, places: Sequence[int], *, keep: bool) -> Iterator[Batch]:
        """Yield the values of the columns at these places of all rows; blank lines are skipped.

        keep: a broken row costs its first line only, and the lines after it are parsed anew; otherwise
        it costs all the lines that the CSV parser takes for it. Raises ValueError if the file is damaged
        or, unless `keep`, a stray quote hides an unknown number of rows.
        """
        lines = self._lines
        first = lines.number
        while taken := lines.take():
            size = lines.size
            try:
                if _Long in set(map(type, taken)):
                    raise csv.Error
                # strict: `"a"b` and a quote that is never closed are errors, not guesses.
                rows: list[Row] = list(csv.reader(taken, strict=True, delimiter=self._delimiter))
            except csv.Error:
                rows = []
            numbers: Sequence[int] = range(first, first + len(rows))
            if set(map(len, rows)) != {len(self.header)} or size > _MOST_CHARS:
                rows = list(map(self._fitted, rows))
            # One row per line, all of the right width, is by far the commonest case.
            if len(rows) != len(taken) or Broken in set(map(type, rows)):
                rows, numbers = self._one_by_one(taken, first, keep)
            if len(places) != len(self.header):
                rows = [row if isinstance(row, Broken) else [row[p] for p in places] for row in rows]
            yield Batch(rows, numbers, size)
            first = lines.number

    def clean(self, places: Mapping[str, int], accepted: Callable[[Columns], bool]) -> Clean | None:
        """Take the next group of batches at once, as columns by the names of these places; None at the
        end, and where a line is doubtful or the columns are not accepted: `rows` then has to read it."""
        count = -(-rows.CHUNK_ROWS // rows.LINES) * rows.LINES
        if self._lines.waiting or not (lines := self._raw.peek(count)):
            return None
        # The first group, of which the header was a line, never comes here: pyarrow takes longer to load
        # than to read a small file.
        from titles.listings import clean

        # Where lines are longer, batches and groups have fewer of them.
        longest = rows.CHUNK_BYTES // 8 // rows.LINES
        most = rows.CHUNK_BYTES - rows.REFERENCE * len(lines) * len(places) - 1
        if max(map(len, lines)) > longest or sum(map(len, lines)) > most:
            return None
        found = clean.parse(lines, places, len(self.header), self._delimiter)
        if found is None or not accepted(found):
            return None
        self._raw.skip()
        first = self._lines.number
        self._lines.number += len(lines)
        return Clean(found, first)

    def _one_by_one(self, lines: list[str], first: int, keep: bool) -> tuple[list[Row], list[int]]:
        """Parse the rows that start in `lines`; the last one may need further lines."""
        rows: list[Row] = []
        numbers: list[int] = []
        at, end = 0, len(lines)
        while at < end:
            fields, used, error = self._row(lines, at)
            row: Row = fields
            if isinstance(lines[at], _Long):
                row = Broken(LINE_TOO_LONG, lines[at])
            elif error:
                row = Broken("broken_csv", error)
            elif fields:
                row = self._fitted(fields)
            if keep and isinstance(row, Broken):
                used = 1
            elif not keep and (
                used > _MOST_LINES
                or "unexpected end" in error
                # A line that is too long hides no other row, unless a quote is open before it.
                or (used > 1 and isinstance(lines[at + used - 1], _Long))
            ):
                raise ValueError(
                    f"{self._name}: the quote opened in line {first + at} is not closed by line "
                    f"{first + at + used - 1}: mend or remove that row"
                )
            if error or fields:
                rows.append(row)
                numbers.append(first + at)
            at += used
        self._lines.give_back(lines[at:])
        return rows, numbers

    def _fitted(self, fields: list[str]) -> Row:
        """The fields, as many as the header has names. Spreadsheets leave out empty fields at the end of
        a row, or add some, beside columns without a name."""
        width = len(self.header)
        if (longest := max(map(len, fields), default=0)) > _MOST_CHARS:
            return Broken("field_too_long", f"a field of {longest:,} characters, past {_MOST_CHARS:,}")
        if any(fields[width:]) or any(self.header[len(fields) :]):
            return Broken("wrong_number_of_fields", ",".join(fields))
        return (fields + [""] * width)[:width]

    def _row(self, lines: list[str], at: int) -> tuple[list[str], int, str]:
        """The fields of the row at lines[at], the number of its lines, and the parser's error or "".

        Further lines are appended to `lines` where the row needs them.
        """

        used = 0

        def following() -> Iterator[str]:
            nonlocal used
            while used <= _MOST_LINES and (at + used < len(lines) or (more := self._lines.take())):
                if at + used == len(lines):
                    lines.extend(more)
                used += 1
                line = lines[at + used - 1]
                if isinstance(line, _Long):
                    raise csv.Error("a line is too long")
                yield line

        reader = csv.reader(following(), strict=True, delimiter=self._delimiter)
        try:
            return next(reader), used, ""
        except csv.Error as error:
            return [], used, str(error)


class _Raw:
    """Lines of bytes, which can be looked at before they are decoded."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._held: deque[bytes] = deque()
        self._error: Exception | None = None  # after the lines that are held

    def peek(self, count: int) -> list[bytes]:
        """The next lines; fewer at the end of the stream, or before damage."""
        if self._error is None and len(self._held) < count:
            try:
                self._held.extend(islice(self._stream, count - len(self._held)))
            except streams.DAMAGE as error:
                self._error = error
        return list(islice(self._held, count))

    def skip(self) -> None:
        """Take all lines that were looked at."""
        self._held.clear()

    def texts(self) -> Iterator[str]:
        """The lines as text. Bytes that are not UTF-8 are lone surrogates: they concern their row only,
        and are found later."""
        while True:
            if self._held:
                line = self._held.popleft()
            elif self._error is not None:
                raise self._error
            elif (found := next(self._stream, None)) is not None:
                line = found
            else:
                return
            text = line.decode("utf-8", "surrogateescape")
            yield _Long(text) if isinstance(line, streams.TooLong) else text
