"""Training and prediction of the implementations that `speed.py` compares, with timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from course import BATCH_SIZE, CourseCNN, CourseMLP, training, write_rows
from generated import CATEGORIES, WORDS, generate, vocabulary
from packages import fasttext_module
from torch import nn

from titles.data.contract import PAD, UNK
from titles.data.vocabulary import Vocabulary
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.inference import set_up
from titles.models.parts.network import Network
from titles.models.parts.saved import SavedModel
from titles.models.registry import NETWORKS, load_params
from titles.params import Training
from titles.predict.classifier import Classifier
from titles.prepare.text import tokenise
from titles.training.trainer import Trainer

fasttext = fasttext_module()
DIMENSION = 300
TOP = 5
PARAMS = load_params()

Kind = Literal["cnn", "mlp"]
Precision = Literal["float32", "bfloat16"]
WORD_VECTORS = {"frozen": True, "unfrozen": False}


@dataclass(frozen=True)
class Scale:
    """The amount of work that is timed: minimum seconds and steps after the warm-up, and repetitions."""

    rows: int = 60_000
    few_rows: int = 50 * BATCH_SIZE
    seconds: float = 10.0
    steps: int = 30
    warm_up: int = 10
    repeats: int = 3

    def enough(self, seconds: float, rows: int) -> bool:
        return seconds >= self.seconds and rows >= self.steps * BATCH_SIZE


QUICK = Scale(rows=5_000, few_rows=3 * BATCH_SIZE, seconds=0.5, steps=3, warm_up=1, repeats=2)


class Rates(NamedTuple):
    """Rows per second of each repetition."""

    values: list[float]

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    def __str__(self) -> str:
        return f"{self.median:,.0f} ({min(self.values):,.0f} .. {max(self.values):,.0f})"


def in_turns(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, Rates]:
    """Call each in turn, for `repeats` rounds."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(run())
    return {name: Rates(values) for name, values in found.items()}


def settings(
    kind: Kind, freeze: bool, batch_size: int = BATCH_SIZE, precision: Precision = "float32"
) -> Any:
    """Our settings for the course's architecture and step, with all our additions switched off."""
    section = getattr(PARAMS, kind)
    wanted = {
        "filter_lengths": (2, 3, 4),
        "filter_count": 100,
        "fc_size": 128,
        "leading_words": 0,
        "hidden_layers": (256, 128),
        "dropout": 0.3,
        "freeze_embeddings": freeze,
        "epochs": 1_000,  # measurements end earlier
        "batch_size": batch_size,
        "precision": precision,
        "saved_weights": "float32",
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "class_weighting": "none",
        "min_steps": None,
        "word_dropout": 0.0,
        "heads": 1,
        "subword_buckets": 0,
        "label_smoothing": 0.0,
        "gce_q": 0.0,
        "set_aside_below": 0.0,
        "logit_adjustment": 0.0,
        "schedule": "constant",
    }
    known = type(section).model_fields
    return section.model_copy(update={name: wanted[name] for name in wanted if name in known})


def word_vectors() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    matrix_VD = 0.3 * torch.randn(WORDS, DIMENSION, generator=draw)
    matrix_VD[PAD] = 0
    return matrix_VD


def our_network(chosen: Training) -> Network:
    known_V = torch.ones(WORDS, dtype=torch.bool)
    known_V[[PAD, UNK]] = False
    embedding = WordEmbedding(word_vectors(), known_V, chosen.freeze_embeddings)
    (network,) = (found for found in NETWORKS.values() if type(chosen) is found.Section)
    return network(embedding, CATEGORIES, **chosen.architecture(0))  # its dropout is a number


