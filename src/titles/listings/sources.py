"""Listings to learn from: challenge CSV, title,category CSV, Parquet and the course's JSON lines.

All sources yield the same columns, in chunks, so that memory is bounded for any file size. The format is
found from a file's content; names say which files of a folder are read. Rows that break the schema are
rejected with their line and a reason. A file that is damaged as a whole (cut, corrupt, no header) raises
an error, because the rows before the damage are not the file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from titles.data.contract import GIVEN_SPLITS, LANGUAGES, QUALITIES
from titles.data.messages import has_commands
from titles.listings import json_reader, rows, streams
from titles.listings.chunks import EXCERPT, MISSING, Chunk, CleanChunk
from titles.listings.csv_reader import Clean, CsvReader
from titles.listings.files import CSV, KEY_LINES, PARQUET, format_by_name
from titles.listings.names import are_canonical, canonical, listed
from titles.listings.rows import Batch, Broken, Lines, chunks, groups, is_utf8

if TYPE_CHECKING:
    from titles.listings.clean import Columns

_NAMED = 5  # files in a message
_LONGEST_CATEGORY = 1000  # characters; all distinct categories are held at once
_MOST_COLUMNS = 40
_COURSE = re.compile(
    rf"({'|'.join(LANGUAGES[1:])})\.({'|'.join(GIVEN_SPLITS)})\.jsonl(\.(gz|bz2|xz|zip))?", re.IGNORECASE
)
# Columns that are used, and the value of one that a source lacks.
_COLUMNS: dict[str, Any] = {
    "title": MISSING,
    "category": MISSING,
    "language": LANGUAGES[0],
    "label_quality": QUALITIES[0],
}

Cleanly = Callable[[Callable[["Columns"], bool]], Clean | None]


def read(source: Path, language: str, max_title_chars: int) -> Iterator[Chunk]:
    """Yield the rows of `source` as `blocks` does, all in lists."""
    for chunk in blocks(source, language, max_title_chars):
        yield chunk if isinstance(chunk, Chunk) else chunk.listed()


def blocks(source: Path, language: str, max_title_chars: int) -> Iterator[Chunk | CleanChunk]:
    """Yield the rows of `source`, checked, in chunks.

    Args:
        source: a CSV or Parquet file, a folder of such files (read in the order of their paths), or a
            folder with the course's files.
        language: the language, or "all"; a course folder needs only the files of that language. Rows of
            all languages are yielded, so that the caller can count them.

    Names on stderr the files of a folder that are not read.

    Raises ValueError if the source is missing or damaged, has no labels or is of an unknown format.
    """
    if source.is_dir():
        files = _files(source, language)
    elif source.is_file():
        files = [(source, "")]
    else:
        raise ValueError(
            f"{source} does not exist: set prepare.source to a file that does, "
            f"or fetch it with `dvc pull {source}`"
        )
    for file, split in files:
        path = file.relative_to(source).as_posix() if file != source else file.name
        # A name that is not UTF-8 could not be written to files of results.
        path = path.encode("utf-8", "backslashreplace").decode()
        with _opened(file, split) as (names, batches, clean):
            first = 1
            careful = groups(batches)
            while True:
                while clean and (found := clean(lambda columns: _accepted(columns, max_title_chars))):
                    yield from _clean_chunks(path, found)
                if (group := next(careful, None)) is None:
                    break
                for batch in chunks(group):
                    lines = batch.lines or range(first, first + len(batch.rows))
                    chunk = _chunk(path, split, names, batch._replace(lines=lines))
                    _check(chunk, max_title_chars)
                    yield chunk
                    first += len(batch.rows)


def _files(folder: Path, language: str) -> list[tuple[Path, str]]:
    """The files to read, each with its split, "" where it has none; names those that are left out."""
    found, hidden = _found(folder)
    course = {file: match for file in found if (match := _COURSE.fullmatch(file.name))}
    # Only in the folder itself: a file further down may be a copy.
    course = {file: match for file, match in course.items() if file.parent == folder}
    files = _course_files(folder, course, language)
    if not files:
        files = [
            (file, "")
            for file in found
            if file.is_file() and format_by_name(file.name) in (CSV, PARQUET)
        ]
    # Files of a language that is not wanted are left out by the parameter.
    read = course.keys() | {file for file, _ in files}
    left = [file for file in found if file not in read]
    left += [file for file in hidden if format_by_name(file.name)]
    names = [file.relative_to(folder).as_posix() for file in sorted(left)]
    told = listed(names, _NAMED)
    if not files:
        raise ValueError(
            f"{folder} has neither .csv, .tsv or .parquet files nor the course's "
            "{language}.{train,validation,test}.jsonl.gz" + f"; it has {told}" * bool(names)
        )
    if names:
        kinds = "the course's files" if course else ".csv, .tsv and .parquet files, also packed,"
        print(f"warning: {folder}: {kinds} are read, these are left out: {told}", file=sys.stderr)
    return files


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files below a folder, in the order of their paths, and those that are not read since they are
    hidden."""

    def fail(error: OSError) -> None:
        raise error

    found: list[Path] = []
    hidden: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=fail):
        # Links to folders, which may lead in circles, are not followed.
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        for path in (Path(here) / name for name in [*names, *links]):
            parts = path.relative_to(folder).parts
            # A Mac leaves its attributes in files such as ._a.csv.
            is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
            (hidden if is_hidden else found).append(path)
    return sorted(found), sorted(hidden)


