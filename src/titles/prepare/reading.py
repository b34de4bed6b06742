"""A source to words: reads its chunks, tokenises them in worker processes, numbers the words."""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data.contract import GIVEN_SPLITS, LANGUAGES, QUALITIES, SPLITS
from titles.listings import sources
from titles.listings.chunks import Chunk, CleanChunk, Rejected
from titles.listings.names import canonical
from titles.params import Prepare, Text
from titles.prepare import clean_titles, split, workers
from titles.prepare.identity import title_keys
from titles.prepare.text import tokenise

# Starting worker processes for fewer chunks takes longer than they save.
_CHUNKS_WORTH_WORKERS = 4
# Loading compiled code, or making it where none can be kept, takes longer than it saves on fewer.
_CHUNKS_WORTH_COMPILING = 8
# Sending fewer rows to a worker takes longer than to tokenise them: there may be many small files.
_ROWS_WORTH_A_WORKER = 256
# Rows processed at a time: bounds memory.
SLAB_ROWS = 1_000_000
_NAMED = 5  # spellings of categories in a message
_LANGUAGE_CODES, _QUALITY_CODES = (
    {name: code for code, name in enumerate(names)} for names in (LANGUAGES, QUALITIES)
)
_SPLIT_CODES = {"": split.DROPPED} | {name: SPLITS.index(name) for name in GIVEN_SPLITS}


class Tokenised(NamedTuple):
    """The titles of a chunk: N titles of W words together.

    words: distinct ones. word_ids_W: positions in them. lengths_N: words per title. keys_N: see
    `identity.title_keys`.
    """

    words: list[str]
    word_ids_W: NDArray[np.int32]
    lengths_N: NDArray[np.int64]
    keys_N: split.Keys


