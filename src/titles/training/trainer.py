"""The training loop of both networks: step, epoch, evaluate. Knows no tracker and no path.

Legend: N titles, B titles of a batch, L words, C categories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from tqdm import tqdm

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes, balanced_accuracy
from titles.models.parts import distributed
from titles.models.parts.embedding import embedding_of
from titles.params import Compute, Training
from titles.training.optimisers import LazyAdam, one_cycle

# Steps between two looks at whether the loss is still a number: a look waits for the GPU.
_STEPS_A_LOOK = 50
# Share of a training after which gce_q is there in full.
_GCE_FULL_FROM = 0.25
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
    titles_per_second: float


def set_up(compute: Compute, seed: int) -> torch.device:
    """Choose the device and make what follows repeatable.

    Raises:
        ValueError: cuda is asked for and there is none, or not one for each process.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but no GPU is usable here: set it to auto or cpu")
    torch.manual_seed(seed + distributed.rank())  # processes drop out other units each
    torch.set_num_threads(compute.threads)
    # Some CUDA kernels have no repeatable form: there a warning has to do. use_deterministic_algorithms
    # does the same and imports torch's compiler, which takes two seconds.
    torch.set_deterministic_debug_mode("warn")
    # By default that also fills every fresh tensor, a guard against reading what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    use_gpu = compute.device != "cpu" and torch.cuda.is_available()
    return distributed.own_gpu() if use_gpu else torch.device("cpu")


def class_weights(titles: EncodedTitles, categories: int, weighting: str) -> Tensor:
    """(C,) weight of each category in the loss, 1 for the average title."""
    power = {"none": 0.0, "sqrt": -0.5, "balanced": -1.0}[weighting]
    rows_C = np.bincount(titles.labels, minlength=categories).astype(np.float64)
    weight_C = np.maximum(rows_C, 1) ** power
    return torch.from_numpy(weight_C * rows_C.sum() / (weight_C * rows_C).sum()).float()


