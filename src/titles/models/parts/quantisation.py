"""Weights at a quarter of their size: tables of vectors in int8 with a scale for each row, all other
weights in float16.

Rounding is repeatable: weights that were rounded once give the same codes and scales again.

Legend: R rows of a table, D dimensions, U rows looked up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOST = 127  # of a code; -128 is not used: codes are symmetric


def as_int8(table_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (R, D) in int8 and scales (R,) in bfloat16; a vector is its codes times its scale.

    A scale has 8 significant bits and a code 7, so that float32 holds their product exactly. bfloat16
    has the range of float32, in which the vectors of rare words can be very short.

    Raises:
        ValueError: a value is not finite.
    """
    scale_R = (table_RD.abs().amax(dim=1) / _MOST).bfloat16()
    if not (scale_R.float() * _MOST).isfinite().all():
        raise ValueError("the weights are not finite")
    # Below the smallest normal number a scale has fewer bits: such a vector is zero.
    scale_R = scale_R.where(scale_R >= torch.finfo(scale_R.dtype).tiny, 0)
    divisor_R1 = scale_R.float().where(scale_R > 0, torch.inf)[:, None]
    return (table_RD / divisor_R1).round_().clamp_(-_MOST, _MOST).to(torch.int8), scale_R


def as_half(values: Tensor) -> Tensor:
    """The values in float16; unchanged if one is beyond its range, and if they are not floats.

    Raises:
        ValueError: a value is not finite.
    """
    if not values.is_floating_point():
        return values
    if not values.isfinite().all():
        raise ValueError("the weights are not finite")
    half = values.half()
    return half if half.isfinite().all() else values


class Int8Rows(nn.Module):
    """A table that is looked up in int8.

    Raises:
        ValueError: the codes are not int8 (R, D), or the scales are not bfloat16 (R,), finite and at
            least 0.
    """

    codes_RD: Tensor
    scale_R: Tensor

    def __init__(self, codes_RD: Tensor, scale_R: Tensor) -> None:
        super().__init__()
        if codes_RD.dtype != torch.int8 or codes_RD.ndim != 2:
            raise ValueError(f"a table is {codes_RD.dtype} of {codes_RD.ndim} dimensions, not int8 of 2")
        if scale_R.dtype != torch.bfloat16 or scale_R.shape != codes_RD.shape[:1]:
            raise ValueError(
                f"{len(codes_RD)} rows have scales of {scale_R.dtype} {tuple(scale_R.shape)}"
            )
        scale_R = scale_R.float()
        if not ((scale_R >= 0) & (scale_R * _MOST).isfinite()).all():
            raise ValueError("a scale is negative or not finite")
        self.register_buffer("codes_RD", codes_RD)
        self.register_buffer("scale_R", scale_R)

    def forward(self, row_U: Tensor) -> Tensor:
        """Vectors (U, D), float32."""
        scale_U = self.scale_R.index_select(0, row_U)
        return self.codes_RD.index_select(0, row_U).float().mul_(scale_U[:, None])

    def whole(self) -> Tensor:
        """All vectors (R, D), float32."""
        return self.codes_RD.float().mul_(self.scale_R[:, None])


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round the weights of a network in place to those that are saved.

    Raises:
        ValueError: a weight is not finite.
    """
    for name, values in network.state_dict().items():
        if name.startswith("embedding."):
            if values.is_floating_point() and values.ndim == 2:  # not those of Int8Rows, rounded already
                values.copy_(Int8Rows(*as_int8(values)).whole())
        else:
            values.copy_(as_half(values))
