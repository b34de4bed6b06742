"""Raw titles to ranked categories, by a trained network.

Legend: N titles, B titles of a batch, K categories wanted, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
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


class Ranked(NamedTuple):
    """The likeliest categories of N titles, best first.

    categories_NK: category ids, -1 throughout for a title that holds no word.
    probabilities_NK: their probabilities, 0 for such a title. Of a network trained with logit adjustment
        they are those of a title that is as likely of any category as of any other.
    """

    categories_NK: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]


class Classifier:
    """A saved model that takes titles as people write them."""

    def __init__(self, model: SavedModel, device: torch.device) -> None:
        self._model = model
        self._network = model.network.to(device).eval()
        self._device = device
        self._ids = _WordIds(model.vocabulary.ids())

    def encode(self, titles: Sequence[str]) -> EncodedTitles:
        """Word ids of each title, as `prepare` would give them; labels and the like are zeros."""
        rows = tokenise(titles, self._model.text)
        ends_N = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
        count = int(ends_N[-1]) if rows else 0
        self._ids.unknown = {}
        word_ids = np.fromiter(map(self._ids.__getitem__, chain.from_iterable(rows)), np.int32, count)
        return EncodedTitles.unlabelled(word_ids, ends_N, list(self._ids.unknown))

    @torch.inference_mode()
    def top(self, titles: Sequence[str], k: int = 5) -> Ranked:
        """The k likeliest categories of each title, or all where there are fewer than k.

        Raises:
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}: at least one category must be wanted")
        k = min(k, len(self._model.labels))
        encoded = self.encode(titles)
        found = Ranked(
            np.full((len(titles), k), _UNCLASSIFIED, np.int64), np.zeros((len(titles), k), np.float32)
        )
        with_words = np.flatnonzero(encoded.lengths)
        batcher = Batcher(encoded, embedding_of(self._network).subwords, self._device)
        for rows in ordered(encoded, _BATCH, among=with_words):
            logits_BC = self._network(batcher.batch(rows))
            best_BK, category_BK = logits_BC.topk(k, dim=1)
            # Softmax of the k alone: the rest is in the sum.
            probability_BK = (best_BK - logits_BC.logsumexp(dim=1, keepdim=True)).exp()
            found.categories_NK[rows] = category_BK.cpu().numpy()
            found.probabilities_NK[rows] = probability_BK.cpu().numpy()
        return found


class _WordIds(dict[str, int]):
    """Ids of a vocabulary; other words are numbered -1, -2 and so on in `unknown`."""

    unknown: dict[str, int]

    def __missing__(self, word: str) -> int:
        return self.unknown.setdefault(word, -1 - len(self.unknown))
