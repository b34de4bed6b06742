"""Writes predictions as CSV, JSON lines, Parquet, or a table for a terminal.

The columns: the row's number, the columns kept of the listing, then category_1, probability_1,
category_2 and so on, the likeliest first, and problem: the reason why a row has no category. Of sets:
categories and size in their place. In CSV, categories is a line of CSV by itself, separated by bars.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import orjson

from titles.data import console, formulas
from titles.data.files import atomic_stream
from titles.data.messages import printable
from titles.listings.files import CSV, PARQUET
from titles.listings.json_reader import to_json
from titles.listings.listing import Chunk, Listing

if TYPE_CHECKING:  # loads torch
    from titles.predict.classifier import CategorySets, Ranked

TABLE = "table"
UNCLASSIFIED = -1  # in place of a category's id
_OF_SETS = ("categories", "size")
_BAR = "|"
_DIGITS = 6  # of a probability
_OPTION = orjson.OPT_NON_STR_KEYS


class Predicted(NamedTuple):
    """Consecutive rows and their predictions.

    first: number of the first row, from 1. problems: "" for a row that was classified.
    """

    first: int
    chunk: Chunk
    found: Ranked | CategorySets
    problems: list[str]


Write = Callable[[Predicted], None]
Convert = Callable[[Sequence[Any]], Sequence[Any]]  # a column
Answers = Callable[[Any], list[Sequence[Any]]]  # predictions to columns


def columns(listing: Listing, k: int | None) -> list[str]:
    """Names of all columns; k is None for sets.

    Raises:
        ValueError: the listing has a column of the same name as one of the output's.
    """
    ours = list(_OF_SETS)
    if k is not None:
        ours = [f"{name}_{place}" for place in range(1, k + 1) for name in ("category", "probability")]
    for name in ("row", *ours, "problem"):
        if name in listing.columns:
            raise ValueError(
                f"the listing has a column {name!r}, which the output needs: rename it, or say with "
                "--keep which columns to keep"
            )
    return ["row", *listing.columns, *ours, "problem"]


@contextmanager
def writer(
    out: Path | None,
    kind: str,
    listing: Listing,
    labels: Sequence[str],
    k: int | None,
    without_formulas: bool = False,
) -> Iterator[Write]:
    """Yield a function that writes rows. The file appears, whole, when the block ends without an error.

    Args:
        out: None is the standard output.
        kind: TABLE, CSV, JSON_LINES or PARQUET.
        k: categories of each row; None for sets.
        without_formulas: for CSV, see `formulas.escaped`.

    Raises:
        ValueError: formulas are to be escaped in another format than CSV, or as `columns`.
    """
    if without_formulas and kind != CSV:
        raise ValueError(f"--escape-formulas is for CSV, the output is {kind}")
    names = columns(listing, k)
    named = np.array([*labels, None], object)  # UNCLASSIFIED, the last, is None
    with ExitStack() as stack:
        if kind == TABLE:
            yield _table_writer(listing, labels)
            return
        stream: Any
        if out is None:
            stream = console.output()
        else:
            stream = stack.enter_context(atomic_stream(out))
            if out.name.endswith(".gz") and kind != PARQUET:
                # No time stamp: equal rows give equal bytes.
                stream = stack.enter_context(gzip.GzipFile("", "wb", 6, stream, mtime=0))
        of_sets = _sets_as_text if kind == CSV else _sets
        answers: Answers = partial(_ranks if k is not None else of_sets, named)
        if kind == PARQUET:
            yield stack.enter_context(_parquet_writer(stream, listing, names, answers))
        else:
            yield (
                _csv_writer(stream, names, answers, without_formulas)
                if kind == CSV
                else _json_writer(stream, names, answers)
            )
    if out is None:
        sys.stdout.flush()


def _values(predicted: Predicted, answers: Answers, convert: Convert = list) -> list[Sequence[Any]]:
    """The values of each column; `convert` is applied to the columns of the listing."""
    numbers = range(predicted.first, predicted.first + len(predicted.problems))
    kept = map(convert, predicted.chunk.columns)
    return [numbers, *kept, *answers(predicted.found), predicted.problems]


def _ranks(named: Any, ranked: Ranked) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    without = np.flatnonzero(ranked.empty_N).tolist()
    rounded_NK = ranked.probabilities_NK.astype(np.float64).round(_DIGITS)
    for place in range(ranked.categories_NK.shape[1]):
        probabilities = rounded_NK[:, place].tolist()
        for row in without:
            probabilities[row] = None
        found += [named[ranked.categories_NK[:, place]].tolist(), probabilities]
    return found


def _sets(named: Any, found: CategorySets) -> list[Sequence[Any]]:
    names = named[found.categories_S].tolist()
    ends = found.ends_N.tolist()
    sets = [names[start:end] or None for start, end in zip([0, *ends], ends, strict=False)]
    return [sets, [each and len(each) for each in sets]]


def _sets_as_text(named: Any, found: CategorySets) -> list[Sequence[Any]]:
    sets, sizes = _sets(named, found)
    return [[each and _line(tuple(each)) for each in sets], sizes]


@lru_cache(10_000)
def _line(names: tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=_BAR, lineterminator="").writerow(names)
    return text.getvalue()


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    """Values of a listing as text; None stays."""

    def text(value: Any) -> Any:
        if isinstance(value, list | dict | bool):
            return orjson.dumps(value, default=to_json, option=_OPTION).decode()
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        return value if value is None else str(value)

    return column if set(map(type, column)) == {str} else list(map(text, column))


def _csv_texts(column: Sequence[Any]) -> Sequence[Any]:
    texts = _texts(column)
    if "\r" in "".join(filter(None, texts)):
        # csv does not quote a lone carriage return, but readers end a row there.
        return [t.replace("\r", "\n") if t and "\r" in t and "\n" not in t else t for t in texts]
    return texts


def _csv_writer(
    stream: BinaryIO, names: list[str], answers: Answers, without_formulas: bool = False
) -> Write:
    def write_rows(rows: Any) -> None:
        if without_formulas:
            rows = (list(map(formulas.escaped, row)) for row in rows)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))

    write_rows([names])
    return lambda predicted: write_rows(zip(*_values(predicted, answers, _csv_texts), strict=True))


def _json_writer(stream: BinaryIO, names: list[str], answers: Answers) -> Write:
    option = orjson.OPT_APPEND_NEWLINE | _OPTION

    def write(predicted: Predicted) -> None:
        for row in zip(*_values(predicted, answers), strict=True):
            found = dict(zip(names, row, strict=True))
            stream.write(orjson.dumps(found, default=to_json, option=option))

    return write


@contextmanager
def _parquet_writer(
    stream: BinaryIO, listing: Listing, names: list[str], answers: Answers
) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from titles.listings import parquet_values

    types = listing.types or [pa.string()] * len(listing.columns)
    flat = not any(map(parquet_values.is_deep, types))
    ours = [pa.string(), pa.float32()] * ((len(names) - len(types) - 2) // 2)
    if names[-1 - len(_OF_SETS) : -1] == [*_OF_SETS]:
        ours = [pa.list_(pa.string()), pa.int64()]
    schema = pa.schema(list(zip(names, [pa.int64(), *types, *ours, pa.string()], strict=True)))

    def write(predicted: Predicted) -> None:
        values = _values(predicted, answers, _texts if listing.types is None else list)
        values[-1] = [problem or None for problem in predicted.problems]
        if (kept := predicted.chunk.table) is not None:
            columns = map(parquet_values.to_write, kept.columns, predicted.chunk.columns)
            values[1 : 1 + len(kept.columns)] = columns
        table.write_table(pa.table(values, schema=schema))

    try:
        with pq.ParquetWriter(stream, schema, compression="zstd", store_schema=flat) as table:
            yield write
    except pa.ArrowException as error:
        raise ValueError(
            f"a column of the listing cannot be written to Parquet ({error}): say with --keep which "
            "columns to keep, or write another format"
        ) from None


def _table_writer(listing: Listing, labels: Sequence[str]) -> Write:
    """One line per title, cut to the width of the terminal."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    terminal = console.console()

    def shown(title: Any) -> str:
        # Control characters in titles must not reach the terminal.
        return "".join(c if c.isprintable() else " " for c in str(title or ""))

    def write(predicted: Predicted) -> None:
        texts = list(map(shown, predicted.chunk.columns[listing.title]))
        width = min(max(map(cell_len, texts)), terminal.width // 2)
        rows = zip(texts, predicted.problems, predicted.found.rows(), strict=True)
        for text, problem, (categories, probabilities) in rows:
            line = Text(set_cell_size(text, width) + "  ")
            line.append(printable(problem), "red")
            pairs = [] if problem else zip(categories, probabilities, strict=True)
            for place, (category, probability) in enumerate(pairs):
                name = f"{printable(labels[category])} {probability:.1%}  "
                line.append(name, "" if place else "bold green")
            line.rstrip()
            line.truncate(terminal.width, overflow="ellipsis")
            terminal.print(line, no_wrap=True, soft_wrap=False)

    return write
