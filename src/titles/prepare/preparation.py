"""Listing files to encoded splits: read, tokenise, drop duplicates, split, number the words.

One pass over the text, in chunks; the steps after it work on arrays. Memory grows by about 120 bytes per
row and by the distinct words; the text itself is never held.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from titles.data import vocabulary
from titles.data.contract import (
    LABELS_FILE,
    LANGUAGES,
    PROFILE_FILE,
    SPECIAL_WORDS,
    SPLITS,
    TEXT_FILE,
    VOCABULARY_FILE,
    write_json,
)
from titles.params import Prepare
from titles.prepare import drift, selection, split
from titles.prepare.encoding import build_vocabulary, encode
from titles.prepare.reading import RejectedFile, collect


def prepare(settings: Prepare, seed: int, folder: Path) -> dict[str, Any]:
    """Turn `settings.source` into splits, vocabulary and labels below `folder`, which exists.

    Writes train/, validation/, test/, vocabulary.tsv, labels.txt, text.json (how titles became words),
    profile.json (see drift.py) and rejected.csv. Warns of differences past the thresholds from the
    profile that `settings.reference` names.

    Returns:
        Counts for metrics/prepare.json; every row read is in exactly one entry of "rows". "drift" is
        there only with a reference.

    Raises:
        ValueError: the source is unusable (see `sources.read`), has no rows of the wanted language,
            fewer than two categories with enough rows, or no word that is frequent enough; or the
            reference is not a profile.
    """
    reference = drift.read(settings.reference)  # fails before the work starts
    spool = folder / "word_ids.spool"
    # An excerpt may hold bytes that are not UTF-8: they are shown as \udcXX.
    with (folder / "rejected.csv").open(
        "w", encoding="utf-8", errors="backslashreplace", newline=""
    ) as stream:
        rejected = RejectedFile(stream)
        rows, counts = collect(settings, spool, rejected)
        word_keys = split.word_keys(rows.words)
        keys_N = np.concatenate(
            [split.title_keys(word_keys[ids], rows.lengths_N[slab]) for slab, ids in rows.slabs()]
        )
        kept_N = selection.duplicates(rows, keys_N, rejected)
        used_N = kept_N == np.arange(len(kept_N))
        labels = selection.frequent_categories(rows, used_N, settings.min_rows)
        label_of = np.full(len(rows.categories), -1, np.int32)
        label_of[[rows.categories.index(name) for name in labels]] = np.arange(len(labels))
        labels_N = label_of[rows.categories_N]
        rejected.add_rows(rows, used_N & (labels_N < 0), "rare_category", lambda row: "")
    relabelled = int(np.sum(rows.categories_N != rows.categories_N[kept_N]))
    counts |= {name: rejected.counts[name] for name in ("duplicate", "rare_category")}
    used_N &= labels_N >= 0
    if len(labels) < 2:
        raise ValueError(
            f"{settings.source} has {len(labels)} categories of at least {settings.min_rows} rows "
            f"(prepare.min_rows); a classifier needs two. Rows: {counts}"
        )
    splits_N = selection.splits(rows, used_N, labels_N, keys_N, settings, seed)
    words, new_ids = build_vocabulary(rows, splits_N == split.TRAIN, settings)
    if len(words) == len(SPECIAL_WORDS):
        raise ValueError(
            f"{settings.source}: no word occurs {settings.min_count} times in train "
            "(prepare.min_count): lower it, or give more rows"
        )
    unknown = {}
    for code, name in enumerate(SPLITS):
        titles = encode(rows, labels_N, splits_N == code, new_ids)
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
