"""Layers for prediction only: the names that networks import from models/parts, without compiled loops,
gradients and dropout. They give the same bits.

`titles export hub` copies this file.

Legend: B titles, L tokens of a title, U distinct tokens, D dimensions of a vector, T tokens of all bags,
R rows of a table, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.windows import max_over_time_conv  # noqa: F401  networks import it from here


class WordEmbedding:
    """The vector of each distinct token of a batch, plus the scaled sum of its n-gram vectors.

    Args:
        words: vectors of the vocabulary, as float32 (R, D), or as codes (R, D) in int8 and a scale for
            each row. ngrams: those of the n-grams; None for a network without.
    """

    def __init__(self, words: Sequence[Tensor], ngrams: Sequence[Tensor] | None) -> None:
        self.words, self.ngrams = words, ngrams
        self.dimension = words[0].shape[1]

    def __call__(self, batch: Batch) -> Tensor:
        """Vectors (U, D) of `batch.tokens_U`; the first, of padding, is zero."""
        vectors_UD = _rows(self.words, batch.tokens_U)
        if self.ngrams is not None:
            sums_UD = embedding_bag(
                _rows(self.ngrams, batch.ngrams_M), batch.ngram_index_G, batch.ngram_ends_U
            )
            counts_U = batch.ngram_ends_U.diff(prepend=batch.ngram_ends_U[:1]).clamp(min=1)
            vectors_UD = vectors_UD + sums_UD * counts_U[:, None].to(sums_UD.dtype).rsqrt()
        return vectors_UD

    def table_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A table of vectors, and the row in it of each token of the batch, (B * L,)."""
        return self(batch), batch.index_BL.flatten()


def _rows(table: Sequence[Tensor], index: Tensor) -> Tensor:
    found = table[0].index_select(0, index)
    if len(table) == 1:
        return found
    return found.float().mul_(table[1].float().index_select(0, index)[:, None])


class Network(nn.Module):
    """The base of the networks: a subclass implements `logits`, or a faster `forward`."""

    def __init__(self, embedding: WordEmbedding, classes: int, **architecture: Any) -> None:
        super().__init__()
        self.embedding = embedding

    def logits(self, vectors_BLD: Tensor, is_token_BL: Tensor) -> Tensor:
        """Logits (B, C)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        vectors_BLD = F.embedding(batch.index_BL, self.embedding(batch))
        return self.logits(vectors_BLD, batch.index_BL > 0)


class Dropout(nn.Module):
    """Drops nothing in prediction."""

    def __init__(self, dropped: float) -> None:
        super().__init__()

    def forward(self, units: Tensor) -> Tensor:
        return units


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, given: Tensor) -> Tensor:
        return linear(given, self.weight, self.bias)


class Output(Linear):
    """The last layer of a network."""


def linear(given_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """The product (B, O). oneDNN, of which torch has only a private operator, adds in the same order on
    every processor."""
    try:
        operator = torch.ops.mkldnn._linear_pointwise
    except (AttributeError, RuntimeError):
        return F.linear(given_BI, weight_OI, bias_O)
    # For a single row oneDNN has other code, which rounds otherwise.
    rows = given_BI if len(given_BI) > 1 else torch.cat([given_BI, given_BI])
    product_BO: Tensor = operator(rows, weight_OI, bias_O, "none", [], "")
    return product_BO[: len(given_BI)]


def plus_bias(values_BO: Tensor, bias_O: Tensor) -> Tensor:
    """The sum (B, O)."""
    return values_BO + bias_O


def embedding_bag(embeddings_RD: Tensor, row_T: Tensor, end_B: Tensor) -> Tensor:
    """Sum of the rows of each bag, (B, D); `end_B` is the end of each bag in `row_T`."""
    return F.embedding_bag(row_T, embeddings_RD, F.pad(end_B[:-1], (1, 0)), mode="sum")
