"""Listing files to encoded splits: read, tokenise, de-duplicate, split, number the words.

One pass over the text, in chunks that worker processes tokenise; what follows works on arrays. Memory
grows by about 120 bytes a row and by the words that differ; the text itself is never held.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data import vocabulary
from titles.data.contract import (
    LABELS_FILE,
    LANGUAGES,
    PROFILE_FILE,
    QUALITIES,
    SPECIAL_WORDS,
    SPLITS,
    TEXT_FILE,
    UNK,
    VOCABULARY_FILE,
    write_json,
)
from titles.data.encoded import EncodedTitles
from titles.listings import sources
from titles.listings.sources import Chunk, Rejected
from titles.params import Prepare, Text
from titles.prepare import drift, split, workers
from titles.prepare.text import tokenise

# Below this many chunks, starting worker processes takes longer than they save.
_CHUNKS_WORTH_WORKERS = 4
# Rows gathered at a time when splits are written: bounds the memory of that step.
_SLAB_ROWS = 1_000_000

RELIABLE = QUALITIES.index("reliable")


class Tokenised(NamedTuple):
    """A chunk in words: the distinct ones, and where they stand.

    word_ids_W: positions in `words`, of all titles one after another; lengths_N: words a title.
    """

    words: list[str]
    word_ids_W: NDArray[np.int32]
    lengths_N: NDArray[np.int64]


def tokenise_chunk(titles: Sequence[str], settings: Text) -> Tokenised:
    """Tokenise the titles of one chunk; runs in worker processes."""
    rows = tokenise(titles, settings)
    lengths_N = np.fromiter(map(len, rows), np.int64, len(rows))
    table = numbering()
    word_ids_W = np.fromiter(
        map(table.__getitem__, chain.from_iterable(rows)), np.int32, int(lengths_N.sum())
    )
    return Tokenised(list(table), word_ids_W, lengths_N)


def numbering() -> defaultdict[str, int]:
    """A table that gives each new key the next number."""
    table: defaultdict[str, int] = defaultdict()
    table.default_factory = table.__len__
    return table


def _numbers(table: defaultdict[str, int], keys: Sequence[str]) -> NDArray[np.int32]:
    return np.fromiter(map(table.__getitem__, keys), np.int32, len(keys))


class Rows(NamedTuple):
    """All usable rows of a source, in file order.

    words: every distinct word; categories: every category, in order of appearance.
    word_ids_W: positions in `words`, on disk. splits_N: the split that the source gives, or DROPPED.
    """

    words: list[str]
    categories: list[str]
    files: list[str]
    word_ids_W: NDArray[np.int32]
    lengths_N: NDArray[np.int64]
    categories_N: NDArray[np.int32]
    languages_N: NDArray[np.uint8]
    qualities_N: NDArray[np.uint8]
    splits_N: NDArray[np.uint8]
    files_N: NDArray[np.uint16]
    lines_N: NDArray[np.int64]


class RejectedFile:
    """Writes the rows that are not used, each with its line and reason, and counts them."""

    def __init__(self, stream: Any) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(Rejected._fields)
        self.counts: Counter[str] = Counter()

    @staticmethod
    @contextmanager
    def create(path: Path) -> Iterator[RejectedFile]:
        # An excerpt may hold bytes that are no UTF-8: they are shown as \udcXX.
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield RejectedFile(stream)

    def add(self, rejected: Rejected) -> None:
        # csv does not quote a lone carriage return, but readers end a row at it.
        self._writer.writerow(rejected._replace(excerpt=rejected.excerpt.replace("\r", " ")))
        self.counts[rejected.reason] += 1


def prepare(settings: Prepare, seed: int, folder: Path) -> dict[str, Any]:
    """Turn `settings.source` into splits, vocabulary and labels below `folder`, which exists.

    Writes train/, validation/, test/, vocabulary.tsv, labels.txt, text.json (how titles became words),
    profile.json (see drift.py) and rejected.csv.

    Where `settings.reference` names the profile of other data, what differs past the thresholds is told
    as warnings.

    Returns:
        Counts for metrics/prepare.json; every row read is in exactly one entry of "rows". "drift" is
        there only with a reference.

    Raises:
        ValueError: the source is unusable (see `sources.read`), has no rows of the wanted language,
            fewer than two categories with enough rows, or no word that is frequent enough; or the
            reference is no profile.
    """
    reference = drift.read(settings.reference)  # before the work
    spool = folder / "word_ids.spool"
    with RejectedFile.create(folder / "rejected.csv") as rejected:
        rows, counts = _collect(settings, spool, rejected)
        keys_N = _title_keys(rows)
        kept_N = _duplicates(rows, keys_N, rejected)
        used_N = kept_N == np.arange(len(kept_N))
        relabelled = int(np.sum(rows.categories_N != rows.categories_N[kept_N]))
        counts["duplicate"] = int(np.sum(~used_N))
        labels = _frequent_categories(rows, used_N, settings.min_rows)
        label_of = np.full(len(rows.categories), -1, np.int32)
        label_of[[rows.categories.index(name) for name in labels]] = np.arange(len(labels))
        labels_N = label_of[rows.categories_N]
        counts["rare_category"] = _reject(
            rows, used_N & (labels_N < 0), rejected, "rare_category", lambda row: ""
        )
        used_N &= labels_N >= 0
    if len(labels) < 2:
        raise ValueError(
            f"{settings.source} has {len(labels)} categories of at least {settings.min_rows} rows "
            f"(prepare.min_rows); a classifier needs two. Rows: {counts}"
        )
    splits_N = _splits(rows, used_N, labels_N, keys_N, settings, seed)
    words, new_ids = _vocabulary(rows, splits_N == split.TRAIN, settings)
    if len(words) == len(SPECIAL_WORDS):
        raise ValueError(
            f"{settings.source}: no word occurs {settings.min_count} times in train "
            "(prepare.min_count): lower it, or give more rows"
        )
    unknown = {}
    for code, name in enumerate(SPLITS):
        titles = _gather(rows, labels_N, np.flatnonzero(splits_N == code), new_ids)
        titles.write(folder / name)
        counts[name] = len(titles)
        unknown[name] = round(float(np.mean(titles.word_ids < 0)), 6) if len(titles) else None
    words.write(folder / VOCABULARY_FILE)
    vocabulary.write_labels(labels, folder / LABELS_FILE)
    write_json(folder / TEXT_FILE, settings.text.model_dump())
    taken_N = splits_N != split.DROPPED
    wanted = counts["read"] - counts.get("other_language", 0)
    profile = drift.Profile(
        rows=int(np.sum(taken_N)),
        categories=drift.shares(labels, labels_N[taken_N]),
        languages=drift.shares(list(LANGUAGES), rows.languages_N[taken_N]),
        unknown_words=unknown["validation"],
        title_words=drift.quantiles(rows.lengths_N[taken_N]),
        rejected=round(rejected.counts.total() / wanted, 6),
    )
    write_json(folder / PROFILE_FILE, profile.model_dump())
    del rows  # the spool is mapped
    spool.unlink()
    metrics: dict[str, Any] = {
        "rows": counts,
        "rejected": dict(sorted(rejected.counts.items())),
        "duplicates_of_another_category": relabelled,
        "categories": len(labels),
        "vocabulary": len(words),
        "unknown_words": unknown,
    }
    if reference:
        metrics["drift"] = drift.compare(profile, reference)
        for line in drift.warnings(metrics["drift"], profile, reference, settings):
            print(f"warning: {line}", file=sys.stderr)
    return metrics


def _collect(settings: Prepare, spool: Path, rejected: RejectedFile) -> tuple[Rows, dict[str, int]]:
    """Read and tokenise the source; word ids go to the file `spool`."""
    words, categories, files = numbering(), numbering(), numbering()
    language_codes = {name: code for code, name in enumerate(LANGUAGES)}
    quality_codes = {name: code for code, name in enumerate(QUALITIES)}
    split_codes = {"": split.DROPPED} | {name: code for code, name in enumerate(SPLITS)}
    columns: list[list[NDArray[Any]]] = [[] for _ in range(7)]
    read = 0
    languages: Counter[str] = Counter()

    def wanted() -> Iterator[Chunk]:
        nonlocal read
        for chunk in sources.read(Path(settings.source), settings.language, settings.max_title_chars):
            read += chunk.rows_read
            languages.update(chunk.languages)
            if settings.language != "all" and set(chunk.languages) != {settings.language}:
                chunk.keep([name == settings.language for name in chunk.languages])
            yield chunk

    with (
        spool.open("wb") as stream,
        tqdm(unit=" rows", unit_scale=True, desc="prepare", disable=None) as bar,
    ):
        for chunk, tokenised in _tokenised(wanted(), settings.text):
            empty_N = tokenised.lengths_N == 0
            for position in np.flatnonzero(empty_N):
                chunk.reject(chunk.lines[position], "no_words", chunk.titles[position])
            for row in chunk.rejected:
                rejected.add(row)
            _numbers(words, tokenised.words)[tokenised.word_ids_W].tofile(stream)
            new: tuple[NDArray[Any], ...] = (
                tokenised.lengths_N,
                _numbers(categories, chunk.categories),
                np.array([language_codes[name] for name in chunk.languages], np.uint8),
                np.array([quality_codes[name] for name in chunk.qualities], np.uint8),
                np.full(len(empty_N), split_codes[chunk.split], np.uint8),
                np.full(len(empty_N), files[chunk.file], np.uint16),
                np.array(chunk.lines, np.int64),
            )
            for column, values in zip(columns, new, strict=True):
                column.append(values[~empty_N])
            bar.update(chunk.rows_read)
    counts = {"read": read, "unusable": rejected.counts.total()}
    if settings.language != "all":
        counts["other_language"] = languages.total() - languages[settings.language]
    joined = []
    while columns and columns[0]:
        joined.append(np.concatenate(columns.pop(0)))  # one at a time: the parts of the last are gone
    if not joined or len(joined[0]) == 0:
        raise ValueError(
            f"{settings.source} has no usable rows of language {settings.language}: {read} rows read, "
            f"set aside: {dict(rejected.counts)}, languages: {dict(languages)}"
        )
    word_ids_W = np.memmap(spool, np.int32, "r")
    return Rows(list(words), list(categories), list(files), word_ids_W, *joined), counts


def _tokenised(chunks: Iterator[Chunk], text: Text) -> Iterator[tuple[Chunk, Tokenised]]:
    """Each chunk with its words, in order; by worker processes where there is enough to do."""
    first = list(islice(chunks, _CHUNKS_WORTH_WORKERS))
    if len(first) < _CHUNKS_WORTH_WORKERS:
        for chunk in first:
            yield chunk, tokenise_chunk(chunk.titles, text)
        return
    with workers.pool() as pool:
        pending: deque[tuple[Chunk, Future[Tokenised]]] = deque()
        try:
            for chunk in chain(first, chunks):
                pending.append((chunk, pool.submit(tokenise_chunk, chunk.titles, text)))
                if len(pending) > pool.waiting:
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()


def _finished(chunk: Chunk, future: Future[Tokenised]) -> tuple[Chunk, Tokenised]:
    try:
        return chunk, future.result()
    except Exception as error:
        lines = f"lines {chunk.lines[0]} to {chunk.lines[-1]}" if chunk.lines else "no lines"
        raise ValueError(
            f"{chunk.file}, {lines}: a worker failed to tokenise them: {type(error).__name__}: {error}"
        ) from error


def _title_keys(rows: Rows) -> split.Keys:
    word_keys = split.word_keys(rows.words)
    ends_N = np.cumsum(rows.lengths_N)
    keys = []
    for start in range(0, len(ends_N), _SLAB_ROWS):
        stop = min(start + _SLAB_ROWS, len(ends_N))
        first = ends_N[start - 1] if start else 0
        word_ids = rows.word_ids_W[first : ends_N[stop - 1]]
        keys.append(split.title_keys(word_keys[word_ids], rows.lengths_N[start:stop]))
    return np.concatenate(keys)


def _duplicates(rows: Rows, keys_N: split.Keys, rejected: RejectedFile) -> NDArray[np.int64]:
    """For each row, the row that is kept of all with its words.

    A test row outlives its like in train; then a reliable row the others; then the first. A test or
    validation split that the source gives keeps its own repetitions, so that its figures compare with
    those of others who use it.
    """
    rank_of_split = np.zeros(256, np.uint8)
    rank_of_split[[split.VALIDATION, split.TRAIN]] = 2, 4
    rank_N = rank_of_split[rows.splits_N] + (rows.qualities_N != RELIABLE).astype(np.uint8)
    kept_N = split.first_of_each(keys_N, rank_N)
    held_out_N = np.isin(rows.splits_N, (split.VALIDATION, split.TEST))
    own_N = held_out_N & (rows.splits_N == rows.splits_N[kept_N])
    kept_N[own_N] = np.flatnonzero(own_N)

    def same_as(row: int) -> str:
        kept = kept_N[row]
        return f"same words as line {rows.lines_N[kept]} of {rows.files[rows.files_N[kept]]}"

    _reject(rows, kept_N != np.arange(len(kept_N)), rejected, "duplicate", same_as)
    return kept_N


def _frequent_categories(rows: Rows, used_N: split.Flags, min_rows: int) -> list[str]:
    """Names, sorted, of the categories with enough rows; of train's, where splits are given."""
    counted_N = used_N & np.isin(rows.splits_N, (split.TRAIN, split.DROPPED))
    rows_C = np.bincount(rows.categories_N[counted_N], minlength=len(rows.categories))
    return sorted(rows.categories[code] for code in np.flatnonzero(rows_C >= min_rows))


