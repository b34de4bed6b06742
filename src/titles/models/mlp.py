"""A multilayer perceptron over the mean of a title's word vectors.

Legend: B titles, L words, U distinct words of the batch, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.contract import Batch
from titles.models.embedding import WordEmbedding
from titles.models.layers import Dropout, sum_of_rows


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
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(sizes[-1], classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        # Where there is no word the vector is zero: it adds nothing, and is left out of the count.
        titles, words = batch.place_BL.shape
        end_B = torch.arange(words, (titles + 1) * words, words, device=batch.place_BL.device)
        sum_BD = sum_of_rows(*self.embedding.table_of(batch), end_B)
        hidden = sum_BD / (batch.place_BL > 0).sum(dim=1, keepdim=True)
        for layer in self.hidden:
            hidden = self.dropout(F.relu(layer(hidden)))
        logits_BC: Tensor = self.output(hidden)
        return logits_BC
