"""A trained network as a folder with everything that prediction needs.

weights.safetensors   parameters and word vectors; reading it runs no code
model.json            format, architecture, tokenisation, temperature, calibrated loss
vocabulary.tsv        words by id
labels.txt            categories by id
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from titles.data.contract import LABELS_FILE, MODEL_FORMAT, PAD, VOCABULARY_FILE, write_json
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary, read_labels, write_labels
from titles.models.parts.embedding import WordEmbedding, embedding_of
from titles.models.parts.network import Network
from titles.params import Text

_MATRIX = "embedding.matrix_VD"
_GRAMS = "embedding.grams_RD"

_LEAST_LOSS = 1e-6  # the loss can be zero
_REASON = 300  # characters of a library's message about a damaged file, which can quote all of it


@dataclass(frozen=True)
class SavedModel:
    """A network with its vocabulary, labels and tokenisation.

    name: of the network in models/registry.py. settings: its keyword arguments.
    temperature: divisor that calibration has applied to the output layer; 1 is an uncalibrated network.
    calibrated_loss: cross-entropy on validation with that temperature, in nats per title; weights the
        network in the average. 1 if it was not measured.
    training: what the training used where a parameter leaves it open, such as batch_size: auto.
    """

    name: str
    settings: dict[str, Any]
    network: Network
    vocabulary: Vocabulary
    labels: list[str]
    text: Text
    temperature: float = 1.0
    calibrated_loss: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)


def weights(models: Sequence[SavedModel]) -> torch.Tensor:
    """(models,) weights of the networks in their average, by the inverse of the validation loss; their
    sum is 1. After Bates and Granger (1969), "The Combination of Forecasts"."""
    weight_M = torch.tensor([1 / max(model.calibrated_loss, _LEAST_LOSS) for model in models])
    return weight_M / weight_M.sum()


def write(model: SavedModel, folder: Path) -> None:
    """Write into an existing folder, such as one from `atomic_folder`."""
    embedding = embedding_of(model.network)
    state = {k: v for k, v in model.network.state_dict().items() if not k.startswith("embedding.")}
    state[_MATRIX] = embedding.matrix()
    if embedding.grams_RD is not None:
        state[_GRAMS] = embedding.grams_RD.detach()
    description = {
        "format": MODEL_FORMAT,
        "architecture": model.name,
        "settings": model.settings,
        "subwords": asdict(embedding.subwords.subwords) if embedding.subwords else None,
        "text": model.text.model_dump(),
        "temperature": model.temperature,
        "calibrated_loss": model.calibrated_loss,
        "training": model.training,
    }
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in state.items()},
        folder / "weights.safetensors",
    )
    write_json(folder / "model.json", description)
    model.vocabulary.write(folder / VOCABULARY_FILE)
    write_labels(model.labels, folder / LABELS_FILE)


def read(folder: Path, networks: Mapping[str, type[Network]]) -> SavedModel:
    """Rebuild the network on the CPU, in evaluation mode.

    Args:
        networks: the classes that may be used, by name.

    Raises:
        ValueError: a file is missing or damaged, the format is not supported, or the parts do not fit.
    """
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        found = description["format"]
        if found != MODEL_FORMAT:
            raise ValueError(
                f"{folder} has model format {found}, this version reads {MODEL_FORMAT}: "
                "train again with `dvc repro`"
            )
        name, settings = description["architecture"], description["settings"]
        text = Text.model_validate(description["text"])
        build = networks[name]
        letters = description["subwords"]
        temperature, loss = description["temperature"], description["calibrated_loss"]
        training = description.get("training", {})  # older models have none
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing: run `dvc repro`, or `dvc pull`") from None
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValidationError,
    ) as error:
        reason = repr(error)[:_REASON]
        raise ValueError(f"{folder}/model.json is damaged or unknown here: {reason}") from None
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise ValueError(f"{folder}/model.json is damaged: temperature is {temperature!r}")
    if not (isinstance(loss, int | float) and 0 <= loss < math.inf):
        raise ValueError(f"{folder}/model.json is damaged: calibrated_loss is {loss!r}")
    if not isinstance(training, dict):
        raise ValueError(f"{folder}/model.json is damaged: training is {training!r}"[:_REASON])
    try:
        subwords = Subwords(**letters) if letters else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/model.json is damaged: {error}") from None
    words = Vocabulary.read(folder / VOCABULARY_FILE)
    labels = read_labels(folder / LABELS_FILE)
    try:
        state = load_file(folder / "weights.safetensors")
        matrix_VD = state.pop(_MATRIX)
        if len(matrix_VD) != len(words):
            raise ValueError(f"{len(matrix_VD)} vectors for {len(words)} words")
        if matrix_VD[PAD].any():
            raise ValueError("the vector of padding is not zero")
        # Before a table of that size is allocated.
        if subwords and state[_GRAMS].shape != (subwords.buckets, matrix_VD.shape[1]):
            raise ValueError(f"vectors of n-grams are {tuple(state[_GRAMS].shape)}")
        vocabulary = VocabularySubwords(subwords, words.words) if subwords else None
        frozen_V = torch.ones(len(words), dtype=torch.bool)
        embedding = WordEmbedding(matrix_VD, frozen_V, True, vocabulary)
        network = build(embedding, len(labels), **settings)
        missing, unexpected = network.load_state_dict(state, strict=False)
        missing = [key for key in missing if not key.startswith("embedding.")]
        if missing or unexpected:
            raise ValueError(f"missing {missing}, unexpected {unexpected}")
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no weights.safetensors: run `dvc repro`, or `dvc pull`"
        ) from None
    except (
        SafetensorError,
        KeyError,
        TypeError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ValueError(f"{folder} is damaged, its weights do not fit: {error}") from None
    return SavedModel(name, settings, network.eval(), words, labels, text, temperature, loss, training)
