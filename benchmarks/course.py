"""A reimplementation of a university course's baseline and its training loop, for comparison.

Its defects are deliberate. Those of `Defects` can be switched off one by one. The causes of its slowness
remain:

- rows are decoded from gzip JSON and padded one at a time, in Python, in every epoch;
- each token of a batch is looked up and convolved separately, including padding and repeated tokens;
- Adam updates the embeddings of all words, whether they are in the batch or not, and its weight decay
  shrinks the absent ones to zero.

Dimensions: B titles of a batch, L tokens, V words of the vocabulary, D of embeddings, H units, C
categories.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from titles.data.contract import PAD
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import balanced_accuracy

BATCH_SIZE = 128
_SHUFFLED_ROWS = 2048
_CPU = torch.device("cpu")

Row = tuple[list[int], int]


@dataclass(frozen=True, kw_only=True)
class Defects:
    """Defects of the course's code.

    sigmoid: logits pass a sigmoid before the softmax of the loss, which bounds them to 0 .. 1.
    dropout_in_evaluation: dropout also applies during evaluation.
    mean_over_padding: the MLP divides by the length of the batch's longest title.
    max_over_padding: the CNN's max pooling includes windows of only padding, whose response is the bias,
        and the number of windows past a title's end depends on the batch's longest title.
    """

    sigmoid: bool = True
    dropout_in_evaluation: bool = True
    mean_over_padding: bool = True
    max_over_padding: bool = True


class _CourseNetwork(nn.Module):
    """The common parts of both networks: embedding, dropout and output.

    min_words: the length to which batches are padded at least.
    """

    min_words = 1

    def __init__(self, vectors_VD: Tensor, freeze: bool, dropout: float, defects: Defects) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
            vectors_VD, freeze=freeze, padding_idx=PAD
        )
        self.rate = dropout
        self.defects = defects

    def drop(self, hidden_BH: Tensor) -> Tensor:
        return F.dropout(
            hidden_BH, self.rate, training=self.training or self.defects.dropout_in_evaluation
        )

    def scores(self, output_BC: Tensor) -> Tensor:
        return torch.sigmoid(output_BC) if self.defects.sigmoid else output_BC


class CourseMLP(_CourseNetwork):
    """Mean of the word vectors, then hidden layers.

    Args:
        vectors_VD: word vectors; training changes them in place unless they are frozen.
    """

    def __init__(
        self,
        vectors_VD: Tensor,
        classes: int,
        *,
        freeze: bool,
        hidden_layers: Sequence[int] = (256, 128),
        dropout: float = 0.3,
        defects: Defects = Defects(),
    ) -> None:
        super().__init__(vectors_VD, freeze, dropout, defects)
        sizes = [vectors_VD.shape[1], *hidden_layers]
        self.hidden = nn.ModuleList(nn.Linear(size, following) for size, following in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], classes)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Logits (B, C) of padded token ids."""
        embedded_BLD = self.embedding(tokens_BL)
        if self.defects.mean_over_padding:
            hidden_BH = embedded_BLD.mean(dim=1)
        else:
            is_word_BL1 = (tokens_BL != PAD)[..., None]
            hidden_BH = (embedded_BLD * is_word_BL1).sum(dim=1) / is_word_BL1.sum(dim=1)
        for layer in self.hidden:
            hidden_BH = self.drop(F.relu(layer(hidden_BH)))
        return self.scores(self.output(hidden_BH))


