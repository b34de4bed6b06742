"""The training loop of both networks: step, epoch, evaluate, fit. Knows no tracker and no path.

Legend: N titles, B titles of a batch, L words, C categories.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from titles import distributed
from titles.batching import batches
from titles.data import EncodedTitles
from titles.outcomes import Outcomes, balanced_accuracy
from titles.params import Compute, Training

# Steps between two looks at whether the loss is still a number: a look waits for the GPU.
_STEPS_A_LOOK = 50
# Titles a step without gradients; it changes memory and speed, not results.
_EVALUATION_BATCH = 1024


class DivergedError(ValueError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave. Losses are in nats a title; epoch counts from 1."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_balanced_accuracy: float
    titles_a_second: float


def set_up(compute: Compute, seed: int) -> torch.device:
    """Choose the device and make what follows repeatable.

    Raises:
        ValueError: cuda is asked for and there is none, or not one for each process.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but no GPU is usable here: set it to auto or cpu")
    torch.manual_seed(seed + distributed.rank())  # processes drop out other units each
    torch.set_num_threads(compute.threads)
    # Some CUDA kernels have no repeatable form: there a warning has to do.
    torch.use_deterministic_algorithms(True, warn_only=True)
    use_gpu = compute.device != "cpu" and torch.cuda.is_available()
    return distributed.own_gpu() if use_gpu else torch.device("cpu")


def class_weights(titles: EncodedTitles, categories: int, weighting: str) -> Tensor:
    """(C,) weight of each category in the loss, 1 for the average title."""
    power = {"none": 0.0, "sqrt": -0.5, "balanced": -1.0}[weighting]
    rows_C = np.bincount(titles.labels, minlength=categories).astype(np.float64)
    weight_C = np.maximum(rows_C, 1) ** power
    return torch.from_numpy(weight_C * rows_C.sum() / (weight_C * rows_C).sum()).float()


def optimiser(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Adam; weight decay leaves word vectors alone, which it would pull to zero in every step, seen in
    the batch or not."""
    vectors = [p for name, p in model.named_parameters() if name.startswith("embedding.")]
    others = [p for name, p in model.named_parameters() if not name.startswith("embedding.")]
    groups = [{"params": others, "weight_decay": settings.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)


def fit(
    model: nn.Module,
    train: EncodedTitles,
    validation: EncodedTitles,
    categories: int,
    settings: Training,
    seed: int,
    device: torch.device,
) -> Iterator[EpochRecord]:
    """Train in place and yield a record after each of `settings.epochs` epochs.

    The caller decides what an epoch is worth: it logs, keeps the best weights, and stops by no longer
    asking for more.

    Raises:
        ValueError: there is nothing to train or validate on.
        DivergedError: the loss became NaN or infinite; the weights are then worthless.
    """
    for name, titles in (("train", train), ("validation", validation)):
        if len(titles) == 0:
            raise ValueError(
                f"the {name} split is empty: categories need three rows to be in all splits, "
                "so give prepare.source more rows"
            )
    weight_C = class_weights(train, categories, settings.class_weighting).to(device)
    steps = optimiser(model, settings)
    learner = distributed.shared(model)
    shuffle = np.random.default_rng(seed)
    for epoch in range(1, settings.epochs + 1):
        started = time.perf_counter()
        train_loss = _train_epoch(
            learner, train, settings.batch_size, weight_C, steps, shuffle, device, epoch
        )
        seconds = time.perf_counter() - started
        (outcomes,) = evaluate([model], validation, device)
        measured = [
            train_loss,
            float(outcomes.loss_N.mean()),
            float(outcomes.right_N.mean()),
            balanced_accuracy(outcomes.labels_N, outcomes.right_N),
            len(train) / seconds,
        ]
        yield EpochRecord(epoch, *distributed.of_first(measured))


def _train_epoch(
    model: nn.Module,
    titles: EncodedTitles,
    batch_size: int,
    weight_C: Tensor,
    steps: torch.optim.Optimizer,
    shuffle: np.random.Generator,
    device: torch.device,
    epoch: int,
) -> float:
    """One pass; returns the loss a title, without class weights, so that runs and splits compare."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=device)
    rank = distributed.rank()
    share = rank, distributed.processes()
    with tqdm(
        total=len(titles), desc=f"epoch {epoch}", unit=" titles", leave=False, disable=rank > 0 or None
    ) as bar:
        for number, (rows, batch) in enumerate(batches(titles, batch_size, device, shuffle, share)):
            steps.zero_grad(set_to_none=True)
            losses_B = F.cross_entropy(model(batch.tokens_BL), batch.labels_B, reduction="none")
            weight_B = weight_C[batch.labels_B]
            if len(rows) <= rank:  # no title is left for this process: the one it got must not count
                losses_B, weight_B = losses_B[:0], weight_B[:0]
            # The weights of the whole batch, as gradients are averaged over the processes.
            loss = (losses_B * weight_B).sum() / distributed.mean(weight_B.sum())
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
            total += losses_B.detach().sum()
            if number % _STEPS_A_LOOK == 0:
                _check_finite(distributed.total(total), epoch)
            bar.update(len(rows))
    total = distributed.total(total)
    _check_finite(total, epoch)
    return float(total) / len(titles)


def _check_finite(total: Tensor, epoch: int) -> None:
    if not torch.isfinite(total):
        raise DivergedError(
            f"the loss is no longer a number in epoch {epoch}: lower learning_rate, "
            "or look for broken vectors"
        )


@torch.inference_mode()
def evaluate(
    models: Sequence[nn.Module],
    titles: EncodedTitles,
    device: torch.device,
    batch_size: int = _EVALUATION_BATCH,
) -> list[Outcomes]:
    """What each model says of the titles; of several, also the mean of their probabilities, last.

    Raises:
        DivergedError: a model gives logits that are no numbers.
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
        for _ in range(len(models) + (len(models) > 1))
    ]
    for rows, batch in batches(titles, batch_size, device):
        probabilities = [F.softmax(model(batch.tokens_BL).double(), dim=1) for model in models]
        if len(models) > 1:
            probabilities.append(torch.stack(probabilities).mean(dim=0))
        for outcomes, probability_BC in zip(found, probabilities, strict=True):
            if not torch.isfinite(probability_BC).all():
                raise DivergedError("the network gives values that are no numbers")
            confidence_B, predicted_B = probability_BC.max(dim=1)
            right_B1 = probability_BC.gather(1, batch.labels_B[:, None])
            outcomes.predicted_N[rows] = predicted_B.cpu().numpy()
            outcomes.confidence_N[rows] = confidence_B.cpu().numpy()
            outcomes.rank_N[rows] = (probability_BC > right_B1).sum(dim=1).cpu().numpy()
            outcomes.loss_N[rows] = -right_B1[:, 0].clamp(min=1e-300).log().cpu().numpy()
    return found
