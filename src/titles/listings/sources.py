"""Readers of listing files: challenge CSV, title,category CSV, Parquet and the course's JSON lines.

All give the same columns, a chunk at a time, so that a file of any size takes bounded memory. What kind
a file is shows in the file itself, never in its name alone. Rows that break the schema are set aside
with their line and a reason; a file that breaks as a whole (cut, damaged, no header) ends the reading
with an error, because the rows before the damage are not the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, compress, islice, pairwise
from pathlib import Path
from typing import NamedTuple, TextIO

import orjson

from titles.data.contract import LANGUAGES, QUALITIES, SPLITS, opened

CHUNK_ROWS = 50_000
# Far above any title and its newlines: past either, a stray quote has swallowed rows.
_FIELD_LIMIT = 1024 * 1024
_MOST_LINES = 20
_EXCERPT = 200

csv.field_size_limit(_FIELD_LIMIT)


class Rejected(NamedTuple):
    """A row that cannot be used. line: 1 is the file's first; excerpt: start of what stood there."""

    file: str
    line: int
    reason: str
    excerpt: str


@dataclass
class Chunk:
    """Rows of one file in columns, in file order; all columns are equally long.

    split: the split that the file gives its rows, "" where rows are still to be split.
    lines: line of the file at which a row starts, from 1.
    """

    file: str
    split: str
    titles: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    qualities: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rows_read: int = 0

    def reject(self, line: int, reason: str, excerpt: str) -> None:
        self.rejected.append(Rejected(self.file, line, reason, excerpt[:_EXCERPT]))

    def keep(self, flags: Sequence[bool]) -> None:
        """Keep the rows whose flag is set."""
        self.titles, self.categories, self.languages, self.qualities = (
            list(compress(column, flags)) for column in self.columns()
        )
        self.lines = list(compress(self.lines, flags))

    def set_aside(self, reason_of: Callable[[str, str, str, str], str]) -> None:
        """Reject the rows for which `reason_of(title, category, language, quality)` gives a reason."""
        rows = list(zip(*self.columns(), strict=True))
        reasons = [reason_of(*row) for row in rows]
        for line, row, reason in zip(self.lines, rows, reasons, strict=True):
            if reason:
                self.reject(line, reason, ",".join(row))
        self.keep([not reason for reason in reasons])

    def columns(self) -> tuple[list[str], list[str], list[str], list[str]]:
        return self.titles, self.categories, self.languages, self.qualities


def read(source: Path, language: str, max_title_chars: int) -> Iterator[Chunk]:
    """Yield the rows of `source`, checked, in chunks of about `CHUNK_ROWS`.

    Args:
        source: a CSV or Parquet file, a folder of such files (read in the order of their names), or a
            folder with the course's files.
        language: of LANGUAGES, or "all"; a course folder then only needs that language's files. Rows of
            other languages still come, so that the caller can count them.
        max_title_chars: longer titles are set aside.

    Raises:
        ValueError: there is no such source, its kind is not known, it has no labels, or it is damaged.
    """
    if source.is_dir():
        files = _course_files(source, language) or _shards(source)
    elif source.is_file():
        files = [(source, "")]
    else:
        raise ValueError(
            f"{source} does not exist: set prepare.source to a file that does, "
            f"or fetch it with `dvc pull {source}`"
        )
    for file, split in files:
        if split:
            rows = _read_json_lines(file, split)
        else:
            rows = _read_parquet(file) if _is_parquet(file) else _read_csv(file)
        for chunk in rows:
            _check(chunk, max_title_chars)
            yield chunk


def _course_files(folder: Path, language: str) -> list[tuple[Path, str]]:
    """The course's files, each with its split; none where the folder has none of them."""
    languages = [name for name in LANGUAGES[1:] if any(folder.glob(f"{name}.*.jsonl.gz"))]
    if languages and language != "all":
        languages = [language]
    files = [(folder / f"{name}.{split}.jsonl.gz", split) for name in languages for split in SPLITS]
    missing = [file.name for file, _ in files if not file.is_file()]
    if missing:
        raise ValueError(f"{folder} holds the course's files, but it lacks {', '.join(missing)}")
    return files


def _shards(folder: Path) -> list[tuple[Path, str]]:
    endings = (".csv", ".csv.gz", ".parquet")
    files = sorted(file for file in folder.iterdir() if file.name.endswith(endings))
    if not files:
        raise ValueError(
            f"{folder} has neither {', '.join(endings)} files nor the course's "
            "{language}.{train,validation,test}.jsonl.gz"
        )
    return [(file, "") for file in files]


