"""Layers of both networks in the form that a CPU runs fastest. Each is what its textbook form is; tests
compare.

Legend: B titles, L words, F filters, K words a window, R rows of a table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Dropout(nn.Module):
    """Dropout whose masks are compared bytes: a fifth of the time of torch's own on a CPU.

    Args:
        dropped: share of units made zero in training, in steps of 1/256.
    """

    def __init__(self, dropped: float) -> None:
        super().__init__()
        self.dropped = dropped

    def forward(self, units: Tensor) -> Tensor:
        kept = 256 - round(256 * self.dropped)
        if not self.training or kept == 256:
            return units
        words = torch.empty(units.numel() // 8 + 1, dtype=torch.int64, device=units.device)
        bytes_ = words.random_(-(2**63), None).view(torch.uint8)[: units.numel()]
        return units * (bytes_.view(units.shape) < kept) * (256 / max(kept, 1))


def rows(table_RD: Tensor, index: Tensor, *, distinct: bool) -> Tensor:
    """Rows of a table, with a sparse gradient that names each row once.

    Args:
        distinct: whether no row is asked for twice, which saves looking for those.
    """
    found: Tensor = _Rows.apply(table_RD, index, distinct)  # type: ignore[no-untyped-call]
    return found


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RD: Tensor, index: Tensor, distinct: bool) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.distinct = table_RD.shape, distinct
        return table_RD.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        if not ctx.distinct:
            index, place = torch.unique(index, return_inverse=True)
            summed = gradient.new_zeros(len(index), ctx.shape[1])
            gradient = summed.index_add_(0, place, gradient)
        sparse = torch.sparse_coo_tensor(index[None], gradient, ctx.shape, check_invariants=False)
        return sparse, None, None


def greatest_window(rows_RF: Tensor, place_BL: Tensor, length: int) -> Tensor:
    """The maximum over all windows of a title of the sum of their words' rows, (B, F).

    Args:
        rows_RF: row p * length + k is what the word at place p adds as the k-th of a window.
        place_BL: places of words; 0 is no word, and its rows are zeros. A window starts at every word
            and may reach past the last.
    """
    greatest: Tensor = _GreatestWindow.apply(rows_RF, place_BL, length)  # type: ignore[no-untyped-call]
    return greatest


class _GreatestWindow(torch.autograd.Function):
    """Only the window that won gets a gradient: the rows of its words, filter by filter. The automatic
    backward pass would write and add up zeros for all other windows."""

    @staticmethod
    def forward(ctx: Any, rows_RF: Tensor, place_BL: Tensor, length: int) -> Tensor:
        first_BL = torch.nn.functional.pad(place_BL, (0, length - 1)) * length
        window_BLK = first_BL.unfold(1, length, 1) + torch.arange(length, device=place_BL.device)
        summed_BLF = torch.nn.functional.embedding_bag(
            window_BLK.flatten(0, 1), rows_RF, mode="sum"
        ).view(*place_BL.shape, -1)
        padding_BL1 = (place_BL == 0)[..., None]
        highest_BF, start_BF = summed_BLF.masked_fill_(padding_BL1, -torch.inf).max(dim=1)
        ctx.save_for_backward(first_BL, start_BF)
        ctx.shape, ctx.length = rows_RF.shape, length
        return highest_BF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BF: Tensor) -> tuple[Tensor, None, None]:
        first_BL, start_BF = ctx.saved_tensors
        filters = ctx.shape[1]
        gradient = gradient_BF.new_zeros(ctx.shape[0] * filters)
        filter_F = torch.arange(filters, device=gradient.device)
        for place in range(ctx.length):
            row_BF = first_BL.gather(1, start_BF + place) + place
            cell_BF = row_BF * filters + filter_F
            gradient.scatter_add_(0, cell_BF.flatten(), gradient_BF.flatten())
        return gradient.view(ctx.shape), None, None