def _reject(
    rows: Rows,
    flags_N: split.Flags,
    rejected: RejectedFile,
    reason: str,
    excerpt: Callable[[int], str],
) -> int:
    flagged = np.flatnonzero(flags_N).tolist()
    for row in flagged:
        file = rows.files[rows.files_N[row]]
        rejected.add(Rejected(file, int(rows.lines_N[row]), reason, excerpt(row)))
    return len(flagged)


def _splits(
    rows: Rows,
    used_N: split.Flags,
    labels_N: NDArray[np.int32],
    keys_N: split.Keys,
    settings: Prepare,
    seed: int,
) -> split.Splits:
    """The split of each row: the given one, or else a stratified one; DROPPED where it is not used."""
    splits_N = np.where(used_N, rows.splits_N, np.uint8(split.DROPPED))
    free_N = used_N & (rows.splits_N == split.DROPPED)
    if free_N.any():
        splits_N[free_N] = split.stratified(
            labels_N[free_N],
            rows.qualities_N[free_N] == RELIABLE,
            keys_N[free_N],
            validation_fraction=settings.validation_fraction,
            test_fraction=settings.test_fraction,
            prefer_reliable=settings.holdout_quality == "reliable",
            seed=seed,
        )
    return splits_N


def _vocabulary(
    rows: Rows, train_N: split.Flags, settings: Prepare
) -> tuple[vocabulary.Vocabulary, NDArray[np.int32]]:
    counts_V = np.zeros(len(rows.words), np.int64)
    ends_N = np.cumsum(rows.lengths_N)
    for start in range(0, len(ends_N), _SLAB_ROWS):
        stop = min(start + _SLAB_ROWS, len(ends_N))
        first = ends_N[start - 1] if start else 0
        in_train = np.repeat(train_N[start:stop], rows.lengths_N[start:stop])
        word_ids = rows.word_ids_W[first : ends_N[stop - 1]][in_train]
        counts_V += np.bincount(word_ids, minlength=len(counts_V))
    return vocabulary.build(rows.words, counts_V, settings.min_count, settings.max_vocabulary)


