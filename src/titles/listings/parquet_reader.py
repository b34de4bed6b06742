"""Rows of a Parquet file. Import it only where a file is one: pyarrow takes long to load."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from titles.listings import parquet_values
from titles.listings.rows import Batch, Broken, Row

_ROWS = 1024  # read at a time
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
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
    A value beyond Python's types is text; a row with one that cannot be written as such is Broken.
    Raises ValueError as `opened` does, and if pyarrow cannot read a column.
    """
    names = table.schema_arrow.names
    wanted = dict.fromkeys(names[place] for place in columns)
    batches = table.iter_batches(_ROWS, columns=list(wanted))
    while batch := _next(file, batches):
        # It has all columns of these names, and those of which such a name and a point is the start.
        found = batch.schema.names
        taken, values = [], []
        broken: dict[int, str] = {}  # names of columns, by row
        for place in columns:
            same = [at for at, name in enumerate(found) if name == names[place]]
            column = batch.column(same[names[:place].count(names[place])])
            taken.append(column)
            if place in texts or _is(column.type, _STRINGS):
                values.append(_strings(column))
                continue
            objects, unreadable = parquet_values.objects(column)
            values.append(objects)
            broken |= dict.fromkeys(unreadable, names[place])
        read: list[Row] = list(zip(*values, strict=True))
        for row, name in broken.items():
            read[row] = Broken("unreadable_value", name, list(read[row]))
        whole = pa.Table.from_arrays(taken, list(map(str, columns))) if keep else None
        yield Batch(read, (), batch.nbytes, whole)


def joined(tables: Sequence[Any]) -> Any:
    """One table of several with the same columns."""
    return pa.concat_tables(tables)


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
