"""Cut the training rows of a prepared dataset, and leave validation and test whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rows import Codes, read_splits

from titles.data.contract import GIVEN_SPLITS, LABELS, LANGUAGES, NO_CORRECTIONS, PREPARED, QUALITIES
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder
from titles.data.vocabulary import read_labels
from titles.models.registry import load_params

# A cut has the rows, categories and labels of the whole: no category is too rare, no row of another
# language, no label to correct, and validation has already given its share to calibration.
SETTINGS = {
    "prepare": {
        "min_rows": 1,
        "language": "all",
        "corrections": NO_CORRECTIONS,
        "calibration_share": 0,
    }
}


def stratified(labels: Codes, size: int, seed: int) -> Codes:
    """Positions of `size` rows, in order, in which each category keeps its share, and at least one row.

    Shares are rounded by largest remainders. Of two sizes with one seed, the smaller cut of a category
    is part of the larger one.

    Raises:
        ValueError: there are fewer rows, or more categories than `size`.
    """
    categories, places_N, rows_C = np.unique(labels, return_inverse=True, return_counts=True)
    if not len(categories) <= size <= len(labels):
        raise ValueError(
            f"{len(labels)} rows of {len(categories)} categories cannot be cut to {size} rows"
        )
    wanted_C = np.maximum(rows_C * (size / len(labels)), 1)
    kept_C = np.floor(wanted_C).astype(np.int64)
    # Rows that the rare categories have above their share are taken from the others.
    while (over := int(kept_C.sum()) - size) > 0:
        largest = np.argsort(-kept_C, kind="stable")[: np.count_nonzero(kept_C > 1)]
        kept_C[largest[:over]] -= 1
    while (short := size - int(kept_C.sum())) > 0:
        missing_C = np.where(kept_C < rows_C, wanted_C - kept_C, -np.inf)
        most = np.argsort(-missing_C, kind="stable")[: np.count_nonzero(kept_C < rows_C)]
        kept_C[most[:short]] += 1
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(places_N[order], kind="stable")]
    rank_N = np.arange(len(labels)) - np.repeat(np.cumsum(rows_C) - rows_C, rows_C)
    chosen: Codes = np.sort(order[rank_N < np.repeat(kept_C, rows_C)])
    return chosen


def write(whole: Path, size: int, seed: int, folder: Path) -> Path:
    """Write train, validation and test of the workspace `whole`, with `size` training rows, as a source
    of listings that gives its splits; returns it.

    To be read with SETTINGS, so that vocabulary and word vectors come from the cut rows.

    Raises:
        ValueError: there are not so many rows.
    """
    labels = read_labels(whole / LABELS)
    splits = read_splits(load_params(whole / "params.yaml"), whole)
    source = folder / "cut"
    with atomic_folder(source) as partial:
        for name in GIVEN_SPLITS:
            split, encoded = splits[name], EncodedTitles.open(whole / PREPARED / name)
            rows = np.arange(len(encoded))
            if name == "train":
                rows = stratified(split.labels, size, seed)
            # The course's format, whose names have a language; each row has its own.
            path = partial / f"{LANGUAGES[1]}.{name}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for row in rows.tolist():
                    listing = {
                        "title": split.titles[row],
                        "category": labels[split.labels[row]],
                        "language": LANGUAGES[encoded.languages[row]],
                        "label_quality": QUALITIES[encoded.qualities[row]],
                        "split": name,
                    }
                    file.write(json.dumps(listing) + "\n")
    return source


def check(whole: Path, cut: Path, size: int) -> None:
    """Raises RuntimeError unless the workspace `cut` has so many training rows of `whole`, and its
    validation and test."""
    train, all_of_train = (EncodedTitles.open(folder / PREPARED / "train") for folder in (cut, whole))
    if len(train) != size or not np.isin(train.keys, all_of_train.keys).all():
        raise RuntimeError(f"{cut}: {len(train)} training rows, instead of {size} of {whole}")
    for name in ("validation", "test"):
        part, full = (EncodedTitles.open(folder / PREPARED / name) for folder in (cut, whole))
        if not np.array_equal(part.keys, full.keys) or not np.array_equal(part.labels, full.labels):
            raise RuntimeError(f"{cut}: the rows of {name} are not those of {whole}")
