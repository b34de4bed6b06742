"""Adam for tables of vectors, of which a step touches a few rows; the learning rate over a training."""

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
# Share of a training in which the one-cycle rate rises, and the rate it starts from.
_WARM_UP, _START = 0.1, 0.04


class LazyAdam(Optimizer):
    """Adam (Kingma and Ba, 2015) that leaves rows without a gradient, and their momentum, as they are.

    Plain Adam reads and writes the whole table three times a step, and moves rows by old momentum that
    the batch does not hold. Gradients may be dense, or sparse if they name each row once, as those of
    `layers.rows` do: both do the same.
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
        # Not coalesce, which sorts: each row is named once already.
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
    """In operators of torch, for a GPU."""
    (moving,) = torch.where(gradient_RD.abs().amax(dim=1) > 0)
    if len(moving) < len(rows):
        rows, gradient_RD = rows.index_select(0, moving), gradient_RD.index_select(0, moving)
    # index_select reads rows several times as fast as brackets do.
    exp_avg_RD = state["exp_avg"].index_select(0, rows).lerp_(gradient_RD, 1 - _BETA1)
    exp_avg_sq_RD = state["exp_avg_sq"].index_select(0, rows).mul_(_BETA2)
    exp_avg_sq_RD.addcmul_(gradient_RD, gradient_RD, value=1 - _BETA2)
    state["exp_avg"].index_copy_(0, rows, exp_avg_RD)
    state["exp_avg_sq"].index_copy_(0, rows, exp_avg_sq_RD)
    spread_RD = exp_avg_sq_RD.div_(1 - _BETA2 ** state["steps"]).sqrt_().add_(_EPSILON)
    change_RD = exp_avg_RD.div_(spread_RD).mul_(-rate / (1 - _BETA1 ** state["steps"]))
    table.index_add_(0, rows, change_RD)


def one_cycle(done: float) -> float:
    """Share of the full rate after a share `done` of all steps: a line up, a cosine down to nothing.

    Smith and Topin (2017), "Super-Convergence", with the shape that fast.ai made common.
    """
    if done < _WARM_UP:
        return _START + (1 - _START) * done / _WARM_UP
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
