"""The usual alternatives to our networks: real packages behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import Codes

from titles.params import Params

Setting = Mapping[str, Any]
Scores = NDArray[np.floating[Any]]

THREADS = 2  # or processes


class UnusableError(Exception):
    """A grid point gives no model."""


class Peer(ABC):
    """A classifier that holds one model at a time: that of the last `fit`.

    grid: its settings, the most promising first, since the search has a time limit.
    saved_seconds: time that its work would have taken longer without results kept on disk.
    """

    grid: Sequence[Setting]
    saved_seconds = 0.0

    @abstractmethod
    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        """Take the training rows, and do the work that does not depend on the setting."""

    @abstractmethod
    def fit(self, setting: Setting) -> None:
        """Train; raises UnusableError if the setting gives no model."""

    @abstractmethod
    def scores(self, titles: Sequence[str]) -> Scores:
        """(N, C) scores, -inf for categories without a training row."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of the model as its package stores it."""

    def is_probabilistic(self, setting: Setting) -> bool:
        """Whether `scores` are logarithms of probabilities, so that shares can be divided out."""
        return True

    def predict(self, titles: Sequence[str], log_shares_C: NDArray[np.float64] | None = None) -> Codes:
        """The best category of each title, after division by these shares."""
        scores_NC = self.scores(titles)
        best: Codes = (scores_NC if log_shares_C is None else scores_NC - log_shares_C).argmax(axis=1)
        return best


def log_shares(labels: Codes, categories: int) -> NDArray[np.float64]:
    """Logarithms of the categories' shares of the rows; finite for one without a row, which no
    classifier chooses."""
    rows_C = np.bincount(labels, minlength=categories)
    shares: NDArray[np.float64] = np.log(np.maximum(rows_C, 1) / len(labels))
    return shares


def make(name: str, params: Params) -> Peer:
    """A classifier of classifiers.PEERS. Only its own packages are imported.

    Raises:
        ImportError: its package is not installed.
        KeyError: there is no such classifier.
    """
    text, seed = params.prepare.text, params.seed
    if name in ("fasttext", "turbo", "fastertext"):
        import peers_fasttext

        if name == "fastertext":
            return peers_fasttext.FasterText(text, seed)
        package = {"fasttext": "fasttext", "turbo": "fasttext-turbo"}[name]
        return peers_fasttext.FastText(text, seed, package)
    if name in ("wabbit", "napkin"):
        import peers_many

        return peers_many.Wabbit(text, seed) if name == "wabbit" else peers_many.Napkin(seed)
    if name in ("encoder", "hybrid"):
        import peers_encoder

        return peers_encoder.Encoded(seed) if name == "encoder" else peers_encoder.Hybrid(seed)
    import peers_linear

    return peers_linear.KINDS[name](seed)
