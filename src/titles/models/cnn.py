"""A convolutional network over the words of a title, after Kim (2014), arXiv:1408.5882.

Legend: B titles, L words, U distinct words of the batch, D dimensions, K words a window, F filters,
H units of the hidden layer, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.contract import Batch
from titles.models.embedding import WordEmbedding
from titles.models.layers import Dropout, greatest_window


class TitleCNN(nn.Module):
    """Filters of several lengths, the maximum of each over the title, a hidden layer, categories.

    A window starts at every word of a title and may reach past its last word, where vectors are zero.
    Windows that start past the last word do not count, so padding never changes the logits.

    Args:
        filter_lengths: words a window, each different.
        filter_count: filters of each length.
        fc_size: units of the hidden layer.
        dropout: share of units dropped in training, before and after the hidden layer.
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        classes: int,
        *,
        filter_lengths: Sequence[int],
        filter_count: int,
        fc_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.filters = nn.ModuleList(
            WindowFilters(embedding.dimension, length, filter_count) for length in filter_lengths
        )
        self.dropout = Dropout(dropout)
        self.hidden = nn.Linear(filter_count * len(filter_lengths), fc_size)
        self.output = nn.Linear(fc_size, classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        embedded_UD = self.embedding(batch)
        pooled = [filters(embedded_UD, batch.place_BL) for filters in self.filters]
        hidden_BH = F.relu(self.hidden(self.dropout(torch.cat(pooled, dim=1))))
        logits_BC: Tensor = self.output(self.dropout(hidden_BH))
        return logits_BC


class WindowFilters(nn.Module):
    """The filters of one length, applied and pooled.

    A filter over K words is a sum of K projections, one for each place in the window. Words repeat
    within a batch, so each distinct word is projected once to all places, and a window then only looks
    up and adds K rows: a fraction of the multiplications of a convolution over the batch.
    """

    def __init__(self, dimension: int, length: int, count: int) -> None:
        super().__init__()
        self.length = length
        self.project = nn.Linear(dimension, length * count, bias=False)
        self.bias_F = nn.Parameter(torch.zeros(count))
        # As for a convolution whose filters see length * dimension inputs.
        bound = (length * dimension) ** -0.5
        nn.init.uniform_(self.project.weight, -bound, bound)
        nn.init.uniform_(self.bias_F, -bound, bound)

    def forward(self, embedded_UD: Tensor, place_BL: Tensor) -> Tensor:
        """The greatest response of each filter, (B, F), at least 0.

        Args:
            embedded_UD: vectors of the distinct words, after one of zeros at place 0.
        """
        # Row u * K + k is word u at place k of a window; place 0, no word, has rows of zeros.
        rows_RF = self.project(embedded_UD).view(len(embedded_UD) * self.length, -1)
        # The maximum of relu(x + b) is relu(max(x) + b): one small relu instead of B * L of them.
        highest_BF = greatest_window(rows_RF, place_BL, self.length)
        return F.relu(highest_BF + self.bias_F)