class Rows(NamedTuple):
    """All usable rows of a source, in file order. Some have no word under the given parameters."""

    words: list[str]  # distinct ones, as categories and files
    categories: list[str]
    files: list[str]
    spool: Path  # the file of the ids of their words, 32 bits each
    lengths_N: NDArray[np.int32]
    keys_N: split.Keys  # see identity.title_keys
    categories_N: NDArray[np.int32]
    languages_N: NDArray[np.uint8]
    qualities_N: NDArray[np.uint8]
    splits_N: NDArray[np.uint8]  # given by the source, or DROPPED
    files_N: NDArray[np.uint32]
    lines_N: NDArray[np.int64]

    def place(self, row: int) -> tuple[str, int]:
        """File and line of a row."""
        return self.files[self.files_N[row]], int(self.lines_N[row])

    def slabs(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Yield the rows, SLAB_ROWS at a time: their positions, and the ids of their words."""
        # Not mapped: pages that were read would count as memory of the process.
        with self.spool.open("rb") as stream:
            for start in range(0, len(self.lengths_N), SLAB_ROWS):
                slab = slice(start, start + SLAB_ROWS)
                yield slab, np.fromfile(stream, np.int32, int(self.lengths_N[slab].sum()))


class RejectedFile:
    """Writes the rows that are not used, each with its line and reason, and counts them."""

    def __init__(self, stream: TextIO) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(Rejected._fields)
        self.counts: Counter[str] = Counter()

    def add(self, rejected: Rejected) -> None:
        self.note(rejected)
        self.counts[rejected.reason] += 1

    def note(self, rejected: Rejected) -> None:
        """Write a row that is none of the source, and not counted."""
        # csv does not quote a lone carriage return, but readers end a row there.
        self._writer.writerow(rejected._replace(excerpt=rejected.excerpt.replace("\r", " ")))

    def add_rows(
        self, rows: Rows, flags_N: split.Flags, reason: str, excerpt: Callable[[int], str]
    ) -> None:
        """Add the flagged rows. excerpt: gives it for a row's position."""
        for row in np.flatnonzero(flags_N).tolist():
            self.add(Rejected(*rows.place(row), reason, excerpt(row)))


def tokenise_chunk(titles: Sequence[str] | clean_titles.Encoded, settings: Text) -> Tokenised:
    """Tokenise the titles of one chunk; runs in worker processes."""
    if isinstance(titles, clean_titles.Encoded):
        return Tokenised(*clean_titles.read(titles, settings))
    rows = tokenise(titles, settings)
    lengths_N = np.fromiter(map(len, rows), np.int64, len(rows))
    table = _numbering()
    word_ids_W = _numbers(table, chain.from_iterable(rows), int(lengths_N.sum()))
    return Tokenised(list(table), word_ids_W, lengths_N, title_keys(titles))


def _numbering() -> defaultdict[str, int]:
    """A table that gives each new key the next number."""
    return defaultdict(count().__next__)


def _numbers(table: Mapping[str, int], keys: Iterable[str], size: int) -> NDArray[np.int32]:
    return np.fromiter(map(table.__getitem__, keys), np.int32, size)


def collect(settings: Prepare, spool: Path, rejected: RejectedFile) -> tuple[Rows, dict[str, int]]:
    """Read and tokenise the source; word ids are written to the file `spool`.

    Returns the rows, and the numbers of rows read, unusable and, unless all are wanted, of other
    languages. Raises ValueError as `sources.read` does, and if no row is usable.
    """
    words, categories, files = _numbering(), _numbering(), _numbering()
    columns: list[list[NDArray[Any]]] = [[] for _ in range(8)]
    read = 0
    languages: Counter[str] = Counter()
    respelled: Counter[str] = Counter()

    def wanted() -> Iterator[Chunk | CleanChunk]:
        nonlocal read
        for chunk in sources.blocks(Path(settings.source), settings.language, settings.max_title_chars):
            read += chunk.rows_read
            if isinstance(chunk, CleanChunk):
                names = chunk.columns.names["language"]
                languages.update(
                    dict(zip(names.distinct, np.bincount(names.codes_N).tolist(), strict=True))
                )
                if settings.language != "all":
                    chunk.keep(names.rows_of(settings.language))
                yield chunk
                continue
            languages.update(chunk.languages)
            respelled.update(chunk.respelled)
            if settings.language != "all" and set(chunk.languages) != {settings.language}:
                chunk.keep([name == settings.language for name in chunk.languages])
            yield chunk

    with (
        spool.open("wb") as stream,
        tqdm(unit=" rows", unit_scale=True, desc="prepare", disable=None) as bar,
    ):
        for chunk, found in _tokenised(wanted(), settings.text):
            size, used_N = len(found.keys_N), found.keys_N != 0
            for position in np.flatnonzero(~used_N).tolist():
                chunk.reject(int(chunk.lines[position]), "no_words", chunk.title(position))
            for row in chunk.rejected:
                rejected.add(row)
            stream.write(_numbers(words, found.words, len(found.words))[found.word_ids_W].data)
            new: tuple[NDArray[Any], ...] = (
                found.lengths_N.astype(np.int32),
                found.keys_N,
                *_codes(chunk, size, categories),
                np.full(size, _SPLIT_CODES[chunk.split], np.uint8),
                np.full(size, files[chunk.file], np.uint32),
                np.array(chunk.lines, np.int64),
            )
            for column, values in zip(columns, new, strict=True):
                column.append(values[used_N])
            bar.update(chunk.rows_read)
    _note_spellings(respelled)
    counts = {"read": read, "unusable": rejected.counts.total()}
    if settings.language != "all":
        counts["other_language"] = languages.total() - languages[settings.language]
    joined = []
    while columns and columns[0]:
        joined.append(np.concatenate(columns.pop(0)))  # one at a time: the parts of the last are gone
    if not joined or not joined[0].size:
        raise ValueError(
            f"{settings.source} has no usable rows of language {settings.language}: {read} rows read, "
            f"set aside: {dict(rejected.counts)}, languages: {dict(languages)}"
        )
    return Rows(list(words), list(categories), list(files), spool, *joined), counts


def _codes(
    chunk: Chunk | CleanChunk, size: int, categories: Mapping[str, int]
) -> Iterator[NDArray[Any]]:
    """Numbers of the categories, languages and qualities of a chunk's rows."""
    tables = (categories, np.int32), (_LANGUAGE_CODES, np.uint8), (_QUALITY_CODES, np.uint8)
    for (table, dtype), name in zip(tables, ("category", "language", "label_quality"), strict=True):
        if isinstance(chunk, CleanChunk):
            distinct, codes_N = chunk.columns.names[name]
            yield _numbers(table, distinct, len(distinct)).astype(dtype)[codes_N]
        else:
            yield _numbers(table, chunk.column(name), size).astype(dtype)


def _note_spellings(respelled: Counter[str]) -> None:
    """Say on stderr which categories got their canonical spelling; nothing if all had it."""
    if respelled:
        common = respelled.most_common(_NAMED)
        # The difference is not seen in the names as they stand.
        named = [f"{name!a} as {canonical(name)!r} ({count:,})" for name, count in common]
        more = f" and {len(respelled) - _NAMED:,} more" * (len(respelled) > _NAMED)
        print(
            f"note: {respelled.total():,} rows have a category in another spelling, by spaces or the "
            f"encoding of accents: {', '.join(named)}{more}",
            file=sys.stderr,
        )


def _tokenised(
    chunks: Iterator[Chunk | CleanChunk], text: Text
) -> Iterator[tuple[Chunk | CleanChunk, Tokenised]]:
    """Each chunk with its words, in order; from worker processes if there are enough chunks."""
    first = list(islice(chunks, _CHUNKS_WORTH_COMPILING))
    if len(first) < _CHUNKS_WORTH_WORKERS:
        for chunk in first:
            yield chunk, tokenise_chunk(_titles(chunk, False), text)
        return
    compiled = len(first) == _CHUNKS_WORTH_COMPILING
    if compiled:  # here once: workers load the code from the disk
        clean_titles.read(clean_titles.Encoded.of(["a"]), text)
    with workers.pool() as (executor, waiting):
        pending: deque[tuple[Chunk | CleanChunk, Future[Tokenised]]] = deque()
        try:
            for chunk in chain(first, chunks):
                few = len(chunk.lines) < _ROWS_WORTH_A_WORKER
                run = _at_once if few else executor.submit
                titles = _titles(chunk, compiled and not few)
                pending.append((chunk, run(tokenise_chunk, titles, text)))
                if len(pending) > waiting:
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()


def _titles(chunk: Chunk | CleanChunk, compiled: bool) -> list[str] | clean_titles.Encoded:
    if isinstance(chunk, Chunk):
        return clean_titles.Encoded.of(chunk.titles) if compiled else chunk.titles
    if compiled:
        return clean_titles.Encoded(*chunk.columns.text())
    titles: list[str] = chunk.columns.titles.to_pylist()
    return titles


def _at_once(function: Callable[..., Tokenised], *args: Any) -> Future[Tokenised]:
    """As `submit` of an executor, but the result is there already."""
    future: Future[Tokenised] = Future()
    try:
        future.set_result(function(*args))
    except Exception as error:
        future.set_exception(error)
    return future


def _finished(
    chunk: Chunk | CleanChunk, future: Future[Tokenised]
) -> tuple[Chunk | CleanChunk, Tokenised]:
    try:
        return chunk, future.result()
    except Exception as error:
        lines = f"lines {chunk.lines[0]} to {chunk.lines[-1]}" if len(chunk.lines) else "no lines"
        raise ValueError(
            f"{chunk.file}, {lines}: a worker failed to tokenise them: {type(error).__name__}: {error}"
        ) from error
