"""Temperature scaling: calibrates the probabilities of a trained network.

Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.

Legend: N titles, B titles of a batch, C categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.models.parts.embedding import embedding_of
from titles.models.parts.network import output_of
from titles.models.parts.saved import SavedModel

LEAST, MOST = 0.05, 20.0
# The most titles that the temperature is fitted on, and the most of their logits, which are in memory
# together and read some thirty times.
_TITLES = 20_000
_LOGITS = 80_000_000
_BATCH = 1024


def calibrated(model: SavedModel, titles: EncodedTitles, device: torch.device) -> SavedModel:
    """Fit the temperature and apply it to the output layer in place; returns the model with its
    temperature and calibrated loss.

    Both are of the weights that are saved, to which the network is rounded.

    Args:
        titles: the validation split; at least one title.

    Raises:
        ValueError: there are no titles, or a weight is not finite.
    """
    model.round_as_saved()
    temperature, _ = fit_temperature(*_logits(model.network, titles, device))
    divide_logits(model.network, temperature)
    model.round_as_saved()  # the output layer, which has new weights
    loss = calibrated_loss(*_logits(model.network, titles, device))
    return replace(model, temperature=model.temperature * temperature, calibrated_loss=loss)


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """The temperature in LEAST..MOST that minimises the cross-entropy of these logits, and that
    cross-entropy in nats per title.

    Targets are smoothed by the weight of one title, after Platt (1999), "Probabilistic outputs for
    support vector machines": otherwise a small split without errors would give extreme temperatures.
    Four significant digits are kept: the others are rounding errors of sums.

    Raises:
        ValueError: there are no titles.
    """
    loss = _loss(logits_NC, labels_N)
    bounds = (math.log(LEAST), math.log(MOST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(f"{math.exp(found.x):.4g}"), _rounded(found.fun)


def calibrated_loss(logits_NC: Tensor, labels_N: Tensor) -> float:
    """The cross-entropy that `fit_temperature` minimises, of logits that are calibrated."""
    return _rounded(_loss(logits_NC, labels_N)(0.0))


def _rounded(loss: float) -> float:
    return max(0.0, float(f"{loss:.4g}"))


def _loss(logits_NC: Tensor, labels_N: Tensor) -> Callable[[float], float]:
    """Smoothed cross-entropy by the log of the temperature."""
    count = len(labels_N)
    if count == 0:
        raise ValueError("there are no titles to calibrate with")
    doubt = 1 / (count + 1)
    right_N = logits_NC.gather(1, labels_N[:, None])[:, 0].double()
    aim = float(((1 - doubt) * right_N + doubt * logits_NC.mean(dim=1, dtype=torch.float64)).sum())

    def loss(log_temperature: float) -> float:
        sharpness = math.exp(-log_temperature)
        normalisers = math.fsum(
            float(_normalisers(part_BC.double() * sharpness).sum())
            for part_BC in torch.split(logits_NC, _BATCH)
        )
        return (normalisers - sharpness * aim) / count

    return loss


def _normalisers(logits_BC: Tensor) -> Tensor:
    """The logarithm of each row's sum of exponentials, (B,); torch's logsumexp rounds differently on
    other processors."""
    return logits_BC[:, 0] - logits_BC.log_softmax(dim=1)[:, 0]


@torch.no_grad()
def divide_logits(network: nn.Module, temperature: float) -> None:
    """Divide the logits by changing the output layer in place; the ranking of categories stays."""
    for values in output_of(network).parameters():
        values.div_(temperature)


@torch.inference_mode()
def _logits(network: nn.Module, titles: EncodedTitles, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,) of evenly spaced titles of the split, on the CPU, in any order."""
    network.eval()
    categories = output_of(network).out_features
    count = min(len(titles), _TITLES, max(_LOGITS // categories, _BATCH))
    among = np.linspace(0, len(titles) - 1, count).astype(np.int64)
    batcher = Batcher(titles, embedding_of(network).subwords, device)
    logits, labels = [], []
    for rows in ordered(titles, _BATCH, among=among):
        batch = batcher.batch(rows)
        logits.append(network(batch).float().cpu())
        labels.append(batch.labels_B.cpu())
    return torch.cat(logits), torch.cat(labels)