def optimisers(model: nn.Module, settings: Training) -> list[torch.optim.Optimizer]:
    """Adam for the layers; Adam by rows, and without weight decay, for tables of vectors: it would pull
    those of words to zero that the batch does not hold."""
    tables = [p for name, p in model.named_parameters() if name.startswith("embedding.")]
    layers = [p for name, p in model.named_parameters() if not name.startswith("embedding.")]
    adam = torch.optim.Adam(
        layers, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    return [adam, LazyAdam(tables, lr=settings.learning_rate)] if tables else [adam]


@dataclass(frozen=True)
class Objective:
    """What a training minimises: cross-entropy, weighted, with softer targets and shifted logits.

    weight_C: weight of a category's titles. shift_C: what is added to the logits in training alone,
        log prior times tau: Menon et al. (2021), "Long-tail learning via logit adjustment". The
        probabilities that it gives are then those of a title whose category could as well be any, which
        is what balanced accuracy asks for.
    gce_q: a title counts by the probability that its label gets, to this power: labels that the
        network finds absurd, as wrong ones are, teach it little. Without smoothing the gradient is that
        of the generalised cross-entropy with this q, Zhang and Sabuncu (2018), arXiv:1805.07836, up to
        a factor for the whole batch.
    smoothing: share of a target that all categories divide among them, Szegedy et al. (2016); it
        keeps wrong labels from being learnt by heart. smooth_C: how they divide it, as their priors to
        the power of tau: equal parts would pull towards rare categories, against the shift.
    """

    weight_C: Tensor
    gce_q: float
    shift_C: Tensor | None
    smoothing: float
    smooth_C: Tensor

    @staticmethod
    def of(
        titles: EncodedTitles, categories: int, settings: Training, device: torch.device
    ) -> Objective:
        rows_C = np.maximum(np.bincount(titles.labels, minlength=categories), 1)
        shift_C = settings.logit_adjustment * torch.from_numpy(np.log(rows_C / rows_C.sum())).float()
        return Objective(
            class_weights(titles, categories, settings.class_weighting).to(device),
            settings.gce_q,
            shift_C.to(device) if settings.logit_adjustment else None,
            settings.label_smoothing,
            shift_C.softmax(dim=0).to(device),
        )

    @property
    def is_plain(self) -> bool:
        """Whether `losses` are mere cross-entropies."""
        return self.smoothing == 0 and self.shift_C is None

    def losses(self, logits_BC: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) loss a title, without weights, and (B,) log of the probability that its label gets, which
        passes no gradient on."""
        if self.shift_C is not None:
            logits_BC = logits_BC + self.shift_C
        found: tuple[Tensor, Tensor] = _SmoothedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            logits_BC, labels_B, self.smooth_C, self.smoothing
        )
        return found

    def weights(self, labels_B: Tensor, log_right_B: Tensor, progress: float) -> Tensor:
        """(B,) how much each title counts.

        Args:
            log_right_B: as from `losses`.
            progress: share of the training that is done. Robustness is let in as it goes on: at first
                the network knows no label, and what it finds absurd is what is rare.
        """
        weight_B = self.weight_C[labels_B]
        if self.gce_q:
            power = self.gce_q * min(1.0, progress / _GCE_FULL_FROM)
            weight_B = weight_B * (power * log_right_B).exp()
        return weight_B


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Cross-entropy with the target (1 - smoothing) at the label plus smoothing * smooth_C, and the log
    of what the label gets. Its gradient, softmax less target, is written in one go."""

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
            losses_B -= smoothing * (log_BC @ smooth_C.to(log_BC.dtype))
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


def fit(
    model: nn.Module,
    train: EncodedTitles,
    validation: EncodedTitles,
    categories: int,
    settings: Training,
    seed: int,
    device: torch.device,
) -> Iterator[EpochRecord]:
    """Train in place, from the first epoch: see `Trainer`."""
    return Trainer(model, train, validation, categories, settings, seed, device).epochs()


class Trainer:
    """A training, which between two epochs can be saved and restored.

    Raises:
        ValueError: there is nothing to train or validate on.
    """

    def __init__(
        self,
        model: nn.Module,
        train: EncodedTitles,
        validation: EncodedTitles,
        categories: int,
        settings: Training,
        seed: int,
        device: torch.device,
    ) -> None:
        for name, titles in (("train", train), ("validation", validation)):
            if len(titles) == 0:
                raise ValueError(
                    f"the {name} split is empty: categories need three rows to be in all splits, "
                    "so give prepare.source more rows"
                )
        embedding = embedding_of(model)
        embedding.sparse_gradients = distributed.world_size() == 1  # NCCL cannot average sparse ones
        self._network = model
        self._settings = settings
        self._titles, self._validation = train, validation
        # A small split is cut into smaller batches: some hundred steps are needed to learn anything.
        self._batch_size = max(1, min(settings.batch_size, len(train) // settings.min_steps))
        self._steps_planned = settings.epochs * math.ceil(len(train) / self._batch_size)
        self._steps_done = 0
        self._epochs_done = 0
        self._objective = Objective.of(train, categories, settings, device)
        self._optimisers = optimisers(model, settings)
        self._batcher = Batcher(train, embedding.subwords, device)
        self._model = distributed.wrap(model)
        self._shuffle = np.random.default_rng(seed)
        self._device = device

    def epochs(self) -> Iterator[EpochRecord]:
        """Train in place and yield a record after each epoch, until `settings.epochs` are done.

        The caller decides what an epoch is worth: it logs, keeps the best weights, and stops by no
        longer asking for more.

        Raises:
            DivergedError: the loss became NaN or infinite; the weights are then worthless.
        """
        while self._epochs_done < self._settings.epochs:
            number = self._epochs_done + 1
            started = time.perf_counter()
            train_loss = self._epoch(number)
            seconds = time.perf_counter() - started
            (outcomes,) = evaluate([self._network], self._validation, self._device)
            measured = [
                train_loss,
                float(outcomes.loss_N.mean()),
                float(outcomes.right_N.mean()),
                balanced_accuracy(outcomes.labels_N, outcomes.right_N),
                len(self._titles) / seconds,
            ]
            self._epochs_done = number
            yield EpochRecord(number, *distributed.broadcast(measured))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epochs of one process depend on: tensors, not copied, and numbers that JSON
        holds exactly."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        steps: dict[str, int] = {}
        for number, optimiser in enumerate(self._optimisers):
            for parameter, values in optimiser.state_dict()["state"].items():
                for name, value in values.items():
                    key = f"optimiser.{number}.{parameter}.{name}"
                    if isinstance(value, Tensor):
                        tensors[key] = value
                    else:
                        steps[key] = value
        tensors["random.cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":  # needs a GPU
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        return tensors, {
            "epochs_done": self._epochs_done,
            "steps_done": self._steps_done,
            "shuffle": self._shuffle.bit_generator.state,
            "optimisers": steps,
        }

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on where `state` of a training with the same arguments stood."""
        self._network.load_state_dict(
            {name: tensor for key, tensor in tensors.items() if (name := _below(key, "network."))}
        )
        for number, optimiser in enumerate(self._optimisers):
            states: dict[int, dict[str, Any]] = {}
            for key, value in {**tensors, **numbers["optimisers"]}.items():
                if place := _below(key, f"optimiser.{number}."):
                    parameter, name = place.split(".")
                    states.setdefault(int(parameter), {})[name] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": states})
        torch.set_rng_state(tensors["random.cpu"])
        if self._device.type == "cuda":  # needs a GPU
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)
        self._shuffle.bit_generator.state = numbers["shuffle"]
        self._epochs_done = numbers["epochs_done"]
        self._steps_done = numbers["steps_done"]

    def _epoch(self, number: int) -> float:
        """One pass; returns the cross-entropy a title, without weights, shift and smoothing, so that
        runs and splits compare."""
        self._model.train()
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        rank, processes = distributed.rank(), distributed.world_size()
        with tqdm(
            total=len(self._titles),
            desc=f"epoch {number}",
            unit=" titles",
            leave=False,
            disable=rank > 0 or None,
        ) as bar:
            for step, rows in enumerate(ordered(self._titles, self._batch_size, self._shuffle)):
                # Each process takes every n-th title of the batch.
                own = rows[rank::processes]
                total += self._step(own if len(own) else rows[:1], counts=len(own) > 0)
                if step % _STEPS_A_LOOK == 0:
                    _check_finite(distributed.total(total), number)
                bar.update(len(rows))
        total = distributed.total(total)
        _check_finite(total, number)
        return float(total) / len(self._titles)

    def _step(self, rows: NDArray[np.int64], counts: bool) -> Tensor:
        """Learn from a batch; returns the sum of its cross-entropies.

        Args:
            counts: False where no title was left for this process: the one it got must not count.
        """
        self._set_rates()
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        batch = self._batcher.batch(rows)
        if self._settings.word_dropout:
            batch = batch._replace(index_BL=_some_words(batch.index_BL, self._settings.word_dropout))
        # Products alone get less precise: weights, their gradients and sums stay float32.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"
        ):
            logits_BC = self._model(batch).float()
        losses_B, log_right_B = self._objective.losses(logits_BC, batch.labels_B)
        progress = self._steps_done / self._steps_planned
        weight_B = self._objective.weights(batch.labels_B, log_right_B, progress)
        if not counts:
            losses_B, weight_B = losses_B[:0], weight_B[:0]
        # The weights of the whole batch, as gradients are averaged over the processes.
        loss = (losses_B * weight_B).sum() / distributed.mean(weight_B.sum())
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self._optimisers:
            optimiser.step()
        self._steps_done += 1
        if self._objective.is_plain or not counts:
            return losses_B.detach().sum()
        return F.cross_entropy(logits_BC.detach(), batch.labels_B, reduction="sum")

    def _set_rates(self) -> None:
        if self._settings.schedule == "one_cycle":
            rate = self._settings.learning_rate * one_cycle(self._steps_done / self._steps_planned)
            for optimiser in self._optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate


def _below(key: str, prefix: str) -> str:
    return key.removeprefix(prefix) if key.startswith(prefix) else ""


def _some_words(index_BL: Tensor, dropped: float) -> Tensor:
    """Makes each word padding with the chance `dropped`; a title that would lose all keeps all."""
    stays_BL = torch.rand(index_BL.shape, device=index_BL.device) >= dropped
    stays_BL |= ~(stays_BL & (index_BL > 0)).any(dim=1, keepdim=True)
    return index_BL * stays_BL


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
    weight_M: Tensor | None = None,
) -> list[Outcomes]:
    """What each model says of the titles, and last what their mean logits say, if weights are given.

    Args:
        weight_M: how much each counts in the mean, 1 together.

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
        for _ in range(len(models) + (weight_M is not None))
    ]
    batchers = [Batcher(titles, embedding_of(model).subwords, device) for model in models]
    for rows in ordered(titles, batch_size):
        made = [batcher.batch(rows) for batcher in batchers]
        labels_B1 = made[0].labels_B[:, None]
        logits = [model(batch).double() for model, batch in zip(models, made, strict=True)]
        if weight_M is not None:
            logits.append(torch.tensordot(weight_M.to(logits[0]), torch.stack(logits), dims=1))
        for outcomes, logits_BC in zip(found, logits, strict=True):
            probability_BC = logits_BC.softmax(dim=1)
            if not torch.isfinite(probability_BC).all():
                raise DivergedError("the network gives values that are no numbers")
            confidence_B, predicted_B = probability_BC.max(dim=1)
            right_B1 = probability_BC.gather(1, labels_B1)
            outcomes.predicted_N[rows] = predicted_B.cpu().numpy()
            outcomes.confidence_N[rows] = confidence_B.cpu().numpy()
            outcomes.rank_N[rows] = (probability_BC > right_B1).sum(dim=1).cpu().numpy()
            outcomes.loss_N[rows] = -right_B1[:, 0].clamp(min=1e-300).log().cpu().numpy()
    return found
