"""A convolutional network over the words of a title, after Kim (2014), arXiv:1408.5882.

Legend: B titles, L words, U distinct words of the batch, D dimensions, K words a window, F filters of
all lengths, H units of the hidden layer, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, ValidationInfo, field_validator
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.layers import Dropout, max_over_time_conv
from titles.models.parts.network import Network, Output
from titles.models.parts.products import Linear, plus_bias
from titles.params import Sizes, Training, Units, distinct

_ROWS = 64  # the product of distinct words has a multiple of so many rows


class CNNSection(Training):
    """The section `cnn` of params.yaml."""

    filter_lengths: Annotated[Sizes, AfterValidator(distinct)]
    filter_count: Units
    fc_size: Units

    @field_validator("fc_size")
    @classmethod
    def _enough_for_heads(cls, fc_size: int, info: ValidationInfo) -> int:
        heads = info.data.get("heads", "auto")
        if heads != "auto" and fc_size < heads:
            raise ValueError(f"is {fc_size}, which is less than heads = {heads}")
        return fc_size

    def check_titles(self, max_words: int) -> None:
        if max(self.filter_lengths) > max_words:
            raise ValueError(
                f"filter_lengths has {max(self.filter_lengths)}, but titles are cut at "
                f"prepare.max_words = {max_words}"
            )


class TitleCNN(Network):
    """Filters of several lengths, the maximum of each over the title, a hidden layer, categories.

    A window starts at every word of a title and may reach past its last word, where vectors are zero.
    Windows that start past the last word do not count, so padding never changes the logits.

    Args:
        filter_lengths: words a window, each different.
        filter_count: filters of each length.
        fc_size: units of the hidden layer.
        dropout: share of units dropped in training, before and after the hidden layer.
    """

    Section = CNNSection
    summary = "filters over windows of words, maximum over the title (Kim, 2014)"

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
        super().__init__(embedding, classes)
        self.filters = WindowFilters(embedding.dimension, filter_lengths, filter_count)
        self.dropout = Dropout(dropout)
        self.hidden = Linear(filter_count * len(filter_lengths), fc_size)
        self.output = Output(fc_size, classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        return self._classify(self.filters(self.embedding(batch), batch.index_BL))

    def logits(self, vectors_BLD: Tensor, is_token_BL: Tensor) -> Tensor:
        return self._classify(self.filters.convolved(vectors_BLD, is_token_BL))

    def _classify(self, pooled_BF: Tensor) -> Tensor:
        hidden_BH = F.relu(self.hidden(self.dropout(pooled_BF)))
        logits_BC: Tensor = self.output(self.dropout(hidden_BH))
        return logits_BC


class WindowFilters(nn.Module):
    """The filters of all lengths, applied and pooled.

    A filter over K words is a sum of K projections, one for each place in the window. Words repeat
    within a batch, so each distinct word is projected once to all places of all windows, and a window
    then only looks up and adds K rows: a fraction of the multiplications of a convolution.
    """

    def __init__(self, dimension: int, lengths: Sequence[int], count: int) -> None:
        super().__init__()
        self.lengths, self.count = tuple(lengths), count
        self.project = Linear(dimension, sum(lengths) * count, bias=False)
        self.bias_F = nn.Parameter(torch.zeros(len(lengths) * count))
        blocks = torch.split(self.project.weight, [length * count for length in lengths])
        biases = torch.split(self.bias_F, count)
        for length, weight, bias in zip(lengths, blocks, biases, strict=True):
            # As for a convolution whose filters see length * dimension inputs.
            bound = (length * dimension) ** -0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, embedded_UD: Tensor, index_BL: Tensor) -> Tensor:
        """The greatest response of each filter, (B, F), at least 0.

        Args:
            embedded_UD: vectors of the distinct words, after one of zeros at place 0.
        """
        # Each number of rows has machine code of its own, made at its first use and kept: the batches
        # of a training have thousands of numbers of distinct words, and few multiples of this.
        padded_UD = F.pad(embedded_UD, (0, 0, 0, -len(embedded_UD) % _ROWS))
        # Sums of less precise products are precise.
        rows_UC = self.project(padded_UD).to(self.bias_F.dtype)
        greatest_BF = max_over_time_conv(rows_UC, index_BL, self.lengths)
        # The maximum of relu(x + b) is relu(max(x) + b): one small relu instead of B * L of them.
        return F.relu(plus_bias(greatest_BF, self.bias_F))

    def convolved(self, vectors_BLD: Tensor, is_token_BL: Tensor) -> Tensor:
        """The same by convolutions over all tokens of the titles."""
        vectors_BDL = vectors_BLD.transpose(1, 2)
        blocks = torch.split(self.project.weight, [self.count * length for length in self.lengths])
        greatest = []
        for length, block in zip(self.lengths, blocks, strict=True):
            # Rows of a block: by place in the window, then by filter.
            weight_FDK = block.view(length, self.count, -1).permute(1, 2, 0)
            response_BFL = F.conv1d(F.pad(vectors_BDL, (0, length - 1)), weight_FDK)
            outside_B1L = ~is_token_BL[:, None]
            greatest.append(response_BFL.masked_fill(outside_B1L, -torch.inf).amax(dim=2))
        return F.relu(torch.cat(greatest, dim=1) + self.bias_F)