class CourseCNN(_CourseNetwork):
    """Convolutions of several lengths, max pooling, then a hidden layer.

    Args:
        vectors_VD: word vectors; training changes them in place unless they are frozen.
    """

    def __init__(
        self,
        vectors_VD: Tensor,
        classes: int,
        *,
        freeze: bool,
        filter_lengths: Sequence[int] = (2, 3, 4),
        filter_count: int = 100,
        fc_size: int = 128,
        dropout: float = 0.3,
        defects: Defects = Defects(),
    ) -> None:
        super().__init__(vectors_VD, freeze, dropout, defects)
        self.min_words = max(filter_lengths)
        self.filters = nn.ModuleList(
            nn.Conv1d(vectors_VD.shape[1], filter_count, length) for length in filter_lengths
        )
        self.hidden = nn.Linear(filter_count * len(filter_lengths), fc_size)
        self.output = nn.Linear(fc_size, classes)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Logits (B, C) of padded token ids."""
        if not self.defects.max_over_padding:
            # So that windows can start at every token of the longest title too.
            tokens_BL = F.pad(tokens_BL, (0, self.min_words - 1), value=PAD)
        embedded_BDL = self.embedding(tokens_BL).transpose(1, 2)
        pooled = []
        for filters in self.filters:
            response_BFW = F.relu(filters(embedded_BDL))
            if not self.defects.max_over_padding:
                # Mask windows that start on padding; 0 is the minimum of relu.
                is_word_B1W = (tokens_BL != PAD)[:, None, : response_BFW.shape[2]]
                response_BFW = response_BFW * is_word_B1W
            pooled.append(response_BFW.amax(dim=2))
        hidden_BH = F.relu(self.hidden(torch.cat(pooled, dim=1)))
        return self.scores(self.output(self.drop(hidden_BH)))


class _Rows(IterableDataset[Row]):
    def __init__(self, file: Path, seed: int | None) -> None:
        """seed: of the shuffling; None keeps the file's order."""
        self.file = file
        self.shuffle = None if seed is None else random.Random(seed)

    def __iter__(self) -> Iterator[Row]:
        held: list[Row] = []
        with gzip.open(self.file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                held.append((row["data"], row["target"]))
                if self.shuffle is None or len(held) == _SHUFFLED_ROWS:
                    yield from self._emptied(held)
        yield from self._emptied(held)

    def _emptied(self, held: list[Row]) -> Iterator[Row]:
        if self.shuffle:
            self.shuffle.shuffle(held)
        yield from held
        held.clear()


def _loader(file: Path, min_words: int, seed: int | None) -> DataLoader[Any]:
    def padded(rows: list[Row]) -> tuple[Tensor, Tensor]:
        longest = max(min_words, *(len(words) for words, _ in rows))
        tokens = [words + [PAD] * (longest - len(words)) for words, _ in rows]
        return torch.tensor(tokens), torch.tensor([label for _, label in rows])

    return DataLoader(_Rows(file, seed), batch_size=BATCH_SIZE, collate_fn=padded, num_workers=0)


def write_rows(titles: EncodedTitles, file: Path) -> None:
    """Write titles in the course's format: gzip JSON lines of ten fields, of which two are read."""
    categories = int(titles.labels.max()) + 1
    with gzip.open(file, "wt", compresslevel=6, encoding="utf-8") as out:
        for words, label in zip(
            titles.lists(np.arange(len(titles))), titles.labels.tolist(), strict=True
        ):
            spelt = [f"word{word}" for word in words]
            row = {
                "language": "spanish",
                "label_quality": "unreliable",
                "title": " ".join(spelt),
                "category": f"CATEGORY_{label}",
                "split": "train",
                "tokenized_title": spelt,
                "data": words,
                "target": label,
                "n_labels": categories,
                "size": len(titles),
            }
            out.write(json.dumps(row) + "\n")


def training(
    model: _CourseNetwork, file: Path, *, epochs: int = 1, seed: int = 0, device: torch.device = _CPU
) -> Iterator[tuple[int, float]]:
    """Train in place; yields the number of rows and the loss of each step."""
    steps = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    loader = _loader(file, model.min_words, seed)
    for _ in range(epochs):
        for tokens_BL, labels_B in loader:
            model.train()
            steps.zero_grad()
            loss = F.cross_entropy(model(tokens_BL.to(device)), labels_B.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
            yield len(labels_B), loss.item()


def train(
    model: _CourseNetwork,
    file: Path,
    *,
    epochs: int = 1,
    rows: int | None = None,
    seed: int = 0,
    device: torch.device = _CPU,
) -> float:
    """Train in place and return the rows per second.

    Args:
        file: see `write_rows`.
        rows: stop after the step that reaches this number, in whatever epoch.
    """
    started, done = time.perf_counter(), 0
    for count, _ in training(model, file, epochs=epochs, seed=seed, device=device):
        done += count
        if rows is not None and done >= rows:
            break
    return done / (time.perf_counter() - started)


@torch.no_grad()
def evaluate(model: _CourseNetwork, file: Path, *, device: torch.device = _CPU) -> tuple[float, float]:
    """The loss in nats per title and the balanced accuracy."""
    model.eval()
    total, labels, right = 0.0, [], []
    for tokens_BL, labels_B in _loader(file, model.min_words, None):
        scores_BC = model(tokens_BL.to(device)).cpu()
        total += float(F.cross_entropy(scores_BC, labels_B, reduction="sum"))
        labels.append(labels_B.numpy())
        right.append((scores_BC.argmax(dim=1) == labels_B).numpy())
    labels_N = np.concatenate(labels)
    return total / len(labels_N), balanced_accuracy(labels_N, np.concatenate(right))
