"""Turns listing files into encoded splits: read, tokenise, drop duplicates, split, number the words.

One pass over the text, in chunks; the steps after it work on arrays. Memory grows by about 120 bytes per
row and by the distinct words; the text itself is never held.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titles.data import contract, vocabulary
from titles.data.announcement import note_without_effect
from titles.data.contract import LANGUAGES, SPLITS, UNK
from titles.data.encoded import EncodedTitles
from titles.data.files import write_json
from titles.listings.names import listed
from titles.params import Prepare
from titles.prepare import corrections, drift, effects, reading, selection, split
from titles.prepare.reading import RejectedFile, Rows, collect

_NAMED = 5  # categories in a warning


def prepare(settings: Prepare, folder: Path) -> dict[str, Any]:
    """Turn `settings.source` into splits, vocabulary and labels below `folder`, which exists.

    Writes train/, validation/, calibration/, test/, vocabulary.tsv, labels.txt, text.json (how titles
    became words), profile.json (see drift.py) and rejected.csv. Warns of differences past the thresholds
    from the profile that `settings.reference` names.

    Returns:
        Counts for metrics/prepare.json; every row read is in exactly one entry of "rows". "drift" is
        there only with a reference, "corrections" only with such a table.

    Raises:
        ValueError: the source is unusable (see `sources.read`), or has no rows of the wanted language,
            fewer than two frequent categories or no frequent word; or the reference is not a profile, or
            the corrections are no such table.
    """
    reference = drift.read(settings.reference)  # fails before the work starts
    table = corrections.read(settings.corrections)
    spool = folder / "word_ids.spool"
    # An excerpt may hold bytes that are not UTF-8: they are shown as \udcXX.
    with (folder / "rejected.csv").open(
        "w", encoding="utf-8", errors="backslashreplace", newline=""
    ) as stream:
        rejected = RejectedFile(stream)
        rows, counts = collect(settings, spool, rejected)
        # Splits follow from the labels of the source: corrections leave all titles where they are.
        given_N, corrected = rows.categories_N, None
        if table is not None:
            corrected = corrections.apply(table, rows, rejected)
            rows = rows._replace(categories_N=corrected.categories_N)
        kept_N = selection.duplicates(rows, rejected)
        used_N = kept_N == np.arange(len(kept_N))
        of_another = int(np.sum(rows.categories_N != rows.categories_N[kept_N]))
        del kept_N  # 8 bytes a row
        labels = selection.frequent_categories(rows, used_N, settings.min_rows)
        code_of = {name: code for code, name in enumerate(rows.categories)}
        label_of = np.full(len(rows.categories), -1, np.int32)
        label_of[[code_of[name] for name in labels]] = np.arange(len(labels))
        labels_N = label_of[rows.categories_N]
        rejected.add_rows(rows, used_N & (labels_N < 0), "rare_category", lambda row: "")
        splits_N = selection.splits(rows, used_N & (labels_N >= 0), given_N, settings)
        word_keys = split.word_keys(rows.words)
        read_keys_N = np.empty(len(used_N), np.uint64)
        for slab, ids in rows.slabs():
            read_keys_N[slab] = split.sequence_keys(word_keys[ids], rows.lengths_N[slab])
        splits_N[selection.read_like_held_out(rows, splits_N, read_keys_N, rejected)] = split.DROPPED
        del read_keys_N
    reasons = ("duplicate", "rare_category", "same_words_as_held_out")
    counts |= {reason: rejected.counts[reason] for reason in reasons}
    if len(labels) < 2:
        raise ValueError(
            f"{settings.source} has {len(labels)} categories of at least {settings.min_rows} rows "
            f"(prepare.min_rows); a classifier needs two. Rows: {counts}"
        )
    rows_C = np.bincount(labels_N[splits_N == split.TRAIN], minlength=len(labels))
    if unlearnable := [name for name, count in zip(labels, rows_C, strict=True) if not count]:
        print(
            f"warning: {len(unlearnable)} categories have no title in train, which validation and test "
            f"have: {listed(unlearnable, _NAMED)}",
            file=sys.stderr,
        )
    idle = effects.without_effect(settings, rows, used_N, labels_N, splits_N)
    note_without_effect("prepare", idle)
    words, new_ids = _build_vocabulary(rows, splits_N == split.TRAIN, settings)
    if len(words) == len(contract.SPECIAL_WORDS):
        raise ValueError(
            f"{settings.source}: no word occurs {settings.min_count} times in train "
            "(prepare.min_count): lower it, or give more rows"
        )
    unknown = {}
    for code, name in enumerate(SPLITS):
        titles = _encode(rows, labels_N, splits_N == code, new_ids)
        titles.write(folder / name)
        counts[name] = len(titles)
        unknown[name] = round(float(np.mean(titles.word_ids < 0)), 6) if len(titles.word_ids) else None
    words.write(folder / contract.VOCABULARY_FILE)
    vocabulary.write_labels(labels, folder / contract.LABELS_FILE)
    write_json(folder / contract.TEXT_FILE, settings.text.model_dump())
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
    write_json(folder / contract.PROFILE_FILE, profile.model_dump())
    metrics: dict[str, Any] = {
        "rows": counts,
        "rejected": dict(sorted(rejected.counts.items())),
        "duplicates_of_another_category": of_another,
        "categories": len(labels),
        "vocabulary": len(words),
        "unknown_words": unknown,
    }
    if corrected is not None:
        metrics["corrections"] = corrected.metrics(splits_N)
    if reference:
        metrics["drift"] = drift.compare(profile, reference)
        for line in drift.warnings(metrics["drift"], profile, reference, settings):
            print(f"warning: {line}", file=sys.stderr)
    spool.unlink()
    return metrics


def _build_vocabulary(
    rows: Rows, train_N: split.Flags, settings: Prepare
) -> tuple[vocabulary.Vocabulary, NDArray[np.int32]]:
    """The vocabulary of the flagged rows, and the id in it of each of rows.words."""
    counts_V = np.zeros(len(rows.words), np.int64)
    for slab, ids in rows.slabs():
        in_train = np.repeat(train_N[slab], rows.lengths_N[slab])
        counts_V += np.bincount(ids[in_train], minlength=len(counts_V))
    return vocabulary.build(rows.words, counts_V, settings.min_count, settings.max_vocabulary)


def _encode(
    rows: Rows, labels_N: NDArray[np.int32], chosen_N: split.Flags, new_ids: NDArray[np.int32]
) -> EncodedTitles:
    """The chosen rows, in file order. new_ids: id in the vocabulary of each of rows.words."""
    ends = np.cumsum(rows.lengths_N[chosen_N], dtype=np.int64)
    word_ids = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
    unknown = np.zeros(len(rows.words), bool)
    stop = 0
    for slab, ids in rows.slabs():
        found = ids[np.repeat(chosen_N[slab], rows.lengths_N[slab])]
        start, stop = stop, stop + len(found)
        word_ids[start:stop] = found
        unknown[found] = True
    # Ids of unknown words hold for one split: the other splits must not learn the words of test.
    unknown &= new_ids == UNK
    numbers = np.where(unknown, -np.cumsum(unknown, dtype=np.int32), new_ids)
    for start in range(0, len(word_ids), reading.SLAB_ROWS):
        part = slice(start, start + reading.SLAB_ROWS)
        word_ids[part] = numbers[word_ids[part]]
    return EncodedTitles(
        word_ids,
        ends,
        labels_N[chosen_N],
        rows.languages_N[chosen_N],
        rows.qualities_N[chosen_N],
        rows.keys_N[chosen_N],
        rows.files_N[chosen_N],
        rows.lines_N[chosen_N],
        [rows.words[position] for position in np.flatnonzero(unknown)],
        rows.files,
    )
