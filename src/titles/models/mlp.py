"""A multilayer perceptron over means of a title's word vectors.

Legend: B titles, L words, T their product, R rows of a table, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.layers import Dropout, embedding_bag


class TitleMLP(nn.Module):
    """The mean over the words of a title, that over its first words beside it, then hidden layers.

    A mean does not say in which order the words stood, and titles begin with what is sold: "capa para
    celular" is a cover. Padding is left out of both means.

    Args:
        leading_words: how many of the first words have a mean of their own; 0 leaves that out.
        hidden_layers: units of each layer.
        dropout: share of units dropped in training after each layer.
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        classes: int,
        *,
        leading_words: int,
        hidden_layers: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.leading_words = leading_words
        means = 2 if leading_words else 1
        sizes = [means * embedding.dimension, *hidden_layers]
        self.hidden = nn.ModuleList(nn.Linear(size, following) for size, following in pairwise(sizes))
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(sizes[-1], classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        table_RD, row_T = self.embedding.table_of(batch)
        row_BL, is_word_BL = row_T.view(batch.index_BL.shape), batch.index_BL > 0
        hidden = _mean(table_RD, row_BL, is_word_BL)
        if leading := self.leading_words:
            first_BD = _mean(table_RD, row_BL[:, :leading], is_word_BL[:, :leading])
            hidden = torch.cat([hidden, first_BD], dim=1)
        for layer in self.hidden:
            hidden = self.dropout(F.relu(layer(hidden)))
        logits_BC: Tensor = self.output(hidden)
        return logits_BC


def _mean(table_RD: Tensor, row_BL: Tensor, is_word_BL: Tensor) -> Tensor:
    """(B, D); of no words, zeros."""
    titles, words = row_BL.shape
    end_B = torch.arange(words, (titles + 1) * words, words, device=row_BL.device)
    # Where there is no word the vector is zero: it adds nothing, and is left out of the count.
    sum_BD = embedding_bag(table_RD, row_BL.flatten(), end_B)
    return sum_BD / is_word_BL.sum(dim=1, keepdim=True).clamp(min=1)
