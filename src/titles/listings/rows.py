"""Rows of a listing as its readers yield them, whatever is wrong with some of them.

The readers serve two policies. `sources`, for prepare, rejects a row that it cannot use and refuses a
file that is damaged as a whole. `listing`, for predict, keeps every row, each with its problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, TypeVar

from titles.listings.streams import DAMAGE, damaged

# The most rows of a chunk, and about the most bytes. Larger chunks share more of their words, which are
# looked up once.
CHUNK_ROWS = 32_768
CHUNK_BYTES = 32 * 1024 * 1024
MOST_COLUMNS = 16_384  # of a table; as many as a spreadsheet can have
LINE_TOO_LONG = "line_too_long"  # reason of a Broken
LINES = 256  # of a batch
_LINES_AT_ONCE = 16
REFERENCE = 8  # bytes of a value's place in a list

Line = TypeVar("Line", str, bytes)


@dataclass(frozen=True, slots=True)
class Broken:
    """Stands for a row that cannot be parsed.

    excerpt: the start of the row, or the parser's message. values: those that can be read, if any.
    """

    reason: str
    excerpt: str
    values: list[Any] | None = None


Row = Any  # a sequence of values, or Broken


def check_width(columns: int, name: str) -> None:
    """Raise ValueError if a table has too many columns: each row, however short, would have them all."""
    if columns > MOST_COLUMNS:
        raise ValueError(f"{name} has {columns} columns, more than {MOST_COLUMNS}")


class Batch(NamedTuple):
    """Consecutive rows."""

    rows: list[Row]
    lines: Sequence[int]  # where rows start, from 1; empty where the file has no lines
    size: int  # bytes, about
    table: Any = None  # of pyarrow: the rows of a Parquet file as they are, where it is wanted


class Lines(Generic[Line]):
    """Lines of a text file, taken in batches, some of which can be given back.

    number: of the next line, from 1. size: characters or bytes of the batch taken last.
    """

    def __init__(self, stream: Iterable[Line], name: str) -> None:
        self._stream: Iterator[Line] = iter(stream)
        self._name = name
        self._back: list[Line] = []
        self.number = 1
        self.size = 0

    def take(self) -> list[Line]:
        """The next batch, a single line if lines are very long; empty at the end of the file.

        Raises ValueError if the compressed stream is damaged.
        """
        lines, self._back = self._back or self._read(), []
        self.size = sum(map(len, lines))
        if self.size > CHUNK_BYTES // 8 and len(lines) > 1:
            self._back = lines[1:]
            del lines[1:]
            self.size = len(lines[0])
        self.number += len(lines)
        return lines

    @property
    def waiting(self) -> bool:
        """Whether lines that were given back come next."""
        return bool(self._back)

    def give_back(self, lines: list[Line]) -> None:
        """Undo taking these lines, which were the last ones."""
        self._back = lines + self._back
        self.number -= len(lines)

    def _read(self) -> list[Line]:
        lines: list[Line] = []
        try:
            before, size = -1, 0
            while before < len(lines) < LINES and size <= CHUNK_BYTES // 8:
                before = len(lines)
                lines.extend(islice(self._stream, _LINES_AT_ONCE))  # keeps the lines before an error
                size += sum(map(len, lines[before:]))
        except DAMAGE as error:
            raise damaged(self._name, self.number + len(lines), error) from None
        return lines


def gather(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join batches to chunks of at most CHUNK_ROWS and about CHUNK_BYTES."""
    for group in groups(batches):
        yield from chunks(group)


def groups(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Batches that are chunks together; none is taken before it is needed."""
    held: list[Batch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch.rows)
        size += batch.size
        whole = next((row for row in batch.rows if not isinstance(row, Broken)), ())
        size += REFERENCE * len(batch.rows) * len(whole)
        if rows >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield held
            held, rows, size = [], 0, 0
    if rows:
        yield held


def chunks(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The chunks of a group."""
    rows = list(chain.from_iterable(batch.rows for batch in batches))
    lines = list(chain.from_iterable(batch.lines for batch in batches))
    size = sum(batch.size for batch in batches)
    table: Any = None
    if batches[0].table is not None:
        from titles.listings import parquet_reader

        table = parquet_reader.joined([batch.table for batch in batches])
    for at in range(0, len(rows), CHUNK_ROWS):
        part = slice(at, at + CHUNK_ROWS)
        yield Batch(rows[part], lines[part], size, table and table[part])


def is_utf8(text: str) -> bool:
    """Whether the text was decoded from valid UTF-8."""
    # The readers decode other bytes to lone surrogates, which cannot be encoded.
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