def _gather(
    rows: Rows,
    labels_N: NDArray[np.int32],
    chosen: NDArray[np.int64],
    new_ids: NDArray[np.int32],
) -> EncodedTitles:
    """The chosen rows, in file order, with their words renumbered."""
    all_ends_N = np.cumsum(rows.lengths_N)
    lengths = rows.lengths_N[chosen]
    ends = np.cumsum(lengths)
    word_ids = np.empty(int(lengths.sum()), np.int32)
    unknown = np.zeros(len(rows.words), bool)
    slabs = []
    for start in range(0, len(chosen), _SLAB_ROWS):
        slab = slice(start, start + _SLAB_ROWS)
        shift = (all_ends_N[chosen[slab]] - lengths[slab]) - (ends[slab] - lengths[slab])
        first, last = ends[slab][0] - lengths[slab][0], ends[slab][-1]
        place = np.arange(first, last) + np.repeat(shift, lengths[slab])
        word_ids[first:last] = rows.word_ids_W[place]
        unknown[word_ids[first:last]] = True
        slabs.append(slice(first, last))
    # Unknown words get numbers of this split alone: those of test are nobody else's business.
    unknown &= new_ids == UNK
    numbers = np.where(unknown, -np.cumsum(unknown, dtype=np.int32), new_ids)
    for slab in slabs:
        word_ids[slab] = numbers[word_ids[slab]]
    return EncodedTitles(
        word_ids,
        ends,
        labels_N[chosen],
        rows.languages_N[chosen],
        rows.qualities_N[chosen],
        rows.lines_N[chosen],
        [rows.words[position] for position in np.flatnonzero(unknown)],
    )
