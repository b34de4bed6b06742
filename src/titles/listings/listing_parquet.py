"""Rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from titles.listings.listing import Chunk, Gathered, Listing, kept_columns

_ROWS = 1024  # read at a time


@contextmanager
def opened_parquet(file: Path, column: str, keep: Sequence[str] | None, hint: str) -> Iterator[Listing]:
    """See `listing_files.opened`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _whole_parquet(file):
        table = pq.ParquetFile(file)
    with table:
        schema = table.schema_arrow
        columns = kept_columns(str(file), schema.names, column, keep, hint)
        types = [schema.field(name).type for name in columns]
        kind = schema.field(column).type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            raise ValueError(f"{file}: column {column!r} holds {kind}, not text; {hint}")
        title = columns.index(column)
        chunks = _chunks(file, table, columns, title)
        yield Listing(columns, title, types, table.metadata.num_rows, chunks)


@contextmanager
def _whole_parquet(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file: {error}") from None


def _chunks(file: Path, table: Any, columns: list[str], title: int) -> Iterator[Chunk]:
    gathered = Gathered(len(columns), title)
    with _whole_parquet(file):
        for batch in table.iter_batches(_ROWS, columns=columns):
            gathered.rows += zip(*(_objects(batch.column(name)) for name in columns), strict=True)
            gathered.bytes += batch.nbytes
            if gathered.full():
                yield gathered.taken()
    if gathered.rows:
        yield gathered.taken()


def _objects(column: Any) -> list[Any]:
    import pyarrow as pa

    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check its text
        binary = column.cast(pa.string()).cast(pa.binary()).to_pylist()
        found = [value and value.decode("utf-8", "surrogateescape") for value in binary]
    return found
