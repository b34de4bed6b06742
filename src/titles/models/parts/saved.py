"""A trained network as a folder with everything that prediction needs.

weights.safetensors   parameters and word vectors; reading it runs no code
model.json            format, architecture, tokenisation, temperature, calibrated loss
vocabulary.tsv        words by id
labels.txt            categories by id
golden.json           titles, with the words and ids that they have to have

Formats: 6 has golden.json, and its weights can be quantised (`saved_weights`); 5 has neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from titles.data.contract import LABELS_FILE, MODEL_FORMAT, PAD, VOCABULARY_FILE
from titles.data.documents import DocumentError, read_json
from titles.data.files import write_json
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary, read_labels, write_labels
from titles.models.parts import golden
from titles.models.parts.embedding import Int8Embedding, WordEmbedding, embedding_of
from titles.models.parts.network import Network
from titles.models.parts.quantisation import Int8Rows, as_half, as_int8, round_weights
from titles.params import SavedWeights, Text

_MATRIX = "embedding.matrix_VD"
_GRAMS = "embedding.grams_RD"
_SCALE = ".scale"  # after the name of a table in int8
_UNCHECKED_FORMAT = 5

_LEAST_LOSS = 1e-6  # the loss can be zero
_MOST = 1e9  # temperature or loss, far above any: their inverses are numbers of 32 bits
_REASON = 300  # characters of a library's message about a damaged file, which can quote all of it


@dataclass(frozen=True)
class SavedModel:
    """A network with its vocabulary, labels and tokenisation.

    name: of the network in models/registry.py. settings: its keyword arguments.
    temperature: divisor that calibration has applied to the output layer; 1 is an uncalibrated network.
    calibrated_loss: cross-entropy on validation with that temperature, in nats per title; weights the
        network in the average. 1 if it was not measured.
    training: what the training used where a parameter leaves it open, such as batch_size: auto, and the
        class of the machine, see `processor.machine`.
    saved_weights: int8 rounds weights when they are written, see models/parts/quantisation.py; float32
        writes them as they are.
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
    saved_weights: SavedWeights = "float32"

    def round_as_saved(self) -> None:
        """Round the weights of the network in place to those that `write` saves.

        Raises:
            ValueError: a weight is not finite.
        """
        if self.saved_weights == "int8":
            round_weights(self.network)


def weights(models: Sequence[SavedModel]) -> torch.Tensor:
    """(models,) weights of the networks in their average, by the inverse of the validation loss; their
    sum is 1. After Bates and Granger (1969), "The Combination of Forecasts"."""
    weight_M = torch.tensor([1 / max(model.calibrated_loss, _LEAST_LOSS) for model in models])
    return weight_M / weight_M.sum()


def write(model: SavedModel, folder: Path) -> None:
    """Write into an existing folder, such as one from `atomic_folder`.

    Raises:
        ValueError: a weight to be quantised is not finite.
    """
    embedding = embedding_of(model.network)
    others = {k: v for k, v in model.network.state_dict().items() if not k.startswith("embedding.")}
    tables = {_MATRIX: embedding.matrix()}
    if (grams_RD := embedding.ngram_table()) is not None:
        tables[_GRAMS] = grams_RD
    if model.saved_weights == "int8":
        state = {name: as_half(values) for name, values in others.items()}
        for name, table in tables.items():
            state[name], state[name + _SCALE] = as_int8(table)
    else:
        state = others | tables
    subwords = embedding.subwords.subwords if embedding.subwords else None
    description = {
        "format": MODEL_FORMAT,
        "architecture": model.name,
        "settings": model.settings,
        "subwords": asdict(subwords) if subwords else None,
        "text": model.text.model_dump(),
        "temperature": model.temperature,
        "calibrated_loss": model.calibrated_loss,
        "training": model.training,
        "saved_weights": model.saved_weights,
    }
    save_tensors(
        {name: tensor.contiguous().cpu() for name, tensor in state.items()},
        folder / "weights.safetensors",
    )
    write_json(folder / "model.json", description)
    model.vocabulary.write(folder / VOCABULARY_FILE)
    write_labels(model.labels, folder / LABELS_FILE)
    golden.write(folder, model.text, model.vocabulary, subwords)


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a file of safetensors, with the system's error where it cannot be written."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from None
        raise


