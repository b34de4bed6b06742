"""Networks over whole splits, without gradients.

Legend: N titles, B titles of a batch, M networks, C categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from titles.data import processor
from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes
from titles.models.parts import distributed
from titles.models.parts.embedding import embedding_of
from titles.models.parts.products import weighted_sum
from titles.params import Compute

# Titles per step; it changes memory and speed, not results.
_BATCH = 1024

# Takes the rows of a batch and, for each model, the probabilities of categories (B, C).
Seen = Callable[[NDArray[np.int64], list[Tensor]], None]


class DivergedError(ValueError):
    """The loss or the logits are not finite."""


def set_up(compute: Compute, seed: int) -> torch.device:
    """Choose the device and make what follows repeatable.

    Raises:
        ValueError: cuda is asked for and there is none, or fewer GPUs than processes; or results would
            not be portable, see `processor.check`.
    """
    processor.check(compute.portable)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but no GPU is usable here: set it to auto or cpu")
    torch.manual_seed(seed + distributed.rank())  # each process has its own dropout masks
    torch.set_num_threads(compute.threads)
    # Some CUDA kernels have no deterministic form: a warning has to do. use_deterministic_algorithms is
    # the same and imports torch's compiler, which takes two seconds.
    torch.set_deterministic_debug_mode("warn")
    # By default that also fills every fresh tensor, a guard against reading what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    use_gpu = compute.device != "cpu" and torch.cuda.is_available()
    return distributed.own_gpu() if use_gpu else torch.device("cpu")


def machine(compute: Compute) -> str:
    """The class of machines that compute the same bytes as this one, see `processor.machine`."""
    gpu = compute.device != "cpu" and torch.cuda.is_available()
    return processor.machine(compute.portable, torch.cuda.get_device_name() if gpu else "")


def probabilities(weight_M: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """Probabilities of categories (B, C) by the weighted mean of the logits of M networks."""
    return weighted_sum(weight_M, logits).softmax(dim=1)


@torch.inference_mode()
def evaluate(
    models: Sequence[nn.Module],
    titles: EncodedTitles,
    device: torch.device,
    batch_size: int = _BATCH,
    weight_M: Tensor | None = None,
    seen: Seen | None = None,
) -> list[Outcomes]:
    """Outcomes of each model, followed by those of their weighted mean logits if weights are given.

    Args:
        weight_M: weights of the mean; their sum is 1.
        seen: is called with the probabilities of each batch, to the last digit those of a prediction:
            outcomes are computed with more digits.

    Raises:
        DivergedError: a model gives logits that are not finite.
    """
    for model in models:
        model.eval()
    count = len(titles)
    found = [
        Outcomes(
            titles.labels.astype(np.int64),
            np.empty(count, np.int64),
            np.empty(count),
            np.empty(count, np.int64),
            np.empty(count),
        )
        for _ in range(len(models) + (weight_M is not None))
    ]
    batchers = [Batcher(titles, embedding_of(model).subwords, device) for model in models]
    for rows in ordered(titles, batch_size):
        made = [batcher.batch(rows) for batcher in batchers]
        labels_B1 = made[0].labels_B[:, None]
        computed = [model(batch) for model, batch in zip(models, made, strict=True)]
        if seen:
            own = [probabilities(logits_BC.new_ones(1), [logits_BC]) for logits_BC in computed]
            if weight_M is not None:
                own.append(probabilities(weight_M.to(computed[0]), computed))
            seen(rows, own)
        logits = [logits_BC.double() for logits_BC in computed]
        if weight_M is not None:
            logits.append(weighted_sum(weight_M.to(logits[0]), logits))
        for outcomes, logits_BC in zip(found, logits, strict=True):
            probability_BC = logits_BC.softmax(dim=1)
            if not torch.isfinite(probability_BC).all():
                raise DivergedError("the logits of the network are not finite")
            confidence_B, predicted_B = probability_BC.max(dim=1)
            right_B1 = probability_BC.gather(1, labels_B1)
            outcomes.predicted_N[rows] = predicted_B.cpu().numpy()
            outcomes.confidence_N[rows] = confidence_B.cpu().numpy()
            outcomes.rank_N[rows] = (probability_BC > right_B1).sum(dim=1).cpu().numpy()
            # Not torch's logarithm, which rounds differently on other processors.
            outcomes.loss_N[rows] = -np.log(right_B1[:, 0].clamp(min=1e-300).cpu().numpy())
    return found
