"""Trained networks in other programs: what `titles.load` returns."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from titles.evaluation.sets import covering
from titles.models.registry import AVERAGE
from titles.predict.answers import Answer, answers
from titles.predict.classifier import Classifier
from titles.predict.explain import Explanation, explain


class Predictor:
    """A trained network, or the average of all, for titles as they come. Threads can share one.

    Args:
        models: the folder with a folder for each network. model: the name of one, or "average".
        device: of torch, "cpu" or "cuda".

    Raises:
        ValueError: the network is unknown, or its folder is missing, damaged or of another format.
    """

    def __init__(
        self, models: str | os.PathLike[str] = "models", model: str = AVERAGE, device: str = "cpu"
    ) -> None:
        self._models, self._name = Path(models), model
        self._classifier = Classifier.read(self._models, model, torch.device(device))

    @property
    def labels(self) -> list[str]:
        """The names of all categories."""
        return [*self._classifier.labels]

    def predict(self, titles: Iterable[str], *, top: int = 5, at_least: float = 0.0) -> list[Answer]:
        """The `top` most likely categories of each title.

        Args:
            at_least: a title whose likeliest category has a lower probability gets none, and a problem.

        Raises:
            TypeError: titles are one text. ValueError: top is less than 1, or at_least no probability.
        """
        return [*answers(self._classifier, _listed(titles), top, at_least)]

    def cover(self, titles: Iterable[str], probability: float = 0.95) -> list[Answer]:
        """The smallest set of categories of each title that holds the right one with this probability,
        from 0.5 to 0.99, on average over titles like those that were measured: see docs/confidence.md.

        Raises:
            TypeError: titles are one text. ValueError: there are no sets for these networks, or they
                prove no such probability.
        """
        threshold_C = covering(self._models, self._name, probability)
        return [*answers(self._classifier, _listed(titles), threshold_C)]

    def explain(self, title: str, *, top: int = 3) -> Explanation:
        """What each word of a title contributes to its `top` most likely categories.

        Raises:
            ValueError: the title has no word, or top is less than 1.
        """
        return explain(self._classifier, title, top)


def _listed(titles: Iterable[str]) -> list[str]:
    if isinstance(titles, str):
        raise TypeError("titles are one text: put it in a list")
    return [*titles]
