"""Rows of a Parquet file. Import it only where a file is one: pyarrow takes long to load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from titles.listings.rows import Batch

_ROWS = 1024  # read at a time


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a pyarrow ParquetFile; raises ValueError if it is damaged, or not a Parquet file."""
    with _whole(file):
        table = pq.ParquetFile(file)
    with table:
        yield table


def rows(file: Path, table: Any, columns: Sequence[str]) -> Iterator[Batch]:
    """Yield the values of some columns of all rows. Raises ValueError as `opened` does."""
    with _whole(file):
        for batch in table.iter_batches(_ROWS, columns=list(columns)):
            values = (_objects(batch.column(name)) for name in columns)
            yield Batch(list(zip(*values, strict=True)), (), batch.nbytes)


def is_text(kind: pa.DataType) -> bool:
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(text) or pa.types.is_large_string(text))


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file: {error}") from None


def _objects(column: Any) -> list[Any]:
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:  # Parquet does not check its text
        binary = column.cast(pa.string()).cast(pa.binary()).to_pylist()
        return [value and value.decode("utf-8", "surrogateescape") for value in binary]
