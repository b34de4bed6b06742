"""Encoded titles to the batches that networks read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from titles.contract import Batch
from titles.data import EncodedTitles

# Shuffled titles are sorted by length within a pool of so many batches: next to no padding is left,
# and which titles meet in a batch is still random.
_POOL_BATCHES = 64


def batches(
    titles: EncodedTitles,
    batch_size: int,
    device: torch.device,
    shuffle: np.random.Generator | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield every title once, as (row numbers, batch).

    Args:
        shuffle: source of the order; None goes by length, which pads least.
        share: (k, n) yields of each batch only titles k, k + n and so on, or title 0 if there is no k;
            row numbers stay those of the whole batch.
    """
    total = len(titles)
    first, step = share
    if shuffle is None:
        order = np.argsort(titles.lengths, kind="stable")
        starts = np.arange(0, total, batch_size)
    else:
        order = shuffle.permutation(total)
        lengths = titles.lengths
        for pool in range(0, total, batch_size * _POOL_BATCHES):
            rows = order[pool : pool + batch_size * _POOL_BATCHES]
            order[pool : pool + batch_size * _POOL_BATCHES] = rows[
                np.argsort(lengths[rows], kind="stable")
            ]
        starts = shuffle.permutation(np.arange(0, total, batch_size))
    for start in starts:
        rows = order[start : start + batch_size]
        own = rows[first::step] if first < len(rows) else rows[:1]
        tokens_BL = torch.from_numpy(titles.padded(own)).to(device, torch.int64)
        labels_B = torch.from_numpy(titles.labels[own]).to(device, torch.int64)
        yield rows, Batch(tokens_BL, labels_B)
