"""The loss that a training minimises.

Legend: B titles, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titles.data.encoded import EncodedTitles
from titles.params import Training

# Share of a training after which the generalised cross-entropy applies in full.
_GCE_FULL_FROM = 0.25


def class_weights(titles: EncodedTitles, categories: int, weighting: str) -> Tensor:
    """(C,) weight of each category in the loss; its mean over titles is 1."""
    power = {"none": 0.0, "sqrt": -0.5, "balanced": -1.0}[weighting]
    rows_C = np.bincount(titles.labels, minlength=categories).astype(np.float64)
    weight_C = np.maximum(rows_C, 1) ** power
    return torch.from_numpy(weight_C * rows_C.sum() / (weight_C * rows_C).sum()).float()


@dataclass(frozen=True)
class Objective:
    """Weighted cross-entropy with logit adjustment, label smoothing and down-weighted wrong labels.

    weight_C: weight of each category. shift_C: tau times the log prior, added to the logits in training
        only: Menon et al. (2021), "Long-tail learning via logit adjustment". The network's probabilities
        are then those under equal priors, which balanced accuracy asks for.
    gce_q: titles are weighted by the probability of their label to this power, so that wrong labels,
        which are unlikely, have little effect. Without smoothing the gradient is that of the generalised
        cross-entropy with this q, Zhang and Sabuncu (2018), arXiv:1805.07836, up to a factor per batch.
    smoothing: share of the target spread over all categories, Szegedy et al. (2016), against memorising
        wrong labels. smooth_C: how it is spread, by the priors to the power of tau: equal shares would
        favour rare categories, against the shift.
    equal_C: makes logits of the network those under equal priors, whatever tau and the weights are.
    """

    weight_C: Tensor
    gce_q: float
    shift_C: Tensor | None
    smoothing: float
    smooth_C: Tensor
    equal_C: Tensor

    @staticmethod
    def of(
        titles: EncodedTitles, categories: int, settings: Training, device: torch.device
    ) -> Objective:
        rows_C = np.maximum(np.bincount(titles.labels, minlength=categories), 1)
        log_prior_C = torch.from_numpy(np.log(rows_C / rows_C.sum()))
        shift_C = settings.logit_adjustment * log_prior_C.float()
        weight_C = class_weights(titles, categories, settings.class_weighting)
        log_weight_C = torch.from_numpy(np.log(weight_C.numpy()))
        return Objective(
            weight_C.to(device),
            settings.gce_q,
            shift_C.to(device) if settings.logit_adjustment else None,
            settings.label_smoothing,
            shift_C.softmax(dim=0).to(device),
            (shift_C - log_prior_C.float() - log_weight_C).to(device),
        )

    @property
    def is_plain(self) -> bool:
        """Whether `losses` are plain cross-entropies."""
        return self.smoothing == 0 and self.shift_C is None

    def losses(self, logits_BC: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) loss of each title, without weights, and (B,) log probability of its label, detached."""
        if self.shift_C is not None:
            logits_BC = logits_BC + self.shift_C
        found: tuple[Tensor, Tensor] = _SmoothedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            logits_BC, labels_B, self.smooth_C, self.smoothing
        )
        return found

    def weights(self, labels_B: Tensor, log_right_B: Tensor, progress: float) -> Tensor:
        """(B,) weight of each title.

        Args:
            log_right_B: as from `losses`.
            progress: share of the training that is done. gce_q rises over the first quarter: at first
                every label is unlikely, those of rare categories most.
        """
        weight_B = self.weight_C[labels_B]
        if self.gce_q:
            power = self.gce_q * min(1.0, progress / _GCE_FULL_FROM)
            weight_B = weight_B * (power * log_right_B).exp()
        return weight_B


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Cross-entropy with target (1 - smoothing) at the label plus smoothing * smooth_C, and the log
    probability of the label. The gradient, softmax minus target, is computed in one pass."""

    @staticmethod
    def forward(
        ctx: Any, logits_BC: Tensor, labels_B: Tensor, smooth_C: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_BC = logits_BC.log_softmax(dim=1)
        ctx.save_for_backward(log_BC, labels_B, smooth_C)
        ctx.smoothing = smoothing
        log_right_B = log_BC.gather(1, labels_B[:, None])[:, 0]
        ctx.mark_non_differentiable(log_right_B)
        losses_B = (smoothing - 1) * log_right_B
        if smoothing:
            losses_B -= smoothing * (log_BC * smooth_C.to(log_BC.dtype)).sum(dim=1)
        return losses_B, log_right_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        log_BC, labels_B, smooth_C = ctx.saved_tensors
        gradient_BC = log_BC.exp()
        if ctx.smoothing:
            gradient_BC -= ctx.smoothing * smooth_C
        share_B1 = gradient_BC.new_full((len(labels_B), 1), ctx.smoothing - 1)
        gradient_BC.scatter_add_(1, labels_B[:, None], share_B1)
        return gradient_BC.mul_(gradient_B[:, None]), None, None, None
