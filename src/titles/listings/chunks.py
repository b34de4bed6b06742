"""Rows of a source in columns, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from titles.listings.clean import Columns

EXCERPT = 200  # characters
COLUMNS = "title", "category", "language", "label_quality"
MISSING: Any = ...  # in place of a value that a JSON object must have


class Rejected(NamedTuple):
    """A row that cannot be used; `excerpt` is its start."""

    file: str
    line: int
    reason: str
    excerpt: str


@dataclass
class Chunk:
    """Rows of one file in columns of equal length, in file order."""

    file: str  # its path in a source that is a folder
    split: str  # given by the file; "" where rows are still to be split
    lines: list[int]  # where rows start, from 1; the row's number in a Parquet file
    rows_read: int  # with those that are rejected
    titles: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    qualities: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    respelled: Counter[str] = field(default_factory=Counter)  # rows by spelling that is not canonical

    def reject(self, line: int, reason: str, excerpt: str) -> None:
        self.rejected.append(Rejected(self.file, line, reason, excerpt[:EXCERPT]))

    def title(self, row: int) -> str:
        return self.titles[row]

    def column(self, name: str) -> list[str]:
        return dict(zip(COLUMNS, self.columns(), strict=True))[name]

    def keep(self, flags: Sequence[bool]) -> None:
        """Keep the rows whose flag is set."""
        for column in self.columns():
            column[:] = compress(column, flags)
        self.lines = list(compress(self.lines, flags))

    def set_aside(self, reasons: Sequence[str]) -> None:
        """Reject the rows with a reason; "" keeps a row."""
        for line, reason, *row in zip(self.lines, reasons, *self.columns(), strict=True):
            if reason:
                excerpt = ",".join("" if value is MISSING else str(value) for value in row)
                self.reject(line, reason, excerpt)
        self.keep([not reason for reason in reasons])

    def columns(self) -> tuple[list[str], list[str], list[str], list[str]]:
        return self.titles, self.categories, self.languages, self.qualities


@dataclass
class CleanChunk:
    """A chunk whose rows were all in order, in columns of Arrow and numpy."""

    file: str
    lines: NDArray[np.int64]
    rows_read: int
    columns: Columns
    split: str = ""
    rejected: list[Rejected] = field(default_factory=list)
    respelled: Counter[str] = field(default_factory=Counter)  # none

    def reject(self, line: int, reason: str, excerpt: str) -> None:
        self.rejected.append(Rejected(self.file, line, reason, excerpt[:EXCERPT]))

    def title(self, row: int) -> str:
        return str(self.columns.titles[row])

    def listed(self) -> Chunk:
        """The same rows in lists."""
        category, language, quality = (self.columns.names[name].values() for name in COLUMNS[1:])
        return Chunk(
            self.file,
            self.split,
            self.lines.tolist(),
            self.rows_read,
            self.columns.titles.to_pylist(),
            category,
            language,
            quality,
        )

    def keep(self, flags_N: NDArray[np.bool_]) -> None:
        """Keep the rows whose flag is set."""
        self.columns, self.lines = self.columns.kept(flags_N), self.lines[flags_N]