class Race:
    """Generated titles, and the networks trained on them by the last repetition."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        torch.set_num_threads(PARAMS.compute.threads)  # also if our `set_up` is not called first
        self.scale = scale
        self.train = generate(scale.rows, seed=1)
        self.few = generate(scale.few_rows, seed=2).titles
        self.course_file = folder / "rows.jsonl.gz"
        write_rows(self.train.titles, self.course_file)
        self.fasttext_file = folder / "rows.txt"
        self.fasttext_file.write_text(
            "".join(
                f"__label__{label} {words}\n"
                for label, words in zip(self.train.titles.labels.tolist(), self.train.clean, strict=True)
            ),
            encoding="utf-8",
        )
        self.networks: dict[tuple[Kind, str], nn.Module] = {}
        self.fasttext: dict[str, Any] = {}
        self.fasttext_rates = {loss: [0.1, 0.05, 0.02] for loss in ("softmax", "hs")}
        self.fasttext_epochs: dict[str, int] = {}

    # -- training

    def train_ours(
        self,
        kind: Kind,
        words: str,
        device: torch.device,
        batch_size: int = BATCH_SIZE,
        precision: Precision = "float32",
    ) -> float:
        """Rows per second of `Trainer`, without its validation."""
        set_up(PARAMS.compute, PARAMS.seed)
        chosen = settings(kind, WORD_VECTORS[words], batch_size, precision)
        once = chosen.model_copy(update={"epochs": 1})
        warm_up = our_network(once).to(device)
        for _ in Trainer(warm_up, self.few, self.few, CATEGORIES, once, 0, device).epochs():
            pass
        network = our_network(chosen).to(device)
        seconds, rows = 0.0, 0
        trainer = Trainer(network, self.train.titles, self.few, CATEGORIES, chosen, 0, device)
        for record in trainer.epochs():
            rows += len(self.train.titles)
            seconds += len(self.train.titles) / record.titles_per_second
            if self.scale.enough(seconds, rows):
                break
        self.networks[kind, words] = network
        return rows / seconds

    def train_course(self, kind: Kind, words: str, device: torch.device) -> float:
        # The course's code is not deterministic, so that it must not pay for determinism.
        torch.use_deterministic_algorithms(False)
        torch.manual_seed(0)
        build = CourseCNN if kind == "cnn" else CourseMLP
        network = build(word_vectors(), CATEGORIES, freeze=WORD_VECTORS[words]).to(device)
        steps = training(network, self.course_file, epochs=1_000, device=device)
        for _ in range(self.scale.warm_up):
            next(steps)
        started, seconds, rows = time.perf_counter(), 0.0, 0
        while not self.scale.enough(seconds, rows):
            count, _ = next(steps)
            rows += count
            seconds = time.perf_counter() - started
        return rows / seconds

    def train_fasttext(self, loss: str) -> float:
        """Rows per second, including reading the file and its words, which cannot be excluded."""
        epochs = self.fasttext_epochs.get(loss, 1)
        while (seconds := self._fasttext(loss, epochs)) < self.scale.seconds:
            epochs = int(1.2 * epochs * self.scale.seconds / seconds) + 1
        self.fasttext_epochs[loss] = epochs
        return len(self.train.titles) * epochs / seconds

    def _fasttext(self, loss: str, epochs: int) -> float:
        """Train once; returns the seconds."""
        started = time.perf_counter()
        try:
            self.fasttext[loss] = fasttext.train_supervised(
                str(self.fasttext_file),
                loss=loss,
                lr=self.fasttext_rates[loss][0],
                epoch=epochs,
                dim=DIMENSION,
                thread=PARAMS.compute.threads,
                wordNgrams=1,
                minn=0,
                maxn=0,
                verbose=0,
            )
        except RuntimeError as error:
            # Version 0.9.3 diverges at some learning rates.
            if "NaN" not in str(error) or len(self.fasttext_rates[loss]) == 1:
                raise
            self.fasttext_rates[loss].pop(0)
            return self._fasttext(loss, epochs)
        return time.perf_counter() - started

    # -- prediction with the networks trained last

    def predict(self, run: Callable[[list[str]], object], titles: list[str]) -> float:
        """Titles per second."""
        torch.use_deterministic_algorithms(False)  # as when a model is served
        run(titles[:1000])
        started, seconds, rows = time.perf_counter(), 0.0, 0
        while not self.scale.enough(seconds, rows):
            run(titles)
            rows += len(titles)
            seconds = time.perf_counter() - started
        return rows / seconds

    def predict_fasttext(self, raw: list[str]) -> None:
        self.predict_fasttext_clean([" ".join(words) for words in tokenise(raw, PARAMS.prepare.text)])

    def predict_fasttext_clean(self, clean: list[str]) -> None:
        # `predict` fails with numpy 2.
        lines = [f"{words}\n" for words in clean]
        self.fasttext["softmax"].f.multilinePredict(lines, TOP, 0.0, "strict")

    def classifier(self, kind: Kind) -> Classifier:
        """A classifier of raw titles with our last network with unfrozen word vectors."""
        network = self.networks[kind, "unfrozen"].to("cpu")
        labels = [f"{number:03}" for number in range(CATEGORIES)]
        words = Vocabulary(vocabulary(), [0] * WORDS)
        model = SavedModel(kind, {}, network, words, labels, PARAMS.prepare.text)
        return Classifier([model], torch.device("cpu"))
