"""Blocks of a CSV file without a doubtful line, read into columns by Arrow.

`csv_reader` and `sources` define how a file is read. A block is only read here where the outcome is
theirs; all others are left to them. Import it only for large files: pyarrow takes long to load.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

_NAMES = pa.dictionary(pa.int32(), pa.string())
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PLAIN = np.array([chr(code).isalnum() and code < 0x80 for code in range(256)])


class Names(NamedTuple):
    """A column of few distinct values: these, as they first occur, and the position of each row's."""

    distinct: list[str]
    codes_N: NDArray[np.int32]

    def rows_of(self, name: str) -> NDArray[np.bool_]:
        code = self.distinct.index(name) if name in self.distinct else -1
        flags_N: NDArray[np.bool_] = self.codes_N == code
        return flags_N

    def kept(self, flags_N: NDArray[np.bool_]) -> Names:
        codes_N = self.codes_N[flags_N]
        used, first, places_N = np.unique(codes_N, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return Names([self.distinct[code] for code in used[order].tolist()], rank[places_N])

    def values(self) -> list[str]:
        return [self.distinct[code] for code in self.codes_N.tolist()]


@dataclass
class Columns:
    """Rows that are all in order: N titles, and other columns by their names."""

    titles: Any  # of pyarrow, text
    names: dict[str, Names] = field(default_factory=dict)

    def __getitem__(self, part: slice) -> Columns:
        flags_N = np.zeros(len(self.titles), np.bool_)
        flags_N[part] = True
        return self.kept(flags_N)

    def kept(self, flags_N: NDArray[np.bool_]) -> Columns:
        if flags_N.all():
            return self
        titles = self.titles.filter(pa.array(flags_N))
        return Columns(titles, {name: values.kept(flags_N) for name, values in self.names.items()})

    def text(self) -> tuple[bytes, NDArray[np.int64]]:
        """The titles in UTF-8, concatenated, and the end of each."""
        offsets = np.frombuffer(self.titles.buffers()[1], np.int32)
        offsets = offsets[self.titles.offset :][: len(self.titles) + 1].astype(np.int64)
        data = self.titles.buffers()[2]
        return data[int(offsets[0]) : int(offsets[-1])].to_pybytes(), offsets[1:] - offsets[0]


def parse(
    lines: Sequence[bytes], places: Mapping[str, int], width: int, delimiter: str
) -> Columns | None:
    """The columns at these places of a table of so many columns, of which one is "title".

    None where a line is no row, or the csv module might see another one.
    """
    text = b"".join(lines)
    if b"\0" in text or text.startswith(_BYTE_ORDER_MARK) or text.count(b"\r") != text.count(b"\r\n"):
        return None
    names = list(map(str, range(width)))
    kinds = {str(place): _NAMES for place in places.values()} | {str(places["title"]): pa.string()}
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
            pa.csv.ParseOptions(delimiter=delimiter),
            pa.csv.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), strings_can_be_null=False
            ),
        )
        if len(table) != len(lines) or not _as_csv(table, lines, width, delimiter):
            return None
    except (pa.ArrowInvalid, csv.Error, UnicodeDecodeError):
        return None
    columns = {name: table.column(str(place)).combine_chunks() for name, place in places.items()}
    titles = columns.pop("title")
    return Columns(
        titles,
        {name: Names(c.dictionary.to_pylist(), c.indices.to_numpy()) for name, c in columns.items()},
    )


def _as_csv(table: Any, lines: Sequence[bytes], width: int, delimiter: str) -> bool:
    """Whether the csv module reads the same in the lines with quotes, one row in each."""
    quoted = [row for row, line in enumerate(lines) if b'"' in line]
    if not quoted:
        return True
    texts = [lines[row].decode() for row in quoted]
    rows = list(csv.reader(texts, strict=True, delimiter=delimiter))
    if len(rows) != len(texts) or set(map(len, rows)) != {width}:
        return False
    taken = table.take(pa.array(quoted))
    columns = list(zip(*rows, strict=True))
    return all(
        taken.column(place).to_pylist() == list(columns[int(place)]) for place in table.column_names
    )


def has_blank_or_long(titles: Any, most_chars: int) -> bool:
    """Whether a title is empty but for white space, or longer."""
    offsets = np.frombuffer(titles.buffers()[1], np.int32)[titles.offset :][: len(titles) + 1]
    if not len(titles) or not (offsets[1:] > offsets[:-1]).all():
        return True
    if np.diff(offsets).max() > most_chars and pc.max(pc.utf8_length(titles)).as_py() > most_chars:
        return True
    first = np.frombuffer(titles.buffers()[2], np.uint8)[offsets[:-1]]
    doubtful = titles.filter(pa.array(~_PLAIN[first])).to_pylist()
    return not all(map(str.strip, doubtful))
