"""Temperature scaling: probabilities of a trained network made to mean what they say.

Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.

Legend: N titles, B titles of a batch, C categories.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.models.parts.embedding import embedding_of
from titles.models.parts.saved import SavedModel

LEAST, MOST = 0.05, 20.0
# Titles that the one number is fitted on: their logits are in memory together.
_TITLES = 20_000
_BATCH = 1024


def calibrated(model: SavedModel, titles: EncodedTitles, device: torch.device) -> SavedModel:
    """The model with its temperature, which its network, changed in place, now has in its output layer,
    and with the loss that is left.

    Args:
        titles: the validation split; at least one title.
    """
    logits_NC, labels_N = _logits(model.network, titles, device)
    temperature, loss = fit_temperature(logits_NC, labels_N)
    divide_logits(model.network, temperature)
    return replace(model, temperature=model.temperature * temperature, calibrated_loss=loss)


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """The temperature under which these logits have the least cross-entropy, and that cross-entropy in
    nats a title. The temperature lies in LEAST..MOST.

    One title's worth of doubt is spread over all labels, as Platt (1999) does it, "Probabilistic outputs
    for support vector machines": otherwise a small split that is all right would ask for certainty. Four
    significant digits are kept: more would be rounding errors of sums.

    Raises:
        ValueError: there are no titles.
    """
    count = len(labels_N)
    if count == 0:
        raise ValueError("there are no titles to calibrate with")
    doubt = 1 / (count + 1)
    right_N = logits_NC.gather(1, labels_N[:, None])[:, 0].double()
    aim = float(((1 - doubt) * right_N + doubt * logits_NC.mean(dim=1, dtype=torch.float64)).sum())

    def loss(log_temperature: float) -> float:
        sharpness = math.exp(-log_temperature)
        normalisers = math.fsum(
            float((part_BC.double() * sharpness).logsumexp(dim=1).sum())
            for part_BC in torch.split(logits_NC, _BATCH)
        )
        return (normalisers - sharpness * aim) / count

    bounds = (math.log(LEAST), math.log(MOST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(f"{math.exp(found.x):.4g}"), max(0.0, float(f"{found.fun:.4g}"))


@torch.no_grad()
def divide_logits(network: nn.Module, temperature: float) -> None:
    """Divide, in place, what the network's last layer gives; the ranking of categories stays."""
    for values in network.get_submodule("output").parameters():
        values.div_(temperature)


@torch.inference_mode()
def _logits(network: nn.Module, titles: EncodedTitles, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,) of titles all over the split, on the CPU, in any order."""
    network.eval()
    count = min(len(titles), _TITLES)
    among = np.linspace(0, len(titles) - 1, count).astype(np.int64)
    batcher = Batcher(titles, embedding_of(network).subwords, device)
    logits, labels = [], []
    for rows in ordered(titles, _BATCH, among=among):
        batch = batcher.batch(rows)
        logits.append(network(batch).float().cpu())
        labels.append(batch.labels_B.cpu())
    return torch.cat(logits), torch.cat(labels)
