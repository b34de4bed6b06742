"""A synthetic catalogue of marketplace listings, to try the pipeline without the challenge's data.

With 246 categories, `titles.datasets.grammar` draws it row by row; with all 1,588 of the challenge,
`titles.datasets.wide` draws blocks of rows at once. Both take their words from
`titles.datasets.catalogue`.
"""

from __future__ import annotations

import gzip
import io
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

from titles.data.files import WriteError, atomic_file, is_one_file
from titles.data.interrupts import undisturbed
from titles.datasets import grammar
from titles.datasets.grammar import SampleRow

HEADER = SampleRow._fields[:4]
BY_HAND, WIDE = 246, 1588  # categories
_MOST_ROWS = 1_000_000_000
_BYTES = {"": 96, ".gz": 36, ".parquet": 44}  # of a row, by the end of a file's name, and a little more
_MOST_BYTES_OF_TRUTH = 30


def generate(rows: int, seed: int) -> Iterator[SampleRow]:
    """Listings of 246 categories that depend on the seed only: fewer ``rows`` are the first of more.

    At most one block of titles is kept in memory. Raises ValueError at once for ``rows`` out of range or
    a negative ``seed``.
    """
    _check(rows, seed)
    return islice(chain.from_iterable(grammar.block(seed, number) for number in count()), rows)


def _check(rows: int, seed: int) -> None:
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    if rows > _MOST_ROWS:
        raise ValueError(f"rows must be at most {_MOST_ROWS:,}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")


# -- blocks


class _Block(NamedTuple):
    """Rows as they go to the files: lines of CSV, or Arrow's table in its streaming format."""

    rows: int
    parts: list[bytes]


def _table(categories: int, rows: int, seed: int, number: int) -> Any:
    import pyarrow as pa

    if categories == WIDE:
        from titles.datasets import wide

        return wide.block(rows, seed, number)
    found = list(islice(grammar.block(seed, number), rows - number * grammar.BLOCK))
    columns = zip(*found, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], SampleRow._fields)


def _make(formats: list[str], categories: int, rows: int, seed: int, number: int) -> _Block:
    """One block, with one part for the listings and one for their true categories."""
    table = _table(categories, rows, seed, number)
    columns = HEADER, SampleRow._fields[4:]
    parts = [
        _arrow(table.select(names)) if form == ".parquet" else _lines(table.select(names))
        for form, names in zip(formats, columns, strict=False)
    ]
    return _Block(table.num_rows, parts)


def _lines(table: Any) -> bytes:
    """Lines of CSV, quoted where they have to be, as Python's csv module does it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first, *rest = table.columns
    special = pc.or_(pc.match_substring(first, ","), pc.match_substring(first, '"'))
    doubled = pc.replace_substring(first.filter(special), '"', '""')
    quoted = pc.binary_join_element_wise('"', doubled, '"', "")
    values = [pc.replace_with_mask(first, special, quoted), *rest]
    ended = [*values[:-1], pc.binary_join_element_wise(values[-1], "\n", "")]
    joined = pc.binary_join_element_wise(*ended, ",")
    # The lines are one after the other in the memory of the column.
    _, offsets, content = joined.buffers()
    end = pa.Array.from_buffers(pa.int32(), 1, [None, offsets], offset=len(joined))[0].as_py()
    return bytes(content[:end])


def _arrow(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_batch(table)
    return bytes(sink.getvalue())


def _blocks(make: Callable[[int], _Block], total: int, workers: int) -> Iterator[_Block]:
    """Blocks 0 to `total` in order, made by `workers` processes; a few wait in memory."""
    if min(workers, total) == 1:
        yield from map(make, range(total))
        return
    from joblib.externals.loky import get_reusable_executor

    executor = None
    waiting: deque[Future[_Block]] = deque()
    try:
        with undisturbed():
            executor = get_reusable_executor(max_workers=min(workers, total))
            waiting.append(executor.submit(make, 0))  # starts them
        for number in range(1, total):
            waiting.append(executor.submit(make, number))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        if executor:
            executor.shutdown(wait=True, kill_workers=bool(waiting))


# -- files


@contextmanager
def _file(path: Path, form: str, header: tuple[str, ...]) -> Iterator[Callable[[bytes], object]]:
    """Open a file that takes the place of ``path`` when whole; yield a function that writes a part."""
    with atomic_file(path) as partial_path, ExitStack() as stack:
        if form == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            text = [(name, pa.string()) for name in header]
            writer = stack.enter_context(
                pq.ParquetWriter(partial_path, pa.schema(text), compression="zstd")
            )
            yield lambda part: writer.write_table(pa.ipc.open_stream(part).read_all())
            return
        raw: Any = stack.enter_context(partial_path.open("wb"))
        if form == ".gz":
            # No name and no time in the header, so that equal rows make equal bytes.
            raw = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        # What zlib makes of a text depends on the pieces that it comes in: lines, gathered as ever.
        lines: Any = stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        lines.write(",".join(header) + "\n")
        yield lambda part: lines.writelines(io.StringIO(part.decode(), newline="\n"))


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe, a device or a name of an open file, such as /dev/stdout."""
    place = path.absolute()
    opened = place.parent in (Path("/dev"), Path("/dev/fd")) or place.is_relative_to("/proc")
    return opened or (path.exists() and not path.is_file())


