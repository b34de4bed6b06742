"""Rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from titles.listings.rows import Batch

_ROWS = 1024  # read at a time


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a pyarrow ParquetFile.

    Raises:
        ValueError: the file is damaged, or not a Parquet file.
    """
    import pyarrow.parquet as pq

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


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file: {error}") from None


def _objects(column: Any) -> list[Any]:
    import pyarrow as pa

    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check its text
        binary = column.cast(pa.string()).cast(pa.binary()).to_pylist()
        found = [value and value.decode("utf-8", "surrogateescape") for value in binary]
    return found
