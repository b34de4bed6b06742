"""Titles whose label looks wrong to the network that is being trained.

After Nguyen et al. (2020), "SELF: Learning to Filter Noisy Labels with Self-Ensembling".

Legend: N titles, B titles of a batch, C categories.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.models.parts import distributed
from titles.models.parts.embedding import embedding_of
from titles.models.parts.inference import DivergedError

_BATCH = 1024  # titles; it changes memory and speed, not results


def kept(
    network: nn.Module, titles: EncodedTitles, device: torch.device, equal_C: Tensor, share: float
) -> Tensor:
    """(N,) 0 for titles whose label is less than `share` times as likely as the likeliest category, else
    1.

    A category of which more than half would go is one that the network has not learned yet, and it keeps
    all.

    Args:
        equal_C: makes logits those under equal priors: by others, many right labels of rare categories
            look wrong.

    Raises:
        DivergedError: the logits are not finite.
    """
    labels_N = titles.labels
    doubtful_N = margins(network, titles, device, equal_C) < math.log(share)
    rows_C = np.bincount(labels_N)
    unlearned_C = 2 * np.bincount(labels_N[doubtful_N], minlength=len(rows_C)) > rows_C
    kept_N = torch.from_numpy(~doubtful_N | unlearned_C[labels_N]).to(torch.uint8)
    distributed.same([kept_N])
    return kept_N


@torch.inference_mode()
def margins(
    network: nn.Module, titles: EncodedTitles, device: torch.device, equal_C: Tensor
) -> NDArray[np.float32]:
    """(N,) logarithm of how likely the label of each title is beside the likeliest category: at most 0.

    A difference of two logits, without exponentials: it is the same on all processors.
    """
    network.eval()
    batcher = Batcher(titles, embedding_of(network).subwords, device)
    found_N = np.empty(len(titles), np.float32)
    quiet = distributed.rank() > 0 or None
    with tqdm(total=len(titles), desc="labels", unit=" titles", leave=False, disable=quiet) as bar:
        for rows in ordered(titles, _BATCH):
            batch = batcher.batch(rows)
            logits_BC = network(batch).float() + equal_C
            margin_B = logits_BC.gather(1, batch.labels_B[:, None])[:, 0] - logits_BC.amax(dim=1)
            found_N[rows] = margin_B.cpu().numpy()
            bar.update(len(rows))
    if not np.isfinite(found_N).all():
        raise DivergedError("the logits of the network are not finite")
    return found_N
