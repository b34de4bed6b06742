"""Lazy Adam for embeddings, and the one-cycle learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from titles.models.parts import kernels

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Share of the training that is warm-up, and the share of the full rate that it starts from.
_WARM_UP, _START = 0.1, 0.04


class LazyAdam(Optimizer):
    """Lazy Adam (Adam: Kingma and Ba, 2015): rows without a gradient are not updated, nor their moments.

    Plain Adam reads and writes the whole table three times per step, and moves rows that are not in the
    batch by old momentum. Gradients can be dense, or sparse with each row once, as from
    `layers.embedding_lookup`; the result is the same.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    _step(table, self.state[table], group["lr"])


def _step(table: Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state |= {"steps": 0, "exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)}
    state["steps"] += 1
    assert table.grad is not None
    if table.grad.is_sparse:
        # coalesce() would sort the rows, which are distinct already.
        rows, gradient_RD = table.grad._indices()[0], table.grad._values()
    else:
        rows, gradient_RD = torch.arange(len(table), device=table.device), table.grad
    if table.is_cuda:  # needs a GPU
        _step_of_rows(table, state, rows, gradient_RD, rate)
        return
    steps = state["steps"]
    rates = np.array(
        [_BETA1, _BETA2, rate / (1 - _BETA1**steps), 1 - _BETA2**steps, _EPSILON],
        table.detach().numpy().dtype,
    )
    vectors, exp_avg, exp_avg_sq = (
        t.detach().numpy() for t in (table, state["exp_avg"], state["exp_avg_sq"])
    )
    named, gradient = rows.numpy(), gradient_RD.contiguous().numpy()
    kernels.in_parts(
        lambda first, last: kernels.adam(
            vectors, exp_avg, exp_avg_sq, named, gradient, rates, first, last
        ),
        len(named),
        4 * gradient.size,
    )


def _step_of_rows(
    table: Tensor, state: dict[str, Any], rows: Tensor, gradient_RD: Tensor, rate: float
) -> None:
    """The same with operators of torch, for a GPU."""
    (moving,) = torch.where(gradient_RD.abs().amax(dim=1) > 0)
    if len(moving) < len(rows):
        rows, gradient_RD = rows.index_select(0, moving), gradient_RD.index_select(0, moving)
    # index_select is several times as fast as indexing with brackets.
    exp_avg_RD = state["exp_avg"].index_select(0, rows).lerp_(gradient_RD, 1 - _BETA1)
    exp_avg_sq_RD = state["exp_avg_sq"].index_select(0, rows).mul_(_BETA2)
    exp_avg_sq_RD.addcmul_(gradient_RD, gradient_RD, value=1 - _BETA2)
    state["exp_avg"].index_copy_(0, rows, exp_avg_RD)
    state["exp_avg_sq"].index_copy_(0, rows, exp_avg_sq_RD)
    spread_RD = exp_avg_sq_RD.div_(1 - _BETA2 ** state["steps"]).sqrt_().add_(_EPSILON)
    change_RD = exp_avg_RD.div_(spread_RD).mul_(-rate / (1 - _BETA1 ** state["steps"]))
    table.index_add_(0, rows, change_RD)


def one_cycle(done: float) -> float:
    """Share of the full learning rate after a share `done` of all steps: linear warm-up, cosine decay
    to 0.

    Smith and Topin (2017), "Super-Convergence", with the shape that fast.ai made common.
    """
    if done < _WARM_UP:
        return _START + (1 - _START) * done / _WARM_UP
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
