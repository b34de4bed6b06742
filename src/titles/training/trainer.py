"""The training loop of every network: step, epoch, checkpoint state. It knows no tracker and no path.

Legend: N titles, B titles of a batch, L tokens, C categories.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import balanced_accuracy
from titles.models.parts import distributed
from titles.models.parts.embedding import embedding_of
from titles.models.parts.inference import DivergedError, evaluate
from titles.models.parts.products import total
from titles.params import Training
from titles.training.objective import Objective
from titles.training.optimisers import LazyAdam, one_cycle

# Steps between checks that the loss is finite: a check waits for the GPU.
_STEPS_PER_CHECK = 50


@dataclass(frozen=True)
class EpochRecord:
    """Measures of one epoch, which count from 1. Losses are in nats per title, the learning rate is that
    of the last step, and seconds include the validation."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_balanced_accuracy: float
    learning_rate: float
    titles_per_second: float
    seconds: float


def optimisers(model: nn.Module, settings: Training) -> list[torch.optim.Optimizer]:
    """Adam for the layers; lazy Adam, without weight decay, for the embeddings: decay would shrink the
    vectors of words that the batch does not hold."""
    tables = [p for name, p in model.named_parameters() if name.startswith("embedding.")]
    layers = [p for name, p in model.named_parameters() if not name.startswith("embedding.")]
    adam = torch.optim.Adam(
        layers, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    return [adam, LazyAdam(tables, lr=settings.learning_rate)] if tables else [adam]


class Trainer:
    """Trains a network in place. Its state can be saved and restored between two epochs.

    Raises:
        ValueError: the train or the validation split is empty.
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
        self._batch_size = settings.titles_per_step(len(train))
        self._steps_planned = settings.epochs * math.ceil(len(train) / self._batch_size)
        self._steps_done = 0
        self._epochs_done = 0
        self._objective = Objective.of(train, categories, settings, device)
        self._optimisers = optimisers(model, settings)
        self._batcher = Batcher(train, embedding.subwords, device)
        self._model = distributed.wrap(model)
        self._shuffle = np.random.default_rng(seed)
        self._device = device

    @property
    def progress(self) -> float:
        """Share of the planned steps that is done."""
        return self._steps_done / self._steps_planned

    def epochs(self) -> Iterator[EpochRecord]:
        """Yield a record after each epoch, until `settings.epochs` are done.

        The caller logs, keeps the best weights, and stops early by not asking for more.

        Raises:
            DivergedError: the loss is not finite; the weights are then worthless.
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
                self._optimisers[0].param_groups[0]["lr"],
                len(self._titles) / seconds,
                time.perf_counter() - started,
            ]
            self._epochs_done = number
            yield EpochRecord(number, *distributed.broadcast(measured))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epochs of a single process depend on: tensors, not copied, and numbers that
        JSON holds exactly."""
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
        """Resume from the `state` of a training with the same arguments."""
        self._network.load_state_dict(
            {name: tensor for key, tensor in tensors.items() if (name := _below(key, "network."))}
        )
        for number, optimiser in enumerate(self._optimisers):
            states: dict[int, dict[str, Any]] = {}
            for key, value in {**tensors, **numbers["optimisers"]}.items():
                if rest := _below(key, f"optimiser.{number}."):
                    parameter, name = rest.split(".")
                    states.setdefault(int(parameter), {})[name] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": states})
        torch.set_rng_state(tensors["random.cpu"])
        if self._device.type == "cuda":  # needs a GPU
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)
        self._shuffle.bit_generator.state = numbers["shuffle"]
        self._epochs_done = numbers["epochs_done"]
        self._steps_done = numbers["steps_done"]

    def _epoch(self, number: int) -> float:
        """One pass over train; returns the mean cross-entropy without weights, logit adjustment and
        smoothing, so that runs and splits compare."""
        self._model.train()
        losses = torch.zeros((), dtype=torch.float64, device=self._device)
        rank, world_size = distributed.rank(), distributed.world_size()
        with tqdm(
            total=len(self._titles),
            desc=f"epoch {number}",
            unit=" titles",
            leave=False,
            disable=rank > 0 or None,
        ) as bar:
            for step, rows in enumerate(ordered(self._titles, self._batch_size, self._shuffle)):
                own = rows[rank::world_size]
                losses += self._step(own if len(own) else rows[:1], counts=len(own) > 0)
                if step % _STEPS_PER_CHECK == 0:
                    _check_finite(distributed.total(losses), number)
                bar.update(len(rows))
        losses = distributed.total(losses)
        _check_finite(losses, number)
        return float(losses) / len(self._titles)

    def _step(self, rows: NDArray[np.int64], counts: bool) -> Tensor:
        """One step; returns the sum of the batch's cross-entropies.

        Args:
            counts: False if no title was left for this process: the one it got has no weight.
        """
        self._set_rates()
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        batch = self._batcher.batch(rows)
        if self._settings.word_dropout:
            batch = batch._replace(index_BL=word_dropout(batch.index_BL, self._settings.word_dropout))
        # Only matrix multiplications are less precise: weights, gradients and sums stay float32.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"
        ):
            logits_BC = self._model(batch).float()
        losses_B, log_right_B = self._objective.losses(logits_BC, batch.labels_B)
        weight_B = self._objective.weights(batch.labels_B, log_right_B, self.progress)
        if not counts:
            losses_B, weight_B = losses_B[:0], weight_B[:0]
        # By the weights of the whole batch, since gradients are averaged over the processes.
        loss = (losses_B * weight_B).sum() / distributed.mean(total(weight_B))
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self._optimisers:
            optimiser.step()
        self._steps_done += 1
        if self._objective.is_plain or not counts:
            return total(losses_B)
        return F.cross_entropy(logits_BC.detach(), batch.labels_B, reduction="sum")

    def _set_rates(self) -> None:
        if self._settings.schedule == "one_cycle":
            rate = self._settings.learning_rate * one_cycle(self.progress)
            for optimiser in self._optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate


def _below(key: str, prefix: str) -> str:
    return key.removeprefix(prefix) if key.startswith(prefix) else ""


def word_dropout(index_BL: Tensor, dropped: float) -> Tensor:
    """Replace tokens by padding with probability `dropped`; a title that would lose all keeps one."""
    chance_BL = torch.rand(index_BL.shape, device=index_BL.device) * (index_BL > 0)
    kept_BL = (chance_BL >= dropped) | (chance_BL == chance_BL.amax(dim=1, keepdim=True))
    return index_BL * kept_BL


def _check_finite(total: Tensor, epoch: int) -> None:
    if not torch.isfinite(total):
        raise DivergedError(
            f"the loss is not finite in epoch {epoch}: lower learning_rate, or check the word vectors"
        )
