"""Layers optimised for the CPU. Tests compare each with its textbook form.

Legend: B titles or bags, L tokens, T tokens of all bags, D dimensions, F filters, C columns, R rows of a
table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from titles.models.parts import kernels, windows


class Dropout(nn.Module):
    """Dropout with masks from random bytes: takes a fifth of the time of torch's on a CPU.

    A share between two multiples of 1/256 takes the one or the other in each call, at random, so that
    every unit is dropped with the probability given.

    Args:
        dropped: share of units dropped in training, 0 <= x < 1.
    """

    def __init__(self, dropped: float) -> None:
        super().__init__()
        self.dropped = dropped

    def forward(self, units: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return units
        part, kept = math.modf(256 * (1 - self.dropped))
        if part:  # other shares draw nothing
            kept += float(torch.rand(())) < part
        words = torch.empty(units.numel() // 8 + 1, dtype=torch.int64, device=units.device)
        bytes_ = words.random_(-(2**63), None).view(torch.uint8)[: units.numel()]
        factor = (bytes_.view(units.shape) < kept).to(units.dtype).mul_(1 / (1 - self.dropped))
        return units * factor


def embedding_lookup(table_RD: Tensor, index: Tensor, *, distinct: bool) -> Tensor:
    """Rows of a table, with a sparse gradient that has each row once.

    Args:
        distinct: whether `index` has no duplicates, which saves merging them.
    """
    found: Tensor = _EmbeddingLookup.apply(table_RD, index, distinct)  # type: ignore[no-untyped-call]
    return found


class _EmbeddingLookup(torch.autograd.Function):
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


def embedding_bag(embeddings_RD: Tensor, row_T: Tensor, end_B: Tensor) -> Tensor:
    """Sum of the rows of each bag, (B, D).

    Args:
        row_T: rows of all bags, concatenated. end_B: end of each bag in them.
    """
    if embeddings_RD.is_cuda:
        return F.embedding_bag(row_T, embeddings_RD, F.pad(end_B[:-1], (1, 0)), mode="sum")
    summed: Tensor = _EmbeddingBag.apply(embeddings_RD, row_T, end_B)  # type: ignore[no-untyped-call]
    return summed


class _EmbeddingBag(torch.autograd.Function):
    """Faster than torch's, whose backward pass sorts the rows."""

    @staticmethod
    def forward(ctx: Any, embeddings_RD: Tensor, row_T: Tensor, end_B: Tensor) -> Tensor:
        ctx.save_for_backward(row_T, end_B)
        ctx.shape = embeddings_RD.shape
        return F.embedding_bag(row_T, embeddings_RD, F.pad(end_B[:-1], (1, 0)), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BD: Tensor) -> tuple[Tensor, None, None]:
        row_T, end_B = ctx.saved_tensors
        gradient = gradient_BD.new_zeros(ctx.shape)
        given, row, end = gradient_BD.contiguous().numpy(), row_T.numpy(), end_B.numpy()
        rows = gradient.numpy()
        kernels.in_parts(
            lambda first, last: kernels.embedding_bag_backward(given, row, end, rows, first, last),
            ctx.shape[1],
            len(row) * ctx.shape[1],
        )
        return gradient, None, None


def max_over_time_conv(rows_RC: Tensor, index_BL: Tensor, lengths: Sequence[int]) -> Tensor:
    """`windows.max_over_time_conv`, on CPUs by compiled loops."""
    if rows_RC.is_cuda:
        return windows.max_over_time_conv(rows_RC, index_BL, lengths)
    greatest: Tensor = _MaxOverTimeConv.apply(rows_RC, index_BL, lengths)  # type: ignore[no-untyped-call]
    return greatest


class _MaxOverTimeConv(torch.autograd.Function):
    """The gradient goes to the tokens of the maximal window of each filter."""

    @staticmethod
    def forward(ctx: Any, rows_RC: Tensor, index_BL: Tensor, lengths: Sequence[int]) -> Tensor:
        filters = rows_RC.shape[1] // sum(lengths)
        greatest_BF = rows_RC.new_empty(len(index_BL), len(lengths) * filters)
        start_BF = torch.empty(greatest_BF.shape, dtype=torch.int32)
        ctx.save_for_backward(start_BF, index_BL)
        ctx.shape, ctx.lengths, ctx.filters = rows_RC.shape, np.array(lengths), filters
        rows, place = rows_RC.detach().contiguous().numpy(), index_BL.numpy()
        greatest, start = greatest_BF.numpy(), start_BF.numpy()
        kernels.in_parts(
            lambda first, last: kernels.max_over_time_conv(
                rows, place, ctx.lengths, filters, greatest, start, first, last
            ),
            len(index_BL),
            index_BL.numel() * rows_RC.shape[1],
        )
        return greatest_BF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BF: Tensor) -> tuple[Tensor, None, None]:
        start_BF, index_BL = ctx.saved_tensors
        gradient = gradient_BF.new_zeros(ctx.shape)
        given, start = gradient_BF.contiguous().numpy(), start_BF.numpy()
        place, rows = index_BL.numpy(), gradient.numpy()
        kernels.in_parts(
            lambda first, last: kernels.max_over_time_conv_backward(
                given, start, place, ctx.lengths, ctx.filters, rows, first, last
            ),
            ctx.filters,
            len(index_BL) * ctx.shape[1],
        )
        return gradient, None, None
