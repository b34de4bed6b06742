"""Measures as files of metrics/ have them, checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_EXCERPT = 60


def measures(values: object, where: str, needed: Sequence[str] = ()) -> dict[str, float]:
    """Measures by name, checked; `where` opens the error message.

    Raises:
        ValueError: they are not finite numbers under names, or one that is needed is missing.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is damaged: expected numbers by name, found {excerpt(values)}")
    for name, value in values.items():
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"{where} is damaged: {name} is {excerpt(value)}, not a number")
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{where} is damaged: it has no {', '.join(missing)}")
    return values


def excerpt(value: object) -> str:
    """The start of a value, for a message."""
    return repr(value)[:_EXCERPT]
