"""Tiny titles, vectors and networks. Every dimension is another number: no two can be swapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data.batching import Batcher
from titles.data.contract import (
    EMBEDDED,
    LABELS,
    PAD,
    PREPARED,
    SPECIAL_WORDS,
    SPLITS,
    TEXT,
    UNK,
    VOCABULARY,
    Batch,
)
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary
from titles.models.parts.embedding import Freeze, WordEmbedding, embedding_of
from titles.models.registry import NETWORKS, load_params
from titles.params import Compute, Params, Text, Training
from titles.training.trainer import EpochRecord, Trainer

# Threads cost more than they save on tensors this small.
torch.set_num_threads(1)

NAMES = tuple(NETWORKS)
FREEZES: tuple[Freeze, ...] = (False, "partial", True)

V, D, C = 12, 5, 4
HAS_VECTOR = range(2, 8)  # words 8 to 11 have none of their own
UNSEEN = 11  # stands in no title
ABSENT = 3  # the category of no title
LABEL_NAMES = ["BIKES", "CARS", "DOGS", "EGGS"]

# Eight titles; the longest has as many words as the longest filter. Of unknown words, -1 is the first.
TITLES = [[2, 3, 4], [5], [8, 2, 9, 10, 3, 6], [-1, 7], [4, 4, 8, 5], [9, 6, 2], [10, 3, 7, 5, 8], [3]]
UNKNOWN_WORDS = ["word99", "ñ", "nuevo"]
CATEGORIES = [0, 1, 2, 2, 1, 2, 0, 2]
ONE_WORD = [row for row, title in enumerate(TITLES) if len(title) == 1]

# Word "ñ" is too short for any of these n-grams.
SUBWORDS = Subwords(shortest=4, longest=5, buckets=37)
LETTERS = {"subword_min": 4, "subword_max": 5, "subword_buckets": 37}
WITH_AND_WITHOUT = {"words": None, "letters": SUBWORDS}

# None of them is what params.yaml says.
TEXT_RULES = Text(
    strip_accents=False, digits="zero", drop_seller_noise=False, max_title_chars=90, max_words=17
)

SIZES: dict[str, dict[str, Any]] = {
    "cnn": {"filter_lengths": [1, 3, 6], "filter_count": 10, "fc_size": 9},
    "mlp": {"leading_words": 2, "hidden_layers": [13, 14]},
}


def encoded(
    titles: Sequence[Sequence[int]] = TITLES, labels: Sequence[int] = CATEGORIES
) -> EncodedTitles:
    count = len(titles)
    return EncodedTitles(
        np.array([word for title in titles for word in title], np.int32),
        np.cumsum([len(title) for title in titles]).astype(np.int64),
        np.array(labels, np.int32),
        np.array([1 + row % 2 for row in range(count)], np.uint8),
        np.array([1 + row % 3 // 2 for row in range(count)], np.uint8),
        np.arange(count, dtype=np.uint64) + 77,
        np.array([row % 2 for row in range(count)], np.uint32),
        np.arange(2, count + 2),
        UNKNOWN_WORDS,
        ["one.csv", "two.csv"],
    )


def batch_for(net: nn.Module, titles: Sequence[Sequence[int]] = TITLES, extra: int = 0) -> Batch:
    """The titles as the network reads them, with so many more columns of padding."""
    batcher = Batcher(
        encoded(titles, [0] * len(titles)), embedding_of(net).subwords, torch.device("cpu")
    )
    made = batcher.batch(np.arange(len(titles)))
    return made._replace(index_BL=F.pad(made.index_BL, (0, extra)))


def answers(net: nn.Module, titles: Sequence[Sequence[int]] = TITLES, extra: int = 0) -> Tensor:
    logits_BC: Tensor = net(batch_for(net, titles, extra))
    return logits_BC


def word_vectors() -> WordVectors:
    matrix_VD = np.random.default_rng(5).normal(size=(V, D)).astype(np.float32)
    matrix_VD[PAD] = 0
    return WordVectors(matrix_VD, np.isin(np.arange(V), HAS_VECTOR))


def embedding(freeze: Freeze, subwords: Subwords | None = None) -> WordEmbedding:
    vectors = word_vectors()
    return WordEmbedding(
        torch.from_numpy(vectors.matrix_VD),
        torch.from_numpy(vectors.has_vector_V),
        freeze,
        VocabularySubwords(subwords, vocabulary().words) if subwords else None,
    )


def network(
    name: str,
    freeze: Freeze = False,
    dropout: float = 0.0,
    seed: int = 7,
    subwords: Subwords | None = None,
) -> Any:
    torch.manual_seed(seed)
    return NETWORKS[name](embedding(freeze, subwords), C, **SIZES[name], dropout=dropout)


def gradient(values: Tensor) -> Tensor:
    """A parameter's gradient as a plain tensor."""
    assert values.grad is not None
    return values.grad.to_dense().clone()


def settings(name: str, **changes: Any) -> Training:
    values: dict[str, Any] = {
        "dropout": 0.0,
        "word_dropout": 0.0,
        "heads": 1,
        "freeze_embeddings": False,
        "subword_buckets": 0,
        "subword_min": 3,
        "subword_max": 6,
        "epochs": 3,
        "batch_size": 3,
        "min_steps": None,
        "learning_rate": 0.01,
        "schedule": "constant",
        "weight_decay": 0.0,
        "logit_adjustment": 0.0,
        "label_smoothing": 0.0,
        "gce_q": 0.0,
        "set_aside_below": 0.0,
        "class_weighting": "none",
        "patience": 0,
        "precision": "float32",
        "saved_weights": "float32",
    }
    values |= SIZES[name] | changes
    return NETWORKS[name].Section(**values)


def fit(*given: Any) -> Iterator[EpochRecord]:
    """Train from the first epoch; takes what `Trainer` takes."""
    return Trainer(*given).epochs()


@cache
def _committed() -> Params:
    return load_params(Path(__file__).parent.parent / "params.yaml")


def params(**changes: Any) -> Params:
    """The project's parameters with tiny networks; `changes` go to both."""
    return _committed().model_copy(
        update={
            "seed": 3,
            "compute": Compute(device="cpu", threads=1, portable=True),
            "cnn": settings("cnn", **changes),
            "mlp": settings("mlp", **changes),
        }
    )


def vocabulary() -> Vocabulary:
    words = [*SPECIAL_WORDS, *(f"word{number}" for number in range(UNK + 1, V))]
    return Vocabulary(words, [0, *range(V - 1, 0, -1)])


def write_prepared() -> None:
    """What the stages before a training leave, into the current folder."""
    PREPARED.mkdir(parents=True)
    for split in SPLITS:
        encoded().write(PREPARED / split)
    vocabulary().write(VOCABULARY)
    LABELS.write_text("".join(f"{label}\n" for label in LABEL_NAMES), encoding="utf-8")
    TEXT.write_text(TEXT_RULES.model_dump_json(), encoding="utf-8")
    EMBEDDED.mkdir()
    word_vectors().write(EMBEDDED)
