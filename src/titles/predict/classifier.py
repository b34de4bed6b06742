"""Raw titles to ranked categories, by one trained network or the average of several.

Legend: N titles, B titles of a batch, K categories predicted, C categories, M networks, S categories in
all sets together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from titles.data.batching import Batcher, ordered
from titles.data.encoded import EncodedTitles
from titles.data.subwords import Subwords
from titles.evaluation import sets
from titles.models.parts import saved
from titles.models.parts.embedding import embedding_of
from titles.models.parts.inference import probabilities
from titles.models.registry import AVERAGE, CLASSIFIERS, NETWORKS
from titles.predict.written import written
from titles.prepare.text import words_of

# Titles per pass of the network: larger batches share more tokens, which are projected once.
_BATCH = 2048
_UNCLASSIFIED = _UNKNOWN = -1
_DAMAGED = "the networks give no probabilities: their weights are damaged"


class Ranked(NamedTuple):
    """The most likely categories of N titles, best first.

    categories_NK: category ids, all -1 for a title without a word.
    probabilities_NK: their probabilities, 0 for such a title. They are calibrated on the validation
        split: a probability of 0.8 is right for about 80 % of titles like those.
    """

    categories_NK: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]

    @property
    def empty_N(self) -> NDArray[np.bool_]:
        """Whether each title has no prediction."""
        return np.equal(self.categories_NK[:, 0], _UNCLASSIFIED)

    def rows(self) -> Iterator[tuple[list[int], list[float]]]:
        """Yield the category ids and the probabilities of each title."""
        return zip(self.categories_NK.tolist(), self.probabilities_NK.tolist(), strict=True)

    def abstentions(self, labels: Sequence[str], at_least: float) -> dict[int, str]:
        """Reason for each row without a prediction because its probability is below `at_least`."""
        category_N, probability_N = self.categories_NK[:, 0], self.probabilities_NK[:, 0]
        unsure = np.flatnonzero((category_N >= 0) & (probability_N < at_least)).tolist()
        # Rounded down: 0.949 must not read as 0.95 if that was the minimum.
        return {
            row: f"not sure: {math.floor(round(float(probability_N[row]), 6) * 100 + 1e-9) / 100:.2f} "
            f"for {labels[category_N[row]]}"
            for row in unsure
        }


class CategorySets(NamedTuple):
    """The set of categories of each of N titles.

    categories_S: category ids, title by title, the most likely first. probabilities_S: of each.
    ends_N: where the set of each title ends; that of a title without a word is empty.
    """

    categories_S: NDArray[np.int64]
    probabilities_S: NDArray[np.float32]
    ends_N: NDArray[np.int64]

    @property
    def empty_N(self) -> NDArray[np.bool_]:
        return np.equal(np.diff(self.ends_N, prepend=0), 0)

    def rows(self) -> Iterator[tuple[list[int], list[float]]]:
        """Yield the category ids and the probabilities of each title."""
        categories, probabilities = self.categories_S.tolist(), self.probabilities_S.tolist()
        start = 0
        for end in self.ends_N.tolist():
            yield categories[start:end], probabilities[start:end]
            start = end


class Classifier:
    """Saved models for raw titles. Several are averaged: mean logits, weighted by the inverse of the
    validation loss, see `saved.weights`.

    The softmax of mean logits is the normalised weighted geometric mean of the probabilities, a product
    of experts, Hinton (2002), "Training products of experts by minimizing contrastive divergence": a
    category that one network rules out is ruled out.

    It is immutable: threads can share one.

    Raises:
        ValueError: there are no models, or they were trained on different data.
    """

    def __init__(self, models: Sequence[saved.SavedModel], device: torch.device) -> None:
        if not models:
            raise ValueError("no model to classify with")
        data = [(model.vocabulary, model.labels, model.text) for model in models]
        for model, own in zip(models, data, strict=True):
            if own != data[0]:
                raise ValueError(
                    f"models {models[0].name} and {model.name} were trained on different data: "
                    "they cannot be averaged: run `dvc repro`"
                )
        vocabulary, self.labels, self._text = data[0]
        self._ids = vocabulary.ids()
        self.networks = [model.network.to(device).eval() for model in models]
        # Networks with the same subwords share their batches.
        self._subwords = {_kind(network): embedding_of(network).subwords for network in self.networks}
        self._weight_M = saved.weights(models).to(device)
        self._device = device

    @staticmethod
    def read(models: Path, choice: str, device: torch.device) -> Classifier:
        """Load models that the pipeline saved in the folder `models`.

        Args:
            choice: the name of a network, or AVERAGE for all of them.

        Raises:
            ValueError: the network is unknown, or its folder is missing, damaged or of another format.
        """
        if choice not in CLASSIFIERS:
            raise ValueError(f"model is {choice!r}: expected one of {', '.join(CLASSIFIERS)}")
        names = list(NETWORKS) if choice == AVERAGE else [choice]
        return Classifier([saved.read(models / name, NETWORKS) for name in names], device)

    def words(self, title: str) -> list[str]:
        """The tokens of a title."""
        return words_of([title], self._text)[0]

    def written(self, title: str) -> list[str]:
        """What stands in the title for each of its tokens."""
        return written(title, self._text)

    def knows(self, word: str) -> bool:
        """Whether a word is in the vocabulary; of unknown words only n-grams are read."""
        return word in self._ids

    def encode(self, titles: Sequence[str]) -> EncodedTitles:
        """Token ids of titles cut at `max_title_chars`, as from `prepare`, without labels."""
        return self.encode_words(words_of(titles, self._text))

    def encode_words(self, rows: Sequence[Sequence[str]]) -> EncodedTitles:
        """Token ids of tokenised titles."""
        ends_N = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
        words = list(chain.from_iterable(rows))
        word_ids = np.fromiter(map(self._ids.get, words, repeat(_UNKNOWN)), np.int32, len(words))
        unknown: dict[str, int] = {}
        for place in np.flatnonzero(word_ids == _UNKNOWN).tolist():
            word_ids[place] = -1 - unknown.setdefault(words[place], len(unknown))
        return EncodedTitles.unlabelled(word_ids, ends_N, list(unknown))

    @torch.inference_mode()
    def top(self, titles: Sequence[str], k: int = 5) -> Ranked:
        """The k most likely categories of each title, or all if there are fewer.

        Raises:
            ValueError: k is less than 1, or weights are so large that sums of them are no numbers.
        """
        if k < 1:
            raise ValueError(f"k is {k}: it must be at least 1")
        k = min(k, len(self.labels))
        shape = len(titles), k
        found = Ranked(np.full(shape, _UNCLASSIFIED, np.int64), np.zeros(shape, np.float32))
        encoded = self.encode(titles)
        for rows, probability_BC in self._passes(encoded, np.flatnonzero(encoded.lengths)):
            best_BK, category_BK = probability_BC.topk(k, dim=1)
            found.categories_NK[rows] = category_BK.cpu().numpy()
            found.probabilities_NK[rows] = best_BK.cpu().numpy()
        if np.isnan(found.probabilities_NK).any():
            raise ValueError(_DAMAGED)
        return found

    @torch.inference_mode()
    def sets(self, titles: Sequence[str], threshold_C: NDArray[np.float32]) -> CategorySets:
        """The set of categories of each title, see evaluation/sets.py.

        Args:
            threshold_C: of each category, see `sets.Sets.of`.

        Raises:
            ValueError: weights are so large that sums of them are no numbers.
        """
        encoded = self.encode(titles)
        rows_S, categories_S = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        probabilities_S = [np.empty(0, np.float32)]
        for rows, probability_BC in self._passes(encoded, np.flatnonzero(encoded.lengths)):
            found_BC = probability_BC.cpu().numpy()
            if np.isnan(found_BC).any():
                raise ValueError(_DAMAGED)
            at, categories = np.nonzero(sets.scores(found_BC) >= threshold_C)
            rows_S.append(rows[at])
            categories_S.append(categories)
            probabilities_S.append(found_BC[at, categories])
        row_S, category_S = np.concatenate(rows_S), np.concatenate(categories_S)
        probability_S = np.concatenate(probabilities_S)
        order_S = np.lexsort((category_S, -probability_S, row_S))
        ends_N = np.cumsum(np.bincount(row_S, minlength=len(titles)))
        return CategorySets(category_S[order_S], probability_S[order_S], ends_N)

    @torch.inference_mode()
    def probabilities(self, titles: EncodedTitles) -> NDArray[np.float32]:
        """Probability of each category, (N, C); as in `evaluate`, also for a title without a word."""
        found_NC = np.empty((len(titles), len(self.labels)), np.float32)
        for rows, probability_BC in self._passes(titles):
            found_NC[rows] = probability_BC.cpu().numpy()
        return found_NC

    def _passes(
        self, titles: EncodedTitles, among: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Batches of the given rows, or of all: rows and probabilities (B, C)."""
        batchers = {kind: Batcher(titles, words, self._device) for kind, words in self._subwords.items()}
        for rows in ordered(titles, _BATCH, among=among):
            batches = {kind: batcher.batch(rows) for kind, batcher in batchers.items()}
            logits = [network(batches[_kind(network)]) for network in self.networks]
            yield rows, probabilities(self._weight_M, logits)


def _kind(network: nn.Module) -> Subwords | None:
    words = embedding_of(network).subwords
    return words.subwords if words else None
