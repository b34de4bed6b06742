"""Matrix products and sums, the same to the byte on every processor of a class.

Of the libraries in torch, MKL chooses its code by the vendor of the processor, and oneDNN only by the
instruction set, which data/processor.py limits. A row of a product then depends on no other row, on no
size of the batch and on no number of threads.

Legend: B rows of a batch, I inputs, O outputs, M tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from titles.data import processor


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, given: Tensor) -> Tensor:
        return linear(given, self.weight, self.bias)


def linear(given_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """`F.linear` of float32, (B, O); with compute.portable the same on every processor.

    With bfloat16 products, on a GPU and without compute.portable it is `F.linear`.

    Args:
        given_BI: or one row, (I,), which gives (O,).
    """
    kind = given_BI.device.type
    if not (
        processor.portable()
        and kind == "cpu"
        and given_BI.dtype == weight_OI.dtype == torch.float32
        and not torch.is_autocast_enabled(kind)
        and not torch.compiler.is_exporting()  # other programs know no operator of torch's own
    ):
        return F.linear(given_BI, weight_OI, bias_O)
    if given_BI.ndim == 1:
        return linear(given_BI[None], weight_OI, bias_O)[0]
    if not torch.is_grad_enabled():
        return _product(given_BI, weight_OI, bias_O)
    product_BO: Tensor = _Linear.apply(given_BI, weight_OI, bias_O)  # type: ignore[no-untyped-call]
    return product_BO


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(given_BI, weight_OI)
        return _product(given_BI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        given_BI, weight_OI = ctx.saved_tensors
        for_given, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(gradient_BO, weight_OI.t()) if for_given else None,
            _gradient_of_weight(gradient_BO, given_BI) if for_weight else None,
            _column_sums(gradient_BO) if for_bias else None,
        )


def _gradient_of_weight(gradient_BO: Tensor, given_BI: Tensor) -> Tensor:
    """gradient.T @ given, (O, I). The operator copies its left factor: that is the narrower one."""
    if given_BI.shape[1] < gradient_BO.shape[1]:
        return _product(given_BI.t(), gradient_BO.t()).t().contiguous()
    return _product(gradient_BO.t(), given_BI.t())


def _product(left_BI: Tensor, right_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """left @ right.T + bias"""
    operator = _onednn()
    rows, inputs = left_BI.shape
    if operator is None or not (rows and inputs and len(right_OI)):
        return F.linear(left_BI, right_OI, bias_O)
    if not (right_OI.is_contiguous() or right_OI.t().is_contiguous()):
        right_OI = right_OI.contiguous()  # for rows with gaps oneDNN takes hundreds of times as long
    if rows == 1:  # for which oneDNN has other code, which rounds otherwise
        return operator(torch.cat([left_BI, left_BI]), right_OI, bias_O)[:1]
    return operator(left_BI, right_OI, bias_O)


@cache
def _onednn() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """The product by oneDNN, of which torch has only a private operator; None if this torch lacks it.

    MKL does the products then, by code that all processors have: slower, and portable too.
    """
    try:
        operator = torch.ops.mkldnn._linear_pointwise

        def product(left_BI: Tensor, right_OI: Tensor, bias_O: Tensor | None) -> Tensor:
            found: Tensor = operator(left_BI, right_OI, bias_O, "none", [], "")
            return found

        left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
        expected = torch.tensor([[18.0, 25.0], [40.0, 55.0]])  # exact in float32
        if torch.equal(product(left, right, torch.tensor([1.0, 2.0])), expected):
            return product
        reason = "gives wrong products"
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    print(
        f"note: the operator of torch {torch.__version__} for portable matrix products is missing or "
        f"has changed ({reason}): training takes two to four times as long",
        file=sys.stderr,
    )
    return None


def plus_bias(values_BO: Tensor, bias_O: Tensor) -> Tensor:
    """The sum, (B, O), whose gradient does not depend on the number of threads."""
    sum_BO: Tensor = _PlusBias.apply(values_BO, bias_O)  # type: ignore[no-untyped-call]
    return sum_BO


class _PlusBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_BO: Tensor, bias_O: Tensor) -> Tensor:
        return values_BO + bias_O

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BO: Tensor) -> tuple[Tensor, Tensor]:
        return gradient_BO, _column_sums(gradient_BO)


def _column_sums(values_BO: Tensor) -> Tensor:
    """(O,). Of a single long column torch adds parts, one for each thread; of several, each in order."""
    if values_BO.shape[1] == 1:
        return F.pad(values_BO, (0, 1)).sum(dim=0)[:1]
    return values_BO.sum(dim=0)


def weighted_sum(weight_M: Tensor, values: Sequence[Tensor]) -> Tensor:
    """The sum of M tensors of one shape, each times its weight."""
    found = weight_M[0] * values[0]
    for weight, value in zip(weight_M[1:], values[1:], strict=True):
        found = found + weight * value
    return found


def total(values: Tensor) -> Tensor:
    """The sum of all values, without a gradient; torch's depends on the number of threads."""
    values = values.detach()
    return values.sum() if values.is_cuda else torch.from_numpy(np.asarray(values.numpy().sum()))
