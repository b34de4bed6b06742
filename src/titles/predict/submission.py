"""Writes a submission to the challenge: id,category, every id once, in order."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from titles.data.files import atomic_file
from titles.listings.files import CSV, opened
from titles.listings.listing import Chunk

if TYPE_CHECKING:  # loads torch
    from titles.predict.classifier import Classifier

_WANTED = "expected the challenge's test file, with the columns id,title,language"


def submit(classifier: Classifier, test: Path, out: Path) -> str:
    """Write a submission; returns a closing line with counts.

    Every id needs a category: a title without words gets the one that the networks predict without any.

    Raises:
        ValueError: the file is unusable, or an id in it is missing, not a number, or there twice.
    """
    fallback = int(classifier.probabilities(classifier.encode([""]))[0].argmax())
    named_C = np.array(classifier.labels, object)
    seen: dict[int, int] = {}
    without = 0
    with (
        opened(test, CSV, "title", ["id"], _WANTED) as listing,
        atomic_file(out) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        id_place = listing.columns.index("id")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "category"])
        for chunk in listing.chunks:
            ids = list(_checked(chunk, test, id_place, seen))
            categories_N = classifier.top(chunk.titles, 1).categories_NK[:, 0]
            without += int((categories_N < 0).sum())
            named = named_C[np.where(categories_N < 0, fallback, categories_N)]
            writer.writerows(zip(ids, named.tolist(), strict=True))
        if not seen:
            raise ValueError(f"{test} has no rows: {_WANTED}")
    told = f"{out}: {len(seen):,} ids"
    if without:
        told += f", {without:,} of them without a word in the title: {classifier.labels[fallback]}"
    return told


def _checked(chunk: Chunk, test: Path, id_place: int, seen: dict[int, int]) -> Iterator[str]:
    """The ids of a chunk, which are added to `seen` with their lines."""
    for place, (found, line) in enumerate(zip(chunk.columns[id_place], chunk.lines, strict=True)):
        where, text = f"{test}, line {line}", (found or "").strip()
        if found is None:  # fields of CSV are text: the row is broken
            raise ValueError(f"{where}: {chunk.problems[place]}; {_WANTED}")
        if not text:
            raise ValueError(f"{where}: the id is missing")
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise ValueError(f"{where}: the id is {text[:40]!r}, expected a whole number")
        first = seen.setdefault(int(text), line)
        if first != line:
            raise ValueError(f"{where}: the id {int(text)} stands in line {first} too")
        yield text
