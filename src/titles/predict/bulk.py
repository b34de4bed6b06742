"""Classifies whole listings in chunks, in bounded memory."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.listings.files import CSV, LINES, PARQUET, format_to_write
from titles.listings.listing import Listing
from titles.predict import files
from titles.predict.files import TABLE, UNCLASSIFIED, Predicted

if TYPE_CHECKING:  # loads torch
    from titles.predict.classifier import CategorySets, Classifier, Ranked


def classify(
    classifier: Classifier,
    listing: Listing,
    wanted: int | NDArray[np.float32],
    out: Path | None,
    kind: str,
    at_least: float = 0.0,
    without_formulas: bool = False,
) -> str:
    """Classify all rows in order and write them; returns a closing line with counts.

    Args:
        wanted: categories per title, or for sets the threshold of each category, see `Classifier.sets`.
        out, kind, without_formulas: see `files.writer`.
        at_least: a row whose likeliest category has a lower probability gets no category; without
            effect on sets.

    Raises:
        ValueError: the listing is damaged, or the output cannot be written; an existing file then stays.
    """
    rows, problems, size = 0, Counter[str](), 0
    started = time.perf_counter()
    bar = tqdm(
        total=listing.total,
        unit=" titles",
        delay=2,  # seconds
        disable=True if kind == TABLE else None,  # None: unless stderr is a terminal
    )
    labels = classifier.labels
    k = min(wanted, len(labels)) if isinstance(wanted, int) else None
    with bar, files.writer(out, kind, listing, labels, k, without_formulas) as write:
        for chunk in listing.chunks:
            found: Ranked | CategorySets
            doubts: dict[int, str] = {}
            if isinstance(wanted, int):
                found = classifier.top(chunk.titles, wanted)
                doubts = found.abstentions(labels, at_least)
                found.categories_NK[[*doubts]] = UNCLASSIFIED
            else:
                found = classifier.sets(chunk.titles, wanted)
                size += len(found.categories_S)
            told = [""] * len(chunk.titles)
            for place in np.flatnonzero(found.empty_N).tolist():
                told[place] = doubts.get(place) or chunk.problems.get(place, "no word")
                problems[told[place].partition(":")[0] if place in doubts else told[place]] += 1
            if chunk.lines:
                told = [t and f"{t}, line {line}" for t, line in zip(told, chunk.lines, strict=True)]
            write(Predicted(rows + 1, chunk, found, told))
            rows += len(told)
            bar.update(len(told))
    speed = rows / max(time.perf_counter() - started, 1e-9)
    without = problems.total()
    line = f"{rows - without:,} of {rows:,} titles classified ({speed:,.0f} per second)"
    if size:
        line += f"; {size / (rows - without):.2f} categories per title on average"
    if without:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in problems.most_common())
        line += f"; {without:,} without a category: {reasons}"
    return line


def output_format(out: Path | None, asked: str | None) -> str:
    """The format to write: the one asked for, else that of the file's ending; raises ValueError."""
    printed = TABLE if sys.stdout.isatty() else CSV
    kind = asked or (format_to_write(out, "--out-format") if out else printed)
    if out and kind in (TABLE, LINES):
        raise ValueError(f"{out}: a {kind} cannot be written there; --out-format: csv, jsonl or parquet")
    if not out and kind == PARQUET and sys.stdout.isatty():
        raise ValueError("Parquet cannot be shown in a terminal: name a file with --out")
    return kind
