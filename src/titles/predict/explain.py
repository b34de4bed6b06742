"""Explains predictions by the words of the title.

Two methods. Occlusion (Zeiler and Fergus, 2014, arXiv:1311.2901), for all networks: the title is
classified again without each word. Gradient x activation of the pooled filters (as in Grad-CAM,
Selvaraju et al., 2017, arXiv:1610.02391), for the CNN: the gradient of a logit with respect to the
maximum response of a filter, times that response, is attributed to the window of the maximum.

Legend: L tokens of the title, K categories explained, C categories, D dimensions, F filters of all
lengths, U distinct tokens.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from titles.data.batching import Batcher
from titles.models.cnn import TitleCNN, WindowFilters
from titles.predict.classifier import Classifier

# Windows per category.
_WINDOWS = 3
_LEAST = float(np.finfo(np.float32).tiny)


class Window(NamedTuple):
    """Words that filters responded to, and their contribution to the logit of the category."""

    words: str
    contribution: float


class Category(NamedTuple):
    """The explanation of one category.

    effects: for each word of the title, the decrease of the natural log of the probability when the word
        is removed; negative for words that speak against the category.
    windows: those with the largest contributions, in descending order; empty without a CNN.
    """

    name: str
    probability: float
    effects: list[float]
    windows: list[Window]


class Explanation(NamedTuple):
    """A title, its words as they were written, and its most likely categories.

    known: for each word, whether its token is in the vocabulary; of others only n-grams are read, if at
        all.
    """

    title: str
    words: list[str]
    known: list[bool]
    categories: list[Category]


def explain(classifier: Classifier, title: str, top: int = 3) -> Explanation:
    """Explain the `top` most likely categories of a title.

    Without its only word, a title is read as one unknown word.

    Raises:
        ValueError: the title has no word, or top is less than 1.
    """
    if top < 1:
        raise ValueError(f"top is {top}: it must be at least 1")
    words, written = classifier.words(title), classifier.written(title)
    if not words:
        raise ValueError(f"the title {title[:80]!r} has no word: nothing to explain")
    without = [words[:place] + words[place + 1 :] for place in range(len(words))]
    # Row 0 is the title, row 1 + l the title without word l.
    probability_NC = classifier.probabilities(classifier.encode_words([words, *without]))
    log_NC = np.log(np.maximum(probability_NC, _LEAST))
    best_K = np.argsort(-probability_NC[0], kind="stable")[:top]
    categories = [
        Category(classifier.labels[category], probability, effects, windows)
        for category, probability, effects, windows in zip(
            best_K.tolist(),
            probability_NC[0, best_K].tolist(),
            (log_NC[0] - log_NC[1:]).T[best_K].tolist(),
            _windows(classifier, words, written, best_K),
            strict=True,
        )
    ]
    return Explanation(title, written, [classifier.knows(word) for word in words], categories)


def _windows(
    classifier: Classifier, words: list[str], written: list[str], categories_K: NDArray[np.int64]
) -> list[list[Window]]:
    networks = [network for network in classifier.networks if isinstance(network, TitleCNN)]
    if not networks:
        return [[] for _ in categories_K]
    (network,) = networks
    titles = classifier.encode_words([words])
    device = network.output.weight.device
    batch = Batcher(titles, network.embedding.subwords, device).batch(np.arange(1))
    with torch.no_grad():
        pooled_F, start_F = pooled(network.filters, network.embedding(batch), batch.index_BL[0])
    pooled_F.requires_grad_()
    logits_C = network.output(F.relu(network.hidden(pooled_F)))
    lengths_F = np.repeat(network.filters.lengths, len(pooled_F) // len(network.filters.lengths))
    ends_F = start_F.numpy(force=True) + lengths_F
    spans = [" ".join(written[start:end]) for start, end in zip(start_F.tolist(), ends_F, strict=True)]
    found = []
    for category in categories_K.tolist():
        (gradient_F,) = torch.autograd.grad(logits_C[category], pooled_F, retain_graph=True)
        sums = defaultdict[str, float](float)
        for span, added in zip(spans, (gradient_F * pooled_F).tolist(), strict=True):
            sums[span] += added
        ranked = sorted(sums.items(), key=lambda item: -item[1])[:_WINDOWS]
        found.append([Window(*item) for item in ranked if item[1] > 0])
    return found


def pooled(filters: WindowFilters, embedded_UD: Tensor, place_L: Tensor) -> tuple[Tensor, Tensor]:
    """The output of `filters` for one title, (F,), and the start of each maximal window.

    Args:
        embedded_UD: vectors of the distinct tokens, the first zero.
        place_L: rows of the tokens of the title; none is padding.
    """
    blocks = iter(filters.project(embedded_UD)[place_L].chunk(sum(filters.lengths), dim=1))
    greatest, starts = [], []
    for length in filters.lengths:
        # Projections of the n-th token of a window, shifted by n tokens, zero after the last token.
        moved = [F.pad(next(blocks)[n:], (0, 0, 0, min(n, len(place_L)))) for n in range(length)]
        best = torch.stack(moved).sum(dim=0).max(dim=0)
        greatest.append(best.values)
        starts.append(best.indices)
    return F.relu(torch.cat(greatest) + filters.bias_F), torch.cat(starts)
