"""Raw titles to ranked categories, by one trained network or several.

Legend: N titles, B titles of a batch, K categories wanted, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from titles.batching import Batcher, ordered
from titles.data import EncodedTitles
from titles.models.embedding import embedding_of
from titles.models.saved import SavedModel
from titles.text import tokenise

# Titles a pass of the network: the more, the more of their words are shared and projected once.
_BATCH = 2048
_UNCLASSIFIED = -1
_UNKNOWN = -1


class Ranked(NamedTuple):
    """The likeliest categories of N titles, best first.

    categories_NK: category ids, -1 throughout for a title that holds no word.
    probabilities_NK: their probabilities, 0 for such a title. Of a network trained with logit adjustment
        they are those of a title that is as likely of any category as of any other.
    """

    categories_NK: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]


class Classifier:
    """Saved models that take titles as people write them; of several, their mean probabilities count.

    Nothing in it changes once it is made: threads may share one.

    Raises:
        ValueError: there are no models, or they were trained on different data.
    """

    def __init__(self, models: Sequence[SavedModel], device: torch.device) -> None:
        if not models:
            raise ValueError("no model to classify with")
        first = models[0]
        for other in models[1:]:
            if (first.vocabulary, first.labels, first.text) != (
                other.vocabulary,
                other.labels,
                other.text,
            ):
                raise ValueError(
                    f"models {first.name} and {other.name} were trained on different data, so that "
                    "their answers cannot be averaged: run `dvc repro`"
                )
        self.labels = first.labels
        self._text = first.text
        self._ids = first.vocabulary.ids()
        self._networks = [model.network.to(device).eval() for model in models]
        self._device = device

    def encode(self, titles: Sequence[str]) -> EncodedTitles:
        """Word ids of each title, as `prepare` would give them; labels and the like are zeros."""
        rows = tokenise(titles, self._text)
        ends_N = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
        words = list(chain.from_iterable(rows))
        word_ids = np.fromiter(map(self._ids.get, words, repeat(_UNKNOWN)), np.int32, len(words))
        unknown: dict[str, int] = {}
        for place in np.flatnonzero(word_ids == _UNKNOWN).tolist():
            word_ids[place] = -1 - unknown.setdefault(words[place], len(unknown))
        return EncodedTitles.unlabelled(word_ids, ends_N, list(unknown))

    @torch.inference_mode()
    def top(self, titles: Sequence[str], k: int = 5) -> Ranked:
        """The k likeliest categories of each title, or all where there are fewer than k.

        Raises:
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}: at least one category must be wanted")
        k = min(k, len(self.labels))
        encoded = self.encode(titles)
        found = Ranked(
            np.full((len(titles), k), _UNCLASSIFIED, np.int64), np.zeros((len(titles), k), np.float32)
        )
        batchers = [Batcher(encoded, embedding_of(n).subwords, self._device) for n in self._networks]
        for rows in ordered(encoded, _BATCH, among=np.flatnonzero(encoded.lengths)):
            probabilities = [
                network(batcher.batch(rows)).softmax(dim=1)
                for network, batcher in zip(self._networks, batchers, strict=True)
            ]
            best_BK, category_BK = torch.stack(probabilities).mean(dim=0).topk(k, dim=1)
            found.categories_NK[rows] = category_BK.cpu().numpy()
            found.probabilities_NK[rows] = best_BK.cpu().numpy()
        return found
