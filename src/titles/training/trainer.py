"""The training loop of every network: step, epoch, checkpoint state. It knows no tracker and no path.

Legend: N titles, B titles of a batch, L tokens, C categories, M titles of a batch once for each head.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
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
from titles.models.parts.network import output_of
from titles.models.parts.products import total
from titles.params import Training
from titles.training.objective import Objective
from titles.training.optimisers import LazyAdam, one_cycle
from titles.training.set_aside import kept

# Steps between checks that the loss is finite, which wait for the GPU, and between two looks whether a
# checkpoint is due.
_STEPS_PER_CHECK = 50
_TINY = torch.finfo(torch.float32).tiny
# Labels that look wrong are sought at the end of each of so many parts of a training but the last.
_PARTS = 4


@dataclass(frozen=True)
class EpochRecord:
    """Measures of one epoch, which count from 1. Losses are in nats per title, the learning rate is that
    of the last step. Titles per second are of the steps that this process made; at their pace, an epoch
    with its validation takes the seconds. Titles that were set aside had no part in the loss, except in
    the one that is recorded."""

    epoch: int
    set_aside: int
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
    """Trains a network in place. Its state can be saved and restored between two steps.

    Raises:
        ValueError: the train or the validation split is empty, or there are more heads than units before
            the last layer.
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
        distributed.same(model.state_dict().values())
        output = output_of(model)
        self._heads = settings.heads_of(output.in_features, train.unreliable)
        output.divide(self._heads)
        self._network = model
        self._settings = settings
        self._titles, self._validation = train, validation
        self._batch_size = settings.titles_per_step(len(train))
        self.steps_per_epoch = math.ceil(len(train) / self._batch_size)
        self.epochs_planned = settings.passes(len(train))
        self._steps_planned = self.epochs_planned * self.steps_per_epoch
        self._steps_done = 0
        self._epochs_done = 0
        self._objective = Objective.of(train, categories, settings, device)
        self._optimisers = optimisers(model, settings)
        self._batcher = Batcher(train, embedding_of(model).subwords, device)
        self._shuffle = np.random.default_rng(seed)
        self._device = device
        # 0 for the titles that are set aside, else 1; empty if none can be.
        self._kept_N = torch.ones(len(train) if settings.set_aside_below else 0, dtype=torch.uint8)
        # Of the epoch that runs or comes next: steps done, the sum of this process' losses in them, and
        # the random state from which its order is drawn.
        self.step = 0
        self._losses = torch.zeros((), dtype=torch.float64, device=device)
        self._order = self._shuffle.bit_generator.state

    @property
    def progress(self) -> float:
        """Share of the planned steps that is done."""
        return self._steps_done / self._steps_planned

    def epochs(self, between: Callable[[], None] = lambda: None) -> Iterator[EpochRecord]:
        """Yield a record after each epoch, until all that are planned are done.

        The caller logs, keeps the best weights, and stops early by not asking for more.

        Args:
            between: called after every few steps within an epoch, where `state` can be asked for; in all
                processes after the same ones.

        Raises:
            DivergedError: the loss is not finite; the weights are then worthless.
        """
        while self._epochs_done < self.epochs_planned:
            number = self._epochs_done + 1
            if self.step == 0 and self._ends_a_part(self._epochs_done):
                self._set_aside()
            started = time.perf_counter()
            train_loss, titles = self._epoch(number, between)
            titles_per_second = titles / (time.perf_counter() - started)
            started = time.perf_counter()
            (outcomes,) = evaluate([self._network], self._validation, self._device)
            measured = [
                train_loss,
                float(outcomes.loss_N.mean()),
                float(outcomes.right_N.mean()),
                balanced_accuracy(outcomes.labels_N, outcomes.right_N),
                self._optimisers[0].param_groups[0]["lr"],
                titles_per_second,
                len(self._titles) / titles_per_second + time.perf_counter() - started,
            ]
            self._epochs_done = number
            aside = int((self._kept_N == 0).sum())
            yield EpochRecord(number, aside, *distributed.broadcast(measured))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next steps depend on: tensors, not copied, and numbers that JSON holds exactly.

        All processes ask for it together. Weights and optimisers are the same in all of them; of the
        rest, tensors have a row per process.
        """
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
        own = {"losses": self._losses.cpu(), "random.cpu": torch.get_rng_state()}
        if self._device.type == "cuda":  # needs a GPU
            own["random.cuda"] = torch.cuda.get_rng_state(self._device)
        tensors |= {name: torch.stack(distributed.gathered(tensor)) for name, tensor in own.items()}
        tensors["kept"] = self._kept_N
        return tensors, {
            "epochs_done": self._epochs_done,
            "steps_done": self._steps_done,
            "step": self.step,
            "shuffle": self._order,
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
        rank = distributed.rank()
        # Cloned: torch reads the states from the start of their memory, even those of a view.
        torch.set_rng_state(tensors["random.cpu"][rank].clone())
        if self._device.type == "cuda":  # needs a GPU
            torch.cuda.set_rng_state(tensors["random.cuda"][rank].clone(), self._device)
        self._losses = tensors["losses"][rank].clone().to(self._device)
        self._kept_N = tensors["kept"].clone()
        self._shuffle.bit_generator.state = numbers["shuffle"]
        self._order = numbers["shuffle"]
        self._epochs_done = numbers["epochs_done"]
        self._steps_done = numbers["steps_done"]
        self.step = numbers["step"]

    def _ends_a_part(self, epochs: int) -> bool:
        """Whether a part of the training, but the last, ends with so many epochs."""
        done, before = (_PARTS * count // self.epochs_planned for count in (epochs, epochs - 1))
        return epochs > 0 and done > before

    def _set_aside(self) -> None:
        """Set the titles aside whose labels look wrong to the network, and take the others back: a title
        that was set aside is judged by a network that has not been trained on it since."""
        if share := self._settings.set_aside_below:
            self._kept_N = kept(
                self._network, self._titles, self._device, self._objective.equal_C, share
            )

    def _epoch(self, number: int, between: Callable[[], None]) -> tuple[float, int]:
        """The rest of a pass over train.

        Returns the mean cross-entropy of the whole pass without weights, logit adjustment and smoothing,
        so that runs and splits compare, and the number of titles that were left.
        """
        self._network.train()
        rank, world_size = distributed.rank(), distributed.world_size()
        batches = ordered(self._titles, self._batch_size, self._shuffle)
        before = sum(len(next(batches)) for _ in range(self.step))
        with tqdm(
            total=len(self._titles),
            initial=before,
            desc=f"epoch {number}",
            unit=" titles",
            leave=False,
            disable=rank > 0 or None,
        ) as bar:
            for step, rows in enumerate(batches, self.step):
                own = rows[rank::world_size]
                self._losses += self._step(own if len(own) else rows[:1], counts=len(own) > 0)
                self.step = step + 1
                bar.update(len(rows))
                if step % _STEPS_PER_CHECK == 0:
                    _check_finite(distributed.total(self._losses), number)
                    if self.step < self.steps_per_epoch:  # else the epoch is about to end
                        between()
        losses = distributed.total(self._losses)
        _check_finite(losses, number)
        self.step, self._losses = 0, torch.zeros_like(self._losses)
        self._order = self._shuffle.bit_generator.state
        return float(losses) / len(self._titles), len(self._titles) - before

    def _step(self, rows: NDArray[np.int64], counts: bool) -> Tensor:
        """One step; returns the sum of the batch's cross-entropies, each the mean of those by the heads.

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
            logits_MC = self._network(batch).float()
        labels_M = batch.labels_B.repeat(self._heads)
        losses_M, log_right_M = self._objective.losses(logits_MC, labels_M)
        weight_M = self._objective.weights(labels_M, log_right_M, self.progress)
        if len(self._kept_N):
            weight_M = weight_M * self._kept_N[torch.from_numpy(rows)].repeat(self._heads).to(weight_M)
        if not counts:
            losses_M, weight_M = losses_M[:0], weight_M[:0]
        # By the weights of the whole batch, since gradients are averaged over the processes.
        weight = distributed.mean(total(weight_M)).clamp(min=_TINY)  # 0 if all titles are set aside
        loss = (losses_M * weight_M).sum() / weight
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(self._network.parameters())
        for optimiser in self._optimisers:
            optimiser.step()
        self._steps_done += 1
        if self._objective.is_plain or not counts:
            return total(losses_M) / self._heads
        return F.cross_entropy(logits_MC.detach(), labels_M, reduction="sum") / self._heads

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
