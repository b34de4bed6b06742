"""Word embeddings: frozen and trainable rows, and subword n-grams.

Legend: V words of the vocabulary, F frozen ones, D dimensions of a vector, U distinct tokens of a batch,
M distinct n-grams of those, R rows of the table of n-grams.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data import memory
from titles.data.contract import PAD, Batch
from titles.data.subwords import VocabularySubwords
from titles.models.parts.layers import embedding_bag, embedding_lookup
from titles.models.parts.quantisation import Int8Rows

Freeze = bool | Literal["partial"]

_NGRAM_STD = 0.1  # of the initial n-gram vectors; zeros train much more slowly


class WordEmbedding(nn.Module):
    """The vector of each distinct token of a batch, plus the scaled sum of its n-gram vectors.

    Frozen rows are in a buffer and trainable rows in a parameter, so that no gradient, momentum or
    weight decay can reach a frozen row. PAD is a frozen zero row. N-gram vectors are always trained.

    Args:
        matrix_VD: float32 vectors.
        has_vector_V: rows that "partial" freezes; the others are trained (the course's "semi-freeze").
        freeze: True freezes all rows, False only PAD.
        subwords: n-grams of the vocabulary; None disables them.
        grams_RD: vectors of the n-grams; None draws them.
    """

    frozen_FD: Tensor
    row_V: Tensor

    def __init__(
        self,
        matrix_VD: Tensor,
        has_vector_V: Tensor,
        freeze: Freeze,
        subwords: VocabularySubwords | None = None,
        grams_RD: Tensor | None = None,
    ) -> None:
        super().__init__()
        frozen_V = has_vector_V.clone() if freeze == "partial" else torch.full_like(has_vector_V, freeze)
        frozen_V[PAD] = True
        # Row of each word in the concatenation of the frozen and the trainable table.
        row_V = torch.empty(len(frozen_V), dtype=torch.int64)
        row_V[frozen_V] = torch.arange(int(frozen_V.sum()))
        row_V[~frozen_V] = torch.arange(int(frozen_V.sum()), len(frozen_V))
        self.register_buffer("row_V", row_V)
        self.register_buffer("frozen_FD", matrix_VD[frozen_V].clone())
        self.trainable_VD = nn.Parameter(matrix_VD[~frozen_V].clone()) if not frozen_V.all() else None
        self.subwords = subwords
        self.grams_RD: nn.Parameter | None = None
        if subwords:
            if grams_RD is None:
                rows = subwords.subwords.buckets
                size = rows * self.dimension * matrix_VD.element_size()
                memory.check(size, f"vectors of n-grams (subword_buckets: {rows})")
                grams_RD = torch.empty(subwords.subwords.buckets, self.dimension)
                nn.init.normal_(grams_RD, std=_NGRAM_STD)
            self.grams_RD = nn.Parameter(grams_RD)

    @property
    def dimension(self) -> int:
        return self.frozen_FD.shape[1]

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (U, D) of `batch.tokens_U`; the first, of PAD, is zero."""
        vectors_UD = self._words(batch.tokens_U)
        if self.subwords:
            ngrams_MD = self._ngrams(batch.ngrams_M)
            sums_UD = embedding_bag(ngrams_MD, batch.ngram_index_G, batch.ngram_ends_U)
            counts_U = batch.ngram_ends_U.diff(prepend=batch.ngram_ends_U[:1]).clamp(min=1)
            # Divided by the root of their number, a sum of independent vectors is as long as one of
            # them.
            vectors_UD = vectors_UD + sums_UD * counts_U[:, None].to(sums_UD.dtype).rsqrt()
        return vectors_UD

    def table_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A table of vectors, and the row in it of each token of the batch, (B * L,)."""
        index_T = batch.index_BL.flatten()
        if self.trainable_VD is None and self.grams_RD is None:  # no copy of the frozen table
            row_U = self.row_V.index_select(0, batch.tokens_U)
            return self.frozen_FD, row_U.index_select(0, index_T)
        return self(batch), index_T

    def _words(self, tokens_U: Tensor) -> Tensor:
        row_U = self.row_V.index_select(0, tokens_U)
        frozen = len(self.frozen_FD)
        if self.trainable_VD is None:
            return self.frozen_FD.index_select(0, row_U)
        distinct = self.subwords is None  # with subwords, several tokens can be UNK
        if frozen == 1:  # only PAD
            trainable_UD = embedding_lookup(self.trainable_VD, row_U[1:] - 1, distinct=distinct)
            return F.pad(trainable_UD, (0, 0, 1, 0))
        (trainable,) = torch.where(row_U >= frozen)
        frozen_UD = self.frozen_FD.index_select(0, row_U.clamp(max=frozen - 1))
        trainable_UD = embedding_lookup(self.trainable_VD, row_U[trainable] - frozen, distinct=distinct)
        return frozen_UD.index_copy(0, trainable, trainable_UD)

    def _ngrams(self, ngrams_M: Tensor) -> Tensor:
        assert self.grams_RD is not None
        return embedding_lookup(self.grams_RD, ngrams_M, distinct=True)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """The word vectors without n-grams, (V, D)."""
        tables = [self.frozen_FD] if self.trainable_VD is None else [self.frozen_FD, self.trainable_VD]
        return torch.cat(tables)[self.row_V]

    def ngram_table(self) -> Tensor | None:
        """The vectors of n-grams, (R, D); None without n-grams."""
        return None if self.grams_RD is None else self.grams_RD.detach()


class Int8Embedding(WordEmbedding):
    """The same for prediction only: rows are read straight from int8, in a quarter of the memory."""

    def __init__(
        self, words: Int8Rows, grams: Int8Rows | None, subwords: VocabularySubwords | None
    ) -> None:
        nn.Module.__init__(self)
        self.words, self.grams, self.subwords = words, grams, subwords

    @property
    def dimension(self) -> int:
        return self.words.codes_RD.shape[1]

    def table_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self(batch), batch.index_BL.flatten()

    def _words(self, tokens_U: Tensor) -> Tensor:
        found_UD: Tensor = self.words(tokens_U)
        return found_UD

    def _ngrams(self, ngrams_M: Tensor) -> Tensor:
        assert self.grams is not None
        found_MD: Tensor = self.grams(ngrams_M)
        return found_MD

    def matrix(self) -> Tensor:
        return self.words.whole()

    def ngram_table(self) -> Tensor | None:
        return None if self.grams is None else self.grams.whole()


def embedding_of(network: nn.Module) -> WordEmbedding:
    """The embedding layer of a network."""
    embedding = network.embedding
    assert isinstance(embedding, WordEmbedding)
    return embedding
