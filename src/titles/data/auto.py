"""What `auto` stands for in the sections of the networks: numbers that follow from the rows of train."""

from __future__ import annotations

import math

# Titles per step. Fewer make gradients so noisy that the filters of a CNN hardly learn.
SMALLEST_BATCH, LARGEST_BATCH = 96, 1024
# Passes over train: as a rule, and at most.
_EPOCHS, MOST_PASSES = 12, 48
# Titles shown in all passes together, where that asks for more passes and where it asks for fewer. The
# vector of a word that occurs three times moves three times a pass, so that few rows take many passes.
_FEW_SHOWN, _MANY_SHOWN = 144_000, 12_000_000


def batch_size(rows: int, min_steps: int) -> int:
    """Titles per step that leave `min_steps` steps per epoch, between the smallest batch and the
    largest; all titles if there are fewer."""
    return max(1, min(rows, max(SMALLEST_BATCH, min(LARGEST_BATCH, rows // min_steps))))


def epochs(rows: int) -> int:
    """Passes over train: 48 for 3,000 titles or fewer, 12 for 12,000 to a million, 1 for 12 million."""
    shown = max(rows, 1)
    more, fewer = math.ceil(_FEW_SHOWN / shown), math.ceil(_MANY_SHOWN / shown)
    return min(max(_EPOCHS, min(MOST_PASSES, more)), fewer)
