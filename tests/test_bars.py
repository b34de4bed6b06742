"""Bars show which effects are large, and next to nothing as nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titles.predict.bars import Bar, bars


def test_bars_begin_at_the_axis_and_span_the_width() -> None:
    found = bars([3.0, -1.0, 0.0, 1.0])
    assert found.axis == pytest.approx(0.25)
    assert found.bars == [
        Bar("for", pytest.approx(0.25), pytest.approx(0.75)),
        Bar("against", pytest.approx(0.0), pytest.approx(0.25)),
        Bar("none", pytest.approx(0.25), 0.0),
        Bar("for", pytest.approx(0.25), pytest.approx(0.25)),
    ]


def test_small_effects_stay_small_however_small_the_others_are() -> None:
    assert {bar.side for bar in bars([0.02, -0.1, 0.14]).bars} == {"none"}
    (small, *_) = bars([0.3, 0.0]).bars
    assert small.length == pytest.approx(0.15)
    # Beside a large one, an effect that could be seen elsewhere is nothing.
    assert [bar.side for bar in bars([-0.3, 12.0]).bars] == ["none", "for"]
    assert [bar.side for bar in bars([-0.5, 12.0]).bars] == ["against", "for"]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40))
def test_all_bars_are_inside_and_proportional(effects: list[float]) -> None:
    found = bars(effects)
    for effect, bar in zip(effects, found.bars, strict=True):
        assert -1e-9 <= bar.start <= bar.start + bar.length <= 1 + 1e-9
        if bar.side == "none":
            assert bar.length == 0
        else:
            assert (bar.side == "for") == (effect > 0)
            edge = bar.start if effect > 0 else bar.start + bar.length
            assert edge == pytest.approx(found.axis, abs=1e-9)
    drawn = [(abs(e), bar.length) for e, bar in zip(effects, found.bars, strict=True) if bar.length]
    ratios = [length / size for size, length in drawn]
    assert ratios == pytest.approx([ratios[0]] * len(ratios)) if ratios else True
