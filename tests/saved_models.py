"""Tiny trained networks as a folder, as the pipeline leaves them."""

from __future__ import annotations

from pathlib import Path

from networks import LABEL_NAMES, NAMES, SIZES, TEXT_RULES, network, vocabulary
from titles.data.subwords import Subwords
from titles.models.parts import saved

RULES = TEXT_RULES.model_copy(update={"digits": "keep"})  # the words of the vocabulary hold digits
LETTERS = Subwords(shortest=3, longest=4, buckets=17)


def model(name: str, subwords: Subwords | None = LETTERS) -> saved.SavedModel:
    made = network(name, subwords=subwords)
    return saved.SavedModel(
        name, SIZES[name] | {"dropout": 0.0}, made.eval(), vocabulary(), LABEL_NAMES, RULES
    )


def write_models(folder: Path, subwords: Subwords | None = LETTERS) -> Path:
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        saved.write(model(name, subwords), folder / name)
    return folder