def _course_files(
    folder: Path, found: Mapping[Path, re.Match[str]], language: str
) -> list[tuple[Path, str]]:
    """The course's files, each with its split; none where the folder has none of them."""
    files: dict[tuple[str, str], Path] = {}
    for file, match in found.items():
        first = files.setdefault((match[1].lower(), match[2].lower()), file)
        if first != file:
            raise ValueError(
                f"{folder} holds {first.name} and {file.name}, which are the same: remove one"
            )
    languages = [name for name in LANGUAGES[1:] if any(name == found for found, _ in files)]
    if languages and language != "all":
        languages = [language]
    wanted = [(name, split) for name in languages for split in GIVEN_SPLITS]
    if missing := [f"{name}.{split}.jsonl.gz" for name, split in wanted if (name, split) not in files]:
        raise ValueError(f"{folder} holds the course's files, but it lacks {', '.join(missing)}")
    return [(files[each], each[1]) for each in wanted]


@contextmanager
def _opened(file: Path, split: str) -> Iterator[tuple[Sequence[str], Iterator[Batch], Cleanly | None]]:
    """Yield the names of the values in a row, the rows and, if there is a faster way to those that are
    in order, it."""
    with file.open("rb") as raw:
        is_parquet = raw.read(4) == b"PAR1"
    if is_parquet and not split:
        from titles.listings import parquet_reader

        with parquet_reader.opened(file) as table:
            places = _known_columns(file, table.schema_arrow.names)
            for name, place in places.items():
                if not parquet_reader.is_text(kind := table.schema_arrow.types[place]):
                    raise ValueError(f"{file}: column {name!r} holds {kind}, not text: convert it")
            yield (
                list(places),
                parquet_reader.rows(file, table, [*places.values()], {*places.values()}),
                None,
            )
        return
    with streams.opened(file) as raw:
        if split:
            lines = Lines(streams.lines(raw), str(file))
            defaults = _COLUMNS | {"split": split}
            keys, _ = json_reader.first_keys(lines, KEY_LINES)
            yield list(defaults), json_reader.named_rows(lines, defaults, keys), None
            if lines.number == 1:
                raise ValueError(f"{file} is empty: expected one JSON object per line")
        else:
            reader = CsvReader(raw, str(file), "such as title,category", {"title", "category"})
            places = _known_columns(file, reader.header)
            careful = reader.rows(list(places.values()), keep=False)
            yield list(places), careful, partial(reader.clean, places)


def _known_columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    """The columns of a file that are used, each with its place, in the file's order.

    Raises ValueError if titles or categories are missing, or one of these columns is there twice.
    """
    names = list(map(canonical, header))
    columns = listed(names, _MOST_COLUMNS)[:EXCERPT]
    wanted = "title,label_quality,language,category or title,category"
    for name in _COLUMNS:
        if names.count(name) > 1:
            raise ValueError(f"{file} has the column {name!r} twice, in the header {columns}")
    if "title" in names and "category" not in names:
        raise ValueError(
            f"{file} has titles but no categories (columns {columns}): there is nothing to learn from; "
            f"expected {wanted}"
        )
    if not {"title", "category"} <= set(names):
        raise ValueError(
            f"{file}: columns {columns} are not known; expected {wanted}, in lower case, separated by "
            "commas, semicolons, tabs or bars, in UTF-8"
        )
    return {name: place for place, name in enumerate(names) if name in _COLUMNS}


