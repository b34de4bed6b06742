"""Windows of words by operators of torch: for GPUs, and for the folder of `titles export hub`, which
copies this file.

Legend: B titles, L tokens of a title, R distinct tokens, C columns, F filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def max_over_time_conv(rows_RC: Tensor, index_BL: Tensor, lengths: Sequence[int]) -> Tensor:
    """Convolution and maximum over time: for each length and filter, the maximum over the windows of a
    title of the summed projections of their tokens, (B, lengths * filters).

    Args:
        rows_RC: projections of each distinct token, by window length, position in the window, filter.
        index_BL: rows of the tokens; row 0 is padding and zero. A window starts at every token and can
            reach past the last.
        lengths: tokens per window.
    """
    blocks = iter(rows_RC.chunk(sum(lengths), dim=1))
    found = []
    for length in lengths:
        places = F.pad(index_BL, (0, length - 1)).unfold(1, index_BL.shape[1], 1).unbind(1)
        first, *others = [F.embedding(window_BL, next(blocks)) for window_BL in places]
        summed_BLF = sum(others, start=first).masked_fill((index_BL == 0)[..., None], -torch.inf)
        found.append(summed_BLF.max(dim=1).values)
    return torch.cat(found, dim=1)