def _check_space(paths: list[Path], forms: list[str], rows: int) -> None:
    """Raise WriteError where a disk has too little space for a file, before any row is made."""
    sizes = _BYTES, dict.fromkeys(_BYTES, _MOST_BYTES_OF_TRUTH)
    needed: dict[int, int] = {}
    for path, form, size in zip(paths, forms, sizes, strict=False):
        folder = next(place for place in path.absolute().parents if place.exists())
        if is_stream(path):
            continue
        device = folder.stat().st_dev
        needed[device] = needed.get(device, 0) + rows * size[form]
        free = shutil.disk_usage(folder).free
        if needed[device] > free:
            from tqdm import tqdm

            sizes_text = [
                tqdm.format_sizeof(n, "B") for n in (needed[device], free, needed[device] - free)
            ]
            raise WriteError(
                path, "about {} are needed, {} are free: {} are missing".format(*sizes_text)
            )


def write_csv(
    rows: int,
    seed: int,
    path: Path,
    truth: Path | None = None,
    progress: bool = True,
    categories: int = BY_HAND,
    workers: int = 1,
) -> None:
    """Write ``rows`` listings to ``path`` as CSV, gzipped if its name ends in ``.gz``; or as Parquet, if
    it ends in ``.parquet``.

    The bytes depend on rows, seed and categories only. ``truth`` names a second file for the true
    categories, in the same order. No file appears or changes unless all rows were written. Memory
    holds a few blocks of rows for each of ``workers`` processes.

    Args:
        categories: 246, in which fewer rows are the first of more; or 1588, whose sizes are the
            challenge's, scaled to ``rows``.

    Raises:
        ValueError: as `generate` does, if a file cannot be written or has not enough space, if both are
            one, and for other numbers of categories.
    """
    from tqdm import tqdm

    _check(rows, seed)
    if categories not in (BY_HAND, WIDE):
        raise ValueError(f"categories must be {BY_HAND} or {WIDE}, not {categories}")
    if truth and is_one_file(path, truth):
        raise ValueError(f"{truth} cannot take both the listings and their true categories")
    paths = [path, truth] if truth else [path]
    forms = [file.suffix if file.suffix in _BYTES else "" for file in paths]
    _check_space(paths, forms, rows)
    block = grammar.BLOCK
    if categories == WIDE:
        from titles.datasets import wide

        block = wide.BLOCK
    make = partial(_make, forms, categories, rows, seed)
    # disable=None: unless stderr is a terminal.
    bar = tqdm(total=rows, unit="row", unit_scale=True, disable=None if progress else True)
    with bar, ExitStack() as stack:
        writers = [
            stack.enter_context(_file(file, form, header))
            for file, form, header in zip(paths, forms, (HEADER, SampleRow._fields[4:]), strict=False)
        ]
        for made in _blocks(make, -(-rows // block), workers):
            for write, part in zip(writers, made.parts, strict=True):
                write(part)
            bar.update(made.rows)