def _chunk(file: str, split: str, names: Sequence[str], batch: Batch) -> Chunk:
    """The rows in columns; broken ones, and those of another split than the file's, are rejected."""
    given = batch.rows
    chunk = Chunk(file, split, list(batch.lines), len(given))
    if Broken in set(map(type, given)):
        whole = [not isinstance(row, Broken) for row in given]
        for line, row in zip(chunk.lines, given, strict=True):
            if isinstance(row, Broken):
                chunk.reject(line, row.reason, row.excerpt)
        given, chunk.lines = list(compress(given, whole)), list(compress(chunk.lines, whole))
    found = dict(zip(names, zip(*given, strict=True), strict=False))  # empty without rows
    chunk.titles, chunk.categories, chunk.languages, chunk.qualities = (
        list(found.get(name, [default] * len(given))) for name, default in _COLUMNS.items()
    )
    splits = found.get("split", ())
    if splits.count(split) < len(splits):
        chunk.set_aside(["" if each == split else "split_is_not_the_files" for each in splits])
    return chunk


def _accepted(columns: Columns, max_title_chars: int) -> bool:
    """Whether `_check` would reject no row, and change none."""
    from titles.listings.clean import has_blank_or_long

    def is_allowed(name: str, values: Collection[str]) -> bool:
        if name == "category":
            return max(map(len, values), default=0) <= _LONGEST_CATEGORY and are_canonical(values)
        return set(values) <= set(LANGUAGES if name == "language" else QUALITIES)

    return all(
        is_allowed(name, values.distinct) for name, values in columns.names.items()
    ) and not has_blank_or_long(columns.titles, max_title_chars)


def _clean_chunks(file: str, found: Clean) -> Iterator[CleanChunk]:
    from titles.listings.clean import Names

    columns, size = found.columns, len(found.columns.titles)
    for name in _COLUMNS.keys() - columns.names.keys() - {"title"}:
        columns.names[name] = Names([_COLUMNS[name]], np.zeros(size, np.int32))
    for at in range(0, size, rows.CHUNK_ROWS):
        part = columns[at : at + rows.CHUNK_ROWS]
        lines_N = found.first + at + np.arange(len(part.titles))
        yield CleanChunk(file, lines_N, len(part.titles), part)


def _check(chunk: Chunk, max_title_chars: int) -> None:
    """Reject rows whose values break the schema; the categories of the others get one spelling each."""
    languages, qualities = set(LANGUAGES), set(QUALITIES)

    def reason_of(row: tuple[str, ...]) -> str:
        if MISSING in row:
            return "missing_field"
        if not all(isinstance(value, str) for value in row):
            return "field_is_not_text"
        title, category, language, quality = row
        if not title.strip():
            return "empty_title"
        if not canonical(category):
            return "empty_category"
        if not is_utf8(title + category):
            return "invalid_utf8"
        if len(title) > max_title_chars:
            return "title_too_long"
        if len(category) > _LONGEST_CATEGORY:
            return "category_too_long"
        if "\n" in category or "\r" in category:
            return "newline_in_category"
        if has_commands(canonical(category)):
            return "control_character_in_category"
        if language not in languages:
            return "unknown_language"
        if quality not in qualities:
            return "unknown_label_quality"
        return ""

    # Checking whole columns finds clean chunks, which most are, at a fraction of the cost.
    clean = (
        all(set(map(type, column)) <= {str} for column in chunk.columns())
        and set(chunk.languages) <= languages
        and set(chunk.qualities) <= qualities
        and all(category.strip() and category.isprintable() for category in set(chunk.categories))
        and max(map(len, chunk.titles), default=0) <= max_title_chars
        and max(map(len, chunk.categories), default=0) <= _LONGEST_CATEGORY
        and all(map(str.strip, chunk.titles))
        and is_utf8("".join(chunk.titles))
    )
    if not clean:
        chunk.set_aside(list(map(reason_of, zip(*chunk.columns(), strict=True))))
    spelling = {category: canonical(category) for category in set(chunk.categories)}
    if others := {category for category, name in spelling.items() if category != name}:
        chunk.respelled.update(filter(others.__contains__, chunk.categories))
        chunk.categories = [spelling[category] for category in chunk.categories]
