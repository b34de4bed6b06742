"""What `auto` stands for in the sections of the networks, numbers that follow from the rows of train,
and what may be given in its place."""

from __future__ import annotations

import math

# Titles per step. Fewer make gradients so noisy that the filters of a CNN hardly learn.
SMALLEST_BATCH, LARGEST_BATCH = 96, 1024
# Passes over train: as a rule, and at most.
_EPOCHS, MOST_PASSES = 12, 48
# Titles shown in all passes together, where that asks for more passes and where it asks for fewer. The
# vector of a word that occurs three times moves three times a pass, so that few rows take many passes.
_FEW_SHOWN, _MANY_SHOWN = 144_000, 12_000_000
# Titles in train up to which dropout is at its most, and the power of their number by which it falls:
# it keeps networks from memorising labels, and of more titles they can memorise fewer.
_FEW_ROWS, _FALL = 15_000, 0.4
# Heads where labels are often wrong, and the share of them said to be unreliable above which that is so.
_HEADS, _OFTEN = 4, 0.1


def batch_size(rows: int, min_steps: int) -> int:
    """Titles per step that leave `min_steps` steps per epoch, between the smallest batch and the
    largest; all titles if there are fewer."""
    return max(1, min(rows, max(SMALLEST_BATCH, min(LARGEST_BATCH, rows // min_steps))))


def epochs(rows: int) -> int:
    """Passes over train: 48 for 3,000 titles or fewer, 12 for 12,000 to a million, 1 for 12 million."""
    shown = max(rows, 1)
    more, fewer = math.ceil(_FEW_SHOWN / shown), math.ceil(_MANY_SHOWN / shown)
    return min(max(_EPOCHS, min(MOST_PASSES, more)), fewer)


def dropout(rows: int, most: float) -> float:
    """Share of units dropped: `most` for 15,000 titles or fewer, 0.4 of it for 150,000, 0.06 for 15
    million."""
    # Three digits: the last ones of a power differ between libraries.
    return round(most * min(1.0, math.pow(_FEW_ROWS / max(rows, 1), _FALL)), 3)


def heads(unreliable: float) -> int:
    """Heads of a network: 4 where more than a tenth of the labels are said to be unreliable, else 1."""
    return _HEADS if unreliable > _OFTEN else 1


def or_whole(most: int, value: object) -> object:
    """Check that a value is auto or from 1 to `most`, for pydantic."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value != "auto" and not (is_number and 1 <= value <= most):  # type: ignore[operator]
        raise ValueError(f"must be auto or a whole number from 1 to {most}")
    return value


def or_share(value: object) -> object:
    """Check that a value is auto or a share, for pydantic."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (is_number and 0 <= value < 1):  # type: ignore[operator]
        raise ValueError("must be auto or a number from 0 on, less than 1")
    return value