def _check(chunk: Chunk, max_title_chars: int) -> None:
    """Set aside rows whose values break the schema."""
    languages, qualities = set(LANGUAGES), set(QUALITIES)

    def reason_of(title: str, category: str, language: str, quality: str) -> str:
        if not title.strip():
            return "empty_title"
        if not category.strip():
            return "empty_category"
        if not _is_utf8(title + category):
            return "invalid_utf8"
        if len(title) > max_title_chars:
            return "title_too_long"
        if "\n" in category or "\r" in category:
            return "newline_in_category"
        if language not in languages:
            return "unknown_language"
        if quality not in qualities:
            return "unknown_label_quality"
        return ""

    # Looking at the columns as a whole finds a clean chunk, which most are, at a fraction of the cost.
    clean = (
        set(chunk.languages) <= languages
        and set(chunk.qualities) <= qualities
        and all(category.strip() and category.isprintable() for category in set(chunk.categories))
        and max(map(len, chunk.titles), default=0) <= max_title_chars
        and all(map(str.strip, chunk.titles))
        and _is_utf8("".join(chunk.titles))
    )
    if not clean:
        chunk.set_aside(reason_of)
    chunk.categories = [category.strip() for category in chunk.categories]


def _is_utf8(text: str) -> bool:
    # Bytes that are no UTF-8 were decoded to lone surrogates, which do not encode.
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _whole(file: Path, line: Callable[[], int]) -> Iterator[None]:
    """Turn damage of the compressed stream into a ValueError that names the line."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is damaged near line {line()}: {error}. The rows before that are not taken for "
            "the whole: get the file again"
        ) from None


def _read_csv(file: Path) -> Iterator[Chunk]:
    with opened(file) as stream:
        # surrogateescape: a row with invalid bytes is set aside by itself, later.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield from _csv_chunks(file, text)


def _csv_chunks(file: Path, text: TextIO) -> Iterator[Chunk]:
    # strict: a quote inside an unquoted field is fine, but `"a"b` or a quote that is never closed is
    # an error and not a guess.
    reader = csv.reader(text, strict=True)
    with _whole(file, lambda: reader.line_num + 1):
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{file}: the header is no CSV: {error}") from None
        columns = _csv_columns(file, header)
        fields = len(header or ())
        chunk = Chunk(file.name, "")
        rows: list[list[str]] = []
        ended = False
        while not ended:
            new: list[list[str]] = []
            first, broken = reader.line_num + 1, ""
            wanted = CHUNK_ROWS - len(rows) - len(chunk.rejected)
            try:
                new.extend(islice(reader, wanted))  # what comes before an error is kept
                ended = len(new) < wanted
            except csv.Error as error:
                broken = str(error)
            if not broken and reader.line_num + 1 - first == len(new):  # a line each, as nearly always
                lines = list(range(first, first + len(new) + 1))
            else:
                lines = list(accumulate(map(_lines_in, new), initial=first))
                _refuse_stray_quotes(file, [*lines, reader.line_num + 1], broken)
            if broken:
                chunk.rows_read += 1
                chunk.reject(lines[-1], "broken_csv", broken)
            for line, row in zip(lines, new, strict=False):
                if len(row) == fields:
                    rows.append(row)
                    chunk.lines.append(line)
                elif row:  # a blank line is no row
                    chunk.rows_read += 1
                    chunk.reject(line, "wrong_number_of_fields", ",".join(row))
            if ended or len(rows) + len(chunk.rejected) >= CHUNK_ROWS:
                chunk.rows_read += len(rows)
                for column, (position, default) in zip(chunk.columns(), columns, strict=True):
                    column.extend(
                        [default] * len(rows) if position is None else [r[position] for r in rows]
                    )
                yield chunk
                chunk, rows = Chunk(file.name, ""), []


def _lines_in(row: list[str]) -> int:
    text = "".join(row)
    return 1 + text.count("\n") + text.count("\r") - text.count("\r\n")


def _refuse_stray_quotes(file: Path, lines: list[int], broken: str) -> None:
    """Raise if a row, from its line to the next one's, is longer than any title: rows lie inside it.

    broken: what the CSV reader says of the last row, if it is none.
    """
    for start, end in pairwise(lines):
        if end - start > _MOST_LINES or (
            end == lines[-1] and ("unexpected end" in broken or "field limit" in broken)
        ):
            raise ValueError(
                f"{file}: the quote opened in line {start} is not closed by line {end - 1}: "
                "mend or remove that row"
            )


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _read_parquet(file: Path) -> Iterator[Chunk]:
    """Rows in place of lines are numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            columns = _csv_columns(file, table.schema_arrow.names)
            names = [table.schema_arrow.names[at] for at, _ in columns if at is not None]
            first = 1
            for batch in table.iter_batches(CHUNK_ROWS, columns=names):
                chunk = Chunk(file.name, "", rows_read=len(batch))
                chunk.lines = list(range(first, first + len(batch)))
                found = dict(zip(names, (column.to_pylist() for column in batch.columns), strict=True))
                for column, (at, default) in zip(chunk.columns(), columns, strict=True):
                    values = (
                        [default] * len(batch) if at is None else found[table.schema_arrow.names[at]]
                    )
                    column.extend(values)
                _reject_non_text(chunk)
                yield chunk
                first += len(batch)
            if first == 1:
                yield Chunk(file.name, "")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged, or no Parquet file: {error}") from None


