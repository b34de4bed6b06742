"""Effects of words as bars on an axis: to the right for a category, to the left against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

# Nats. Small effects are drawn on this scale, so that next to nothing looks like next to nothing.
_LEAST_SCALE = 2.0
# Smaller effects have no bar: in nats, and as a fraction of the scale.
_LEAST = 0.15
_LEAST_SHARE = 0.03

Side = Literal["for", "against", "none"]


class Bar(NamedTuple):
    """A bar by its start and length, as fractions of the width of all; without a length for `none`."""

    side: Side
    start: float
    length: float


class Bars(NamedTuple):
    """The bars of one category. axis: where they begin, as a fraction of the width."""

    axis: float
    bars: list[Bar]


def bars(effects: Sequence[float]) -> Bars:
    """Bars of the effects, in nats, of the words of a title on one category; together they span the
    width, unless all effects are small."""
    lowest, highest = min(0.0, *effects), max(0.0, *effects)
    scale = max(highest - lowest, _LEAST_SCALE)
    least = max(_LEAST, _LEAST_SHARE * scale)
    shown = [effect / scale if abs(effect) >= least else 0.0 for effect in effects]
    axis = -min(0.0, *shown)
    drawn = []
    for part in shown:
        side: Side = "for" if part > 0 else "against" if part < 0 else "none"
        drawn.append(Bar(side, axis + min(part, 0.0), abs(part)))
    return Bars(axis, drawn)
