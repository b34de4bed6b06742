"""The file of predictions for the test split, by which experiments are compared title by title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder
from titles.data.outcomes import Outcomes
from titles.data.vocabulary import Vocabulary

# Columns of a model beside its predicted category, in the order of their fields in Outcomes.
_MEASURES = ("confidence", "rank", "loss")


@dataclass(frozen=True)
class Predictions:
    """N titles with known categories, and the outcomes of each model by its name."""

    keys_N: NDArray[np.uint64] | None  # see prepare/identity.py; None in files of older versions
    files: list[str]  # of the source; "" in files of older versions
    lines_N: NDArray[np.int64]
    titles: list[str]  # normalised tokens, separated by spaces
    labels: list[str]  # sorted names of the category ids in the outcomes
    outcomes: dict[str, Outcomes]

    def __len__(self) -> int:
        return len(self.titles)


def write(
    path: Path,
    titles: EncodedTitles,
    words: Vocabulary,
    labels: Sequence[str],
    outcomes: Mapping[str, Outcomes],
) -> None:
    """Write one row per title; replaces the folder of `path`. The same input gives the same bytes.

    Columns: key, file, line, title, category, and for each model of `outcomes` the predicted category
    <model>, its probability <model>_confidence, the number of categories ranked above the true one
    <model>_rank, and the cross-entropy in nats <model>_loss.
    """
    first = next(iter(outcomes.values()))
    columns = {
        "key": pa.array(titles.keys),
        "file": pa.DictionaryArray.from_arrays(
            titles.files.astype(np.int32), pa.array(titles.file_names, pa.string())
        ),
        "line": pa.array(titles.lines),
        "title": _joined(titles, words),
        "category": _categories(first.labels_N, labels),
    }
    for name, model in outcomes.items():
        columns[name] = _categories(model.predicted_N, labels)
        columns[f"{name}_confidence"] = pa.array(model.confidence_N.astype(np.float32))
        columns[f"{name}_rank"] = pa.array(model.rank_N.astype(np.int32))
        columns[f"{name}_loss"] = pa.array(model.loss_N.astype(np.float32))
    with atomic_folder(path.parent) as folder:
        pq.write_table(pa.table(columns), folder / path.name, compression="zstd", compression_level=3)


def _joined(titles: EncodedTitles, words: Vocabulary) -> pa.Array:
    # Id -1 - k is the k-th unknown word: counted from the end of the reversed unknown words.
    spelt = pa.array([*words.words, *reversed(titles.unknown_words)])
    place_W = np.where(titles.word_ids < 0, len(spelt) + titles.word_ids, titles.word_ids)
    starts = np.concatenate([[0], titles.ends])
    return pc.binary_join(pa.LargeListArray.from_arrays(starts, spelt.take(pa.array(place_W))), " ")


def _categories(codes_N: NDArray[np.int64], labels: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes_N.astype(np.int32), pa.array(labels, pa.string()))


def read(stream: BinaryIO) -> Predictions:
    """Read a file of `write`; raises ValueError if it is damaged or lacks a column."""
    try:
        table = pq.read_table(stream)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a complete Parquet file: {error}") from None
    models = dict.fromkeys(
        column.removesuffix(f"_{measure}")
        for column in table.column_names
        for measure in _MEASURES
        if column.endswith(f"_{measure}")
    )
    wanted = [f"{name}{end}" for name in models for end in ("", *(f"_{m}" for m in _MEASURES))]
    missing = {"line", "title", "category", *wanted} - set(table.column_names)
    if missing or not models:
        raise ValueError(f"columns are missing: {', '.join(sorted(missing)) or 'those of models'}")
    for name in ("line", "category", *wanted):
        is_number = name == "line" or name.endswith(tuple(_MEASURES))
        kind = table[name].type
        if table[name].null_count or is_number != (
            pa.types.is_integer(kind) or pa.types.is_floating(kind)
        ):
            raise ValueError(f"column {name!r} holds {kind}, or empty values")
    # Dictionaries differ between files: ids are assigned anew.
    names = {name: table[name].cast(pa.string()) for name in ("category", *models)}
    labels = sorted(set().union(*(column.unique().to_pylist() for column in names.values())))
    codes = {
        name: pc.index_in(column, pa.array(labels, pa.string())).to_numpy().astype(np.int64)
        for name, column in names.items()
    }
    outcomes = {}
    for name in models:
        measures = (table[f"{name}_{measure}"].to_numpy() for measure in _MEASURES)
        outcomes[name] = Outcomes(codes["category"], codes[name], *measures)
    keys_N = table["key"].to_numpy() if "key" in table.column_names else None
    files = table["file"].to_pylist() if "file" in table.column_names else [""] * len(table)
    return Predictions(
        keys_N, files, table["line"].to_numpy(), table["title"].to_pylist(), labels, outcomes
    )
