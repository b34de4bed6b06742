"""Tables in int8 and weights in float16: what rounding keeps, and that it is repeatable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from titles.models.parts.quantisation import Int8Rows, as_half, as_int8

few = settings(max_examples=100, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
exponents = st.integers(-32, 37)


def table(seed: int, exponent: int) -> torch.Tensor:
    """Rows of lengths that differ by four orders of magnitude."""
    random = torch.Generator().manual_seed(seed)
    scale_R = torch.logspace(-2, 0, 9)[:, None] * 10.0**exponent
    return torch.randn(9, 7, generator=random) * scale_R


@few
@given(seeds, exponents)
def test_a_value_moves_by_at_most_half_a_step(seed: int, exponent: int) -> None:
    given_RD = table(seed, exponent)
    codes_RD, scale_R = as_int8(given_RD)
    assert (codes_RD.dtype, scale_R.dtype) == (torch.int8, torch.bfloat16)
    assert codes_RD.abs().amax(dim=1).tolist() == [127] * 9
    moved_RD = (Int8Rows(codes_RD, scale_R).whole().double() - given_RD.double()).abs()
    assert (moved_RD <= scale_R.double()[:, None] * 0.5001).all()


@few
@given(seeds, exponents)
def test_rounding_twice_changes_nothing(seed: int, exponent: int) -> None:
    codes_RD, scale_R = as_int8(table(seed, exponent))
    whole_RD = Int8Rows(codes_RD, scale_R).whole()
    # A product of a code and its scale is exact.
    assert torch.equal(whole_RD.double(), codes_RD.double() * scale_R.double()[:, None])
    again_RD, scale_again_R = as_int8(whole_RD)
    assert torch.equal(again_RD, codes_RD)
    assert torch.equal(scale_again_R, scale_R)


def test_rows_are_looked_up_as_in_the_whole_table() -> None:
    rows = Int8Rows(*as_int8(table(3, 0)))
    row_U = torch.tensor([4, 0, 8, 4])
    assert torch.equal(rows(row_U), rows.whole()[row_U])
    assert rows(row_U[:0]).shape == (0, 7)
    assert rows(row_U).dtype == torch.float32


@pytest.mark.parametrize("longest", [0.0, 1e-45, 1e-38, 1e-37])
def test_rows_that_are_too_short_for_a_scale_are_zero(longest: float) -> None:
    codes_RD, scale_R = as_int8(torch.full((2, 3), longest))
    assert not codes_RD.any()
    assert not scale_R.any()
    assert not Int8Rows(codes_RD, scale_R).whole().any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).max])
def test_rows_that_are_not_finite_or_would_not_be_are_refused(value: float) -> None:
    broken_RD = torch.ones(3, 2)
    broken_RD[1, 0] = value
    if value == torch.finfo(torch.float32).max:
        codes_RD, scale_R = as_int8(broken_RD)
        assert Int8Rows(codes_RD, scale_R).whole().isfinite().all()
        return
    with pytest.raises(ValueError, match="not finite"):
        as_int8(broken_RD)


def test_halves_are_repeatable_and_keep_what_they_cannot_hold() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(1))
    half = as_half(values)
    assert half.dtype == torch.float16
    assert torch.equal(as_half(half.float()), half)
    large = torch.tensor([1.0, 65520.0])  # 65504 is the largest in float16
    assert as_half(large) is large
    counts = torch.tensor([3, 4])
    assert as_half(counts) is counts
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="not finite"):
            as_half(torch.tensor([0.0, value]))