def read(folder: Path, networks: Mapping[str, type[Network]]) -> SavedModel:
    """Rebuild the network on the CPU, in evaluation mode.

    Args:
        networks: the classes that may be used, by name.

    Raises:
        ValueError: a file is missing or damaged, the format is not supported, the parts do not fit, or
            titles are read otherwise than when the model was written.
    """
    try:
        description = read_json(folder / "model.json")
        found = description["format"]
        if found not in (_UNCHECKED_FORMAT, MODEL_FORMAT):
            raise ValueError(
                f"{folder} has model format {found}, this version reads {_UNCHECKED_FORMAT} and "
                f"{MODEL_FORMAT}: train again with `dvc repro`"
            )
        name, settings = description["architecture"], description["settings"]
        text = Text.model_validate(description["text"])
        build = networks[name]
        letters = description["subwords"]
        temperature, loss = description["temperature"], description["calibrated_loss"]
        training = description.get("training", {})  # older models have none
        kind: SavedWeights = "float32" if found == _UNCHECKED_FORMAT else description["saved_weights"]
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing: run `dvc repro`, or `dvc pull`") from None
    except (
        DocumentError,
        KeyError,
        TypeError,
        ValidationError,
    ) as error:
        reason = (str(error) if isinstance(error, ValueError) else repr(error))[:_REASON]
        raise ValueError(f"{folder}/model.json is damaged or unknown here: {reason}") from None
    if not (isinstance(temperature, int | float) and 0 < temperature < _MOST):
        raise ValueError(f"{folder}/model.json is damaged: temperature is {temperature!r}"[:_REASON])
    if not (isinstance(loss, int | float) and 0 <= loss < _MOST):
        raise ValueError(f"{folder}/model.json is damaged: calibrated_loss is {loss!r}"[:_REASON])
    if not isinstance(training, dict):
        raise ValueError(f"{folder}/model.json is damaged: training is {training!r}"[:_REASON])
    if kind not in get_args(SavedWeights):
        raise ValueError(f"{folder}/model.json is damaged: saved_weights is {kind!r}"[:_REASON])
    try:
        subwords = Subwords(**letters) if letters else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/model.json is damaged: {error}") from None
    words = Vocabulary.read(folder / VOCABULARY_FILE)
    labels = read_labels(folder / LABELS_FILE)
    try:
        weights_file = folder / "weights.safetensors"
        weights_file.open("rb").close()  # safetensors takes one that it may not read for missing
        state = load_file(weights_file)
        embedding = _embedding(state, kind, words, subwords)
        # Settings that announce more weights than there are must not fill the memory.
        build.Section.check_architecture(settings)
        _check_weights(build.planned(embedding, len(labels), settings), state, kind)
        network = build(embedding, len(labels), **settings)
        network.load_state_dict(state, strict=False)  # the embedding has its tables
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no weights.safetensors: run `dvc repro`, or `dvc pull`"
        ) from None
    except (
        SafetensorError,
        LookupError,
        TypeError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error)[:_REASON]
        raise ValueError(f"{folder} is damaged, its weights do not fit: {reason}") from None
    if found == _UNCHECKED_FORMAT:
        golden.warn_unchecked(folder)
    else:
        golden.check(folder, text, words, subwords)
    return SavedModel(
        name, settings, network.eval(), words, labels, text, temperature, loss, training, kind
    )


def _embedding(
    state: dict[str, torch.Tensor], kind: SavedWeights, words: Vocabulary, subwords: Subwords | None
) -> WordEmbedding:
    """The embedding from its tables, which are taken out of the state.

    Raises:
        ValueError: a table has another size or type. KeyError: one is missing.
    """
    # Copies: tensors of load_file are the mapped file, which can be written over while a server runs.
    matrix_VD = state.pop(_MATRIX).clone()
    if matrix_VD.ndim != 2 or len(matrix_VD) != len(words):
        raise ValueError(f"{len(matrix_VD)} vectors for {len(words)} words")
    tables = {_MATRIX: matrix_VD}
    if subwords:
        tables[_GRAMS] = state.pop(_GRAMS).clone()
        if tables[_GRAMS].shape != (subwords.buckets, matrix_VD.shape[1]):
            raise ValueError(f"vectors of n-grams are {tuple(tables[_GRAMS].shape)}")
    if matrix_VD[PAD].any():
        raise ValueError("the vector of padding is not zero")
    vocabulary = VocabularySubwords(subwords, words.words) if subwords else None
    if kind == "int8":
        rows = {name: Int8Rows(table, state.pop(name + _SCALE)) for name, table in tables.items()}
        return Int8Embedding(rows[_MATRIX], rows.get(_GRAMS), vocabulary)
    for name, table in tables.items():
        _check_floats(name, table, kind)
    frozen_V = torch.ones(len(words), dtype=torch.bool)
    return WordEmbedding(matrix_VD, frozen_V, True, vocabulary, tables.get(_GRAMS))


def _check_weights(network: Network, state: dict[str, torch.Tensor], kind: SavedWeights) -> None:
    """Raise ValueError unless a state has all weights of a network but those of the embedding, of the
    same shapes and types, and finite."""
    expected = {k: v for k, v in network.state_dict().items() if not k.startswith("embedding.")}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    for name, values in state.items():
        if values.shape != expected[name].shape:
            raise ValueError(f"{name} is {tuple(values.shape)}, not {tuple(expected[name].shape)}")
        if expected[name].is_floating_point():
            _check_floats(name, values, kind)
        elif values.dtype != expected[name].dtype:
            raise ValueError(f"{name} is {values.dtype}, not {expected[name].dtype}")


def _check_floats(name: str, values: torch.Tensor, kind: SavedWeights) -> None:
    known = (torch.float32,) if kind == "float32" else (torch.float16, torch.float32)
    if values.dtype not in known:
        raise ValueError(f"{name} is {values.dtype}, saved_weights is {kind}")
    if not values.isfinite().all():
        raise ValueError(f"{name} is not finite")
