"""A convolutional network over the words of a title, after Kim (2014), arXiv:1408.5882.

Legend: B titles, L words, U distinct words of the batch, D dimensions, K words a window, F filters,
H units of the hidden layer, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.contract import PAD
from titles.models.embedding import WordEmbedding


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
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(filter_count * len(filter_lengths), fc_size)
        self.output = nn.Linear(fc_size, classes)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Logits (B, C) of word ids padded with PAD."""
        words_U, place_BL = torch.unique(tokens_BL, return_inverse=True)
        embedded_UD = self.embedding(words_U)
        is_word_BL = tokens_BL != PAD
        pooled = [filters(embedded_UD, place_BL, is_word_BL) for filters in self.filters]
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

    def forward(self, embedded_UD: Tensor, place_BL: Tensor, is_word_BL: Tensor) -> Tensor:
        """The greatest response of each filter, (B, F), at least 0."""
        # Row u * K + k is word u at place k of a window; one more row of zeros stands for no word.
        rows_RF = self.project(embedded_UD).view(len(embedded_UD) * self.length, -1)
        rows_RF = F.pad(rows_RF, (0, 0, 0, 1))
        row_BL = torch.where(is_word_BL, place_BL * self.length, -1)
        row_BL = F.pad(row_BL, (0, self.length - 1), value=-1)
        window_BLK = row_BL.unfold(1, self.length, 1)
        place_K = torch.arange(self.length, device=window_BLK.device)
        window_BLK = torch.where(window_BLK >= 0, window_BLK + place_K, len(rows_RF) - 1)
        summed_NF = F.embedding_bag(window_BLK.flatten(0, 1), rows_RF, mode="sum")
        summed_BLF = summed_NF.view(*is_word_BL.shape, -1)
        # The maximum of relu(x + b) is relu(max(x) + b): one small relu instead of B * L of them.
        highest_BF = summed_BLF.masked_fill(~is_word_BL[..., None], -torch.inf).amax(dim=1)
        return F.relu(highest_BF + self.bias_F)