def _reject_non_text(chunk: Chunk) -> None:
    rows = list(zip(*chunk.columns(), strict=True))
    text = [all(isinstance(value, str) for value in row) for row in rows]
    for line, row, is_text in zip(chunk.lines, rows, text, strict=True):
        if not is_text:
            chunk.reject(line, "field_is_not_text", ",".join(map(str, row)))
    if not all(text):
        chunk.keep(text)


def _csv_columns(file: Path, header: list[str] | None) -> list[tuple[int | None, str]]:
    """Position of title, category, language and label_quality, and what stands for a missing one."""
    if header is None:
        raise ValueError(f"{file} is empty: expected a header such as title,category")
    names = [name.strip() for name in header]
    columns = {name: position for position, name in enumerate(names)}
    wanted = "title,label_quality,language,category or title,category"
    if len(columns) != len(names):
        raise ValueError(f"{file}: a column stands twice in the header {','.join(names)[:_EXCERPT]}")
    if "title" in columns and "category" not in columns:
        raise ValueError(
            f"{file} has titles but no categories (columns {','.join(names)[:_EXCERPT]}): there is "
            f"nothing to learn from; expected {wanted}"
        )
    if not {"title", "category"} <= columns.keys():
        raise ValueError(
            f"{file}: columns {','.join(names)[:_EXCERPT]} are not known; expected {wanted}, "
            "in lower case, separated by commas, in UTF-8"
        )
    return [
        (columns["title"], ""),
        (columns["category"], ""),
        (columns.get("language"), LANGUAGES[0]),
        (columns.get("label_quality"), QUALITIES[0]),
    ]


def _read_json_lines(file: Path, split: str) -> Iterator[Chunk]:
    number = 0
    with opened(file) as stream, _whole(file, lambda: number + 1):
        chunk = Chunk(file.name, split)
        for number, row in enumerate(stream, start=1):
            if not row.strip():
                continue
            chunk.rows_read += 1
            values, reason = _json_row(row, split)
            if reason:
                chunk.reject(number, reason, row[: 4 * _EXCERPT].decode("utf-8", "replace").strip())
            else:
                for column, value in zip(chunk.columns(), values, strict=True):
                    column.append(value)
                chunk.lines.append(number)
            if chunk.rows_read == CHUNK_ROWS:
                yield chunk
                chunk = Chunk(file.name, split)
        if number == 0:
            raise ValueError(f"{file} is empty: expected one JSON object a line")
        yield chunk


def _json_row(row: bytes, split: str) -> tuple[tuple[str, str, str, str], str]:
    """(title, category, language, quality) of a line, and why it cannot be used, or ""."""
    nothing = ("", "", "", "")
    try:
        record = orjson.loads(row)
    except orjson.JSONDecodeError:
        return nothing, "broken_json" if _is_utf8(row.decode("utf-8", "surrogateescape")) else (
            "invalid_utf8"
        )
    if not isinstance(record, dict):
        return nothing, "broken_json"
    if not {"title", "category"} <= record.keys():
        return nothing, "missing_field"
    values = (
        record["title"],
        record["category"],
        record.get("language", LANGUAGES[0]),
        record.get("label_quality", QUALITIES[0]),
    )
    if not all(isinstance(value, str) for value in values):
        return nothing, "field_is_not_text"
    if record.get("split", split) != split:
        return nothing, "split_is_not_the_files"
    return values, ""
