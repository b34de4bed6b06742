"""Tiny trained networks as a folder, as the pipeline leaves them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from networks import LABEL_NAMES, NAMES, SIZES, TEXT_RULES, network, vocabulary
from titles.data.subwords import Subwords
from titles.models.parts import saved
from titles.params import SavedWeights

RULES = TEXT_RULES.model_copy(update={"digits": "keep"})  # the words of the vocabulary hold digits
LETTERS = Subwords(shortest=3, longest=4, buckets=17)


def model(
    name: str, subwords: Subwords | None = LETTERS, saved_weights: SavedWeights = "int8"
) -> saved.SavedModel:
    made = saved.SavedModel(
        name,
        SIZES[name] | {"dropout": 0.0},
        network(name, subwords=subwords).eval(),
        vocabulary(),
        LABEL_NAMES,
        RULES,
        saved_weights=saved_weights,
    )
    made.round_as_saved()
    return made


def write_models(folder: Path, subwords: Subwords | None = LETTERS) -> Path:
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        saved.write(model(name, subwords), folder / name)
    return folder


def write_format_5(made: saved.SavedModel, folder: Path) -> None:
    """As versions before golden examples and quantised weights did, into a new folder."""
    folder.mkdir(parents=True)
    saved.write(replace(made, saved_weights="float32"), folder)
    (folder / "golden.json").unlink()
    path = folder / "model.json"
    described = json.loads(path.read_text(encoding="utf-8")) | {"format": 5}
    del described["saved_weights"]
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
