"""Rows of a Parquet file. Import it only where a file is one: pyarrow takes long to load."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from titles.listings import parquet_values
from titles.listings.rows import CHUNK_BYTES, LINE_TOO_LONG, Batch, Broken, Row
from titles.listings.streams import LONGEST_LINE

_ROWS = 1024  # read at a time
_PIECE = 4 * 1024 * 1024  # bytes of text of rows that become objects of Python together
_PAGES = 64 * 1024 * 1024  # bytes that are no risk
_MOST_AVERAGE = 64 * 1024  # bytes of a value
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_DICTIONARIES = (pa.types.is_string, pa.types.is_binary)  # can be read as dictionaries
# Writers that do not mark text as such leave binary columns. A column without any value has no type.
_TEXTS = (
    *_STRINGS,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a pyarrow ParquetFile.

    Raises ValueError if it is damaged, not a Parquet file, or has names that are not UTF-8.
    """
    try:
        with _whole(file):
            table = pq.ParquetFile(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: the name of a column is not UTF-8: {error}") from None
    with table:
        yield table


def rows(
    file: Path, table: Any, columns: Sequence[int], texts: Collection[int], *, keep: bool = False
) -> Iterator[Batch]:
    """Yield the values of the columns at these places of all rows.

    texts: places of columns of which `is_text` is true; their values are text, with bytes that are not
    UTF-8 as lone surrogates. keep: yield the values also as they stand in the file, as `Batch.table`.
    A value beyond Python's types is text; a row with one that cannot be written as such, or with more
    text than a line may have, is Broken. Raises ValueError as `opened` does, if values are too large to
    be read, and if pyarrow cannot read a column.
    """
    names = table.schema_arrow.names
    wanted = dict.fromkeys(names[place] for place in columns)
    _check_sizes(file, table.metadata, wanted)
    of_text = {names[place] for place in columns if _is(table.schema_arrow.types[place], _DICTIONARIES)}
    with _whole(file), pq.ParquetFile(file, read_dictionary=list(of_text)) as compact:
        # A value of a dictionary is then in memory once, however many rows it has. It takes longer.
        source = compact if _multiplies(compact, list(of_text)) else table
        batches = source.iter_batches(_ROWS, columns=list(wanted))
        while (whole := _next(file, batches)) is not None:
            sizes_N = _row_sizes(file, whole)
            for start, stop in _pieces(sizes_N):
                piece = whole.slice(start, stop - start)
                # It has all columns of these names, and those of which such a name and a point is the
                # start.
                found = piece.schema.names
                taken = []
                for place in columns:
                    same = [at for at, name in enumerate(found) if name == names[place]]
                    taken.append(piece.column(same[names[:place].count(names[place])]))
                size = int(sizes_N[start:stop].sum())
                if stop - start == 1 and size > LONGEST_LINE:
                    read: list[Row] = [Broken(LINE_TOO_LONG, "")]
                else:
                    read = _rows(taken, columns, texts, names)
                kept = _as_stored(taken, columns, table.schema_arrow) if keep else None
                yield Batch(read, (), size, kept)


def _rows(
    taken: Sequence[Any], columns: Sequence[int], texts: Collection[int], names: Sequence[str]
) -> list[Row]:
    values = []
    broken: dict[int, str] = {}  # names of columns, by row
    for place, column in zip(columns, taken, strict=True):
        if place in texts or _is(column.type, _STRINGS):
            values.append(_strings(column))
            continue
        objects, unreadable = parquet_values.objects(column)
        values.append(objects)
        broken |= dict.fromkeys(unreadable, names[place])
    read: list[Row] = list(zip(*values, strict=True))
    for row, name in broken.items():
        read[row] = Broken("unreadable_value", name, list(read[row]))
    return read


def _as_stored(taken: Sequence[Any], columns: Sequence[int], schema: Any) -> Any:
    """The columns as a table, without the dictionaries that only the reading made."""
    kinds = [schema.types[place] for place in columns]
    stored = [
        column if column.type == kind else column.cast(kind)
        for column, kind in zip(taken, kinds, strict=True)
    ]
    return pa.Table.from_arrays(stored, list(map(str, columns)))


def joined(tables: Sequence[Any]) -> Any:
    """One table of several with the same columns."""
    return pa.concat_tables(tables)


def _multiplies(compact: Any, names: list[str]) -> bool:
    """Whether a dictionary has values that fill the memory if each row has one of its own."""
    for number in range(compact.num_row_groups if names else 0):
        # Before its first row, a dictionary is read as a whole.
        for batch in compact.iter_batches(1, row_groups=[number], columns=names):
            for column in batch.columns:
                if pa.types.is_dictionary(column.type) and len(column.dictionary):
                    longest = pc.max(pc.binary_length(column.dictionary)).as_py()
                    if (longest or 0) * _ROWS > _PIECE:
                        return True
            break
    return False


def _row_sizes(file: Path, whole: Any) -> Any:
    """Bytes of each row of a batch, (N,)."""
    sizes_N = np.zeros(len(whole), np.int64)
    for name, column in zip(whole.schema.names, whole.columns, strict=True):
        if _is(column.type, _DICTIONARIES):
            sizes_N += _lengths(column)
        elif column.nbytes > CHUNK_BYTES:
            raise ValueError(f"{file}: values of column {name!r} are too large to be read")
        else:
            sizes_N += column.nbytes // max(1, len(whole))
    return sizes_N


def _lengths(column: Any) -> Any:
    """Bytes of each text of a column, (N,)."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
    else:
        lengths = pc.binary_length(column)
    return lengths.fill_null(0).to_numpy(zero_copy_only=False)


def _pieces(sizes_N: Any) -> Iterator[tuple[int, int]]:
    """Starts and ends of runs of rows with little text, or of one row."""
    if not len(sizes_N) or (sizes_N.sum() <= _PIECE and sizes_N.max() <= LONGEST_LINE):
        yield 0, len(sizes_N)
        return
    start, held = 0, 0
    for row, size in enumerate(sizes_N.tolist()):
        if row > start and held + size > LONGEST_LINE:
            yield start, row
            start, held = row, 0
        held += size
    yield start, len(sizes_N)


def _check_sizes(file: Path, metadata: Any, names: Collection[str]) -> None:
    """Raise ValueError if values, as the file announces them, are on average too large for any listing:
    a column of a row group is read in pages, each as a whole."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            name = column.path_in_schema.partition(".")[0]
            if name not in names and column.path_in_schema not in names:
                continue
            rows = max(1, group.num_rows)
            if column.total_uncompressed_size > max(_PAGES, rows * _MOST_AVERAGE) or (
                column.num_values > max(_PAGES, rows * _MOST_AVERAGE)
            ):
                raise ValueError(
                    f"{file}: values of column {name!r} are too large to be read, in row group {number}"
                )


def is_text(kind: pa.DataType) -> bool:
    return _is(kind, _TEXTS)


def _is(kind: pa.DataType, tests: Sequence[Any]) -> bool:
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(text) for test in tests)


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file: {error}") from None


def _next(file: Path, batches: Iterator[Any]) -> Any:
    with _whole(file):
        try:
            return next(batches, None)
        except pa.ArrowInvalid as error:
            if "Expected all lists to be of size" not in str(error):
                raise
    raise ValueError(
        f"{file} has a column of lists of fixed size, of which some are missing: pyarrow cannot read "
        "it; say with --keep which columns to keep"
    )


def _strings(column: Any) -> list[str | None]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return column.cast(pa.large_string()).to_pylist()  # type: ignore[no-any-return]
    except ValueError:  # Parquet does not check its text
        binary = column.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in binary]
