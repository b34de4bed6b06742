"""A multilayer perceptron over the mean of a title's word vectors.

Legend: B titles, L words, U distinct words of the batch, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.contract import PAD
from titles.models.embedding import WordEmbedding


class TitleMLP(nn.Module):
    """The mean over the words of a title, padding left out, then hidden layers.

    Args:
        hidden_layers: units of each layer.
        dropout: share of units dropped in training after each layer.
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        classes: int,
        *,
        hidden_layers: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        sizes = [embedding.dimension, *hidden_layers]
        self.hidden = nn.ModuleList(nn.Linear(size, following) for size, following in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(sizes[-1], classes)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Logits (B, C) of word ids padded with PAD."""
        words_U, place_BL = torch.unique(tokens_BL, return_inverse=True)
        # PAD's vector is zero: it adds nothing to the sum and is left out of the count.
        sum_BD = F.embedding_bag(place_BL, self.embedding(words_U), mode="sum")
        hidden = sum_BD / (tokens_BL != PAD).sum(dim=1, keepdim=True)
        for layer in self.hidden:
            hidden = self.dropout(F.relu(layer(hidden)))
        logits_BC: Tensor = self.output(hidden)
        return logits_BC
