"""Which words of a title carry a classifier's decision.

Two methods. Occlusion (Zeiler and Fergus, 2014, arXiv:1311.2901), for networks of any kind: a word is
left out and the title classified again. And gradient x activation of the pooled filters (as in Grad-CAM,
Selvaraju et al., 2017, arXiv:1610.02391), for the CNN: the gradient of a category's logit by the
greatest response of each filter, times that response, is put down to the window that gave it.

Legend: L words of the title, K categories explained, C categories, D dimensions, F filters of all
lengths, U distinct words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from titles.data.batching import Batcher
from titles.models.cnn import TitleCNN, WindowFilters
from titles.predict.classifier import Classifier

# Windows told a category.
_WINDOWS = 3
_LEAST = float(np.finfo(np.float32).tiny)


class Window(NamedTuple):
    """Words that filters responded to, and what they add to the category's logit."""

    words: str
    contribution: float


class Category(NamedTuple):
    """What speaks for a category.

    effects: for each word of the title by how much the natural log of the category's probability falls
        when that word is left out; negative where the word speaks against the category.
    windows: those that add most, the greatest first; none without a CNN.
    """

    name: str
    probability: float
    effects: list[float]
    windows: list[Window]


class Explanation(NamedTuple):
    """A title as it was given, its words as the networks read them, and its likeliest categories.

    known: whether the vocabulary has the word; of the others only letters were read, if at all.
    """

    title: str
    words: list[str]
    known: list[bool]
    categories: list[Category]


def explain(classifier: Classifier, title: str, top: int = 3) -> Explanation:
    """Explain the `top` likeliest categories of a title.

    Where a title has one word, what is left without it is taken for one unknown word.

    Raises:
        ValueError: the title holds no word, or top is less than 1.
    """
    if top < 1:
        raise ValueError(f"top is {top}: at least one category must be wanted")
    words = classifier.words(title)
    if not words:
        raise ValueError(f"there is no word in the title {title[:80]!r}: nothing to explain")
    without = [words[:place] + words[place + 1 :] for place in range(len(words))]
    # Row 0 is the title, row 1 + l the title without word l.
    probability_NC = classifier.probabilities(classifier.encode_words([words, *without]))
    log_NC = np.log(np.maximum(probability_NC, _LEAST))
    fall_LC = log_NC[0] - log_NC[1:]
    best_K = np.argsort(-probability_NC[0], kind="stable")[:top]
    windows = _windows(classifier, words, best_K)
    return Explanation(
        title,
        words,
        [classifier.knows(word) for word in words],
        [
            Category(
                classifier.labels[category],
                float(probability_NC[0, category]),
                fall_LC[:, category].tolist(),
                windows[place],
            )
            for place, category in enumerate(best_K.tolist())
        ],
    )


def _windows(
    classifier: Classifier, words: list[str], categories_K: NDArray[np.int64]
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
    spans = [
        " ".join(words[start : start + length])
        for start, length in zip(start_F.tolist(), lengths_F.tolist(), strict=True)
    ]
    found = []
    for category in categories_K.tolist():
        (gradient_F,) = torch.autograd.grad(logits_C[category], pooled_F, retain_graph=True)
        sums: dict[str, float] = {}
        for span, added in zip(spans, (gradient_F * pooled_F).tolist(), strict=True):
            sums[span] = sums.get(span, 0) + added
        ranked = sorted(sums.items(), key=lambda item: -item[1])[:_WINDOWS]
        found.append([Window(*item) for item in ranked if item[1] > 0])
    return found


def pooled(filters: WindowFilters, embedded_UD: Tensor, place_L: Tensor) -> tuple[Tensor, Tensor]:
    """What `filters` gives for one title, (F,), and the word at which each greatest window starts.

    Args:
        embedded_UD: vectors of the distinct words, after one of zeros at place 0.
        place_L: places of the title's words; none is padding.
    """
    blocks = iter(filters.project(embedded_UD)[place_L].chunk(sum(filters.lengths), dim=1))
    greatest, starts = [], []
    for length in filters.lengths:
        # The block of a window's n-th word, moved up by n words; zeros past the title's last word.
        moved = [F.pad(next(blocks)[n:], (0, 0, 0, min(n, len(place_L)))) for n in range(length)]
        best = torch.stack(moved).sum(dim=0).max(dim=0)
        greatest.append(best.values)
        starts.append(best.indices)
    return F.relu(torch.cat(greatest) + filters.bias_F), torch.cat(starts)
