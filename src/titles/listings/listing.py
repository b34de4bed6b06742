"""Rows to be classified, some thousands at a time and in order, whatever is wrong with some of them: one
that has no title is still a row, and says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Rows, and about how many bytes of them, that are worked on at a time. The more titles, the more of
# their words are shared and looked up once.
CHUNK_ROWS = 32_768
CHUNK_BYTES = 32 * 1024 * 1024


class Chunk(NamedTuple):
    """Rows one after another, in columns: row by row it would take longer than to classify them.

    columns: their values, for each of Listing.columns. lines: of the file at which the rows start, from
        1; none where there are no lines.
    titles: "" where there is none. problems: why, by the row's place here.
    """

    columns: list[Sequence[Any]]
    lines: Sequence[int]
    titles: list[str]
    problems: dict[int, str]


class Listing(NamedTuple):
    """A file's rows, and the columns of it that are kept.

    title: position in them of the column with the titles.
    types: pyarrow's, of the columns of a Parquet file; None where values are text, or what JSON has.
    total: how many rows there are; None where only reading tells.
    """

    columns: list[str]
    title: int
    types: list[Any] | None
    total: int | None
    chunks: Iterator[Chunk]


class Gathered:
    """Rows on their way to a chunk."""

    def __init__(self, columns: int, title: int) -> None:
        self._width, self._title = columns, title
        self._clear()

    def _clear(self) -> None:
        self.rows: list[Sequence[Any]] = []
        self.lines: list[int] = []
        self._problems: dict[int, str] = {}
        self.bytes = 0

    def full(self) -> bool:
        return len(self.rows) >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    def add_broken(self, problem: str, line: int) -> None:
        self._problems[len(self.rows)] = problem
        self.rows.append([None] * self._width)
        self.lines.append(line)

    def taken(self) -> Chunk:
        """What was gathered, with all its problems; there has to be a row."""
        columns: list[Sequence[Any]] = list(zip(*self.rows, strict=True))
        problems = self._problems
        for place in _not_utf8(columns):
            problems[place] = "not UTF-8"
            self.rows[place] = [readable(v) if isinstance(v, str) else v for v in self.rows[place]]
        if problems:
            columns = list(zip(*self.rows, strict=True))
        titles = list(columns[self._title])
        # Looking at all at once finds clean rows, which most are, at a fraction of the cost.
        if problems or not (set(map(type, titles)) <= {str} and all(map(str.strip, titles))):
            for place, title in enumerate(titles):
                problem = problems.get(place) or _problem(title)
                if problem:
                    problems[place], titles[place] = problem, ""
        chunk = Chunk(columns, self.lines, titles, problems)
        self._clear()
        return chunk


def of_titles(titles: Sequence[str]) -> Listing:
    """Titles that are at hand."""
    gathered = Gathered(1, 0)
    gathered.rows = [[title] for title in titles]
    return Listing(["title"], 0, None, len(titles), iter([gathered.taken()] if titles else []))


def kept_columns(
    name: str, names: Sequence[str], column: str, keep: Sequence[str] | None, hint: str
) -> list[str]:
    """The columns to keep, in the order of the file, that of titles always among them.

    Raises:
        ValueError: one of them is not there, or twice.
    """
    wanted = [column, *(names if keep is None else keep)]
    for each in wanted:
        if each not in names:
            raise ValueError(
                f"{name} has no column {each!r}. Its columns, separated by commas, are "
                f"{','.join(names)[:200]}; {hint}"
            )
        if names.count(each) > 1:
            raise ValueError(f"{name} has the column {each!r} twice")
    return [each for each in names if each in wanted]


def readable(text: str) -> str:
    """The same text with bytes that are no UTF-8 written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _problem(title: Any) -> str:
    if title is None:
        return "no title"
    if not isinstance(title, str):
        return "title is no text"
    return "" if title.strip() else "empty title"


def _not_utf8(columns: list[Sequence[Any]]) -> list[int]:
    """Rows with bytes that are no UTF-8."""
    found: set[int] = set()
    for column in columns:
        texts = column
        if set(map(type, column)) != {str}:
            texts = [value if isinstance(value, str) else "" for value in column]
        if not _is_utf8("".join(texts)):
            found |= {place for place, text in enumerate(texts) if not _is_utf8(text)}
    return sorted(found)


def _is_utf8(text: str) -> bool:
    # Bytes that are no UTF-8 were decoded to lone surrogates, which do not encode.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
