"""Predictions of several networks for one title, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from titles.models.parts import saved
from titles.models.registry import AVERAGE, NETWORKS
from titles.predict.classifier import Classifier
from titles.predict.confidence import Threshold, thresholds
from titles.predict.explain import Explanation, explain
from titles.serve.demo.examples import examples


class Answer(NamedTuple):
    """What one model says on a title. threshold: None if none is known."""

    explanation: Explanation
    threshold: Threshold | None


class Comparison:
    """Each network and, if there are several, their average first. Immutable: threads can share it.

    max_title_chars: titles are cut to this length.
    examples: titles to try and their languages, see `examples.py`.

    Args:
        folders: of the networks, in the same folder.
        at_least: the threshold of all; by default each has its own, see `predict/confidence.py`.

    Raises:
        ValueError: a folder is missing, damaged or of a different format, or the networks were trained
            on different data.
    """

    def __init__(self, folders: Sequence[Path], at_least: float | None = None) -> None:
        models = [saved.read(folder, NETWORKS) for folder in folders]
        shown = {AVERAGE: models} if len(models) > 1 else {}
        shown |= {model.name: [model] for model in models}
        cpu = torch.device("cpu")
        self._classifiers = {name: Classifier(averaged, cpu) for name, averaged in shown.items()}
        if at_least is None:
            self._thresholds = thresholds(folders[0].parent)
        else:
            self._thresholds = dict.fromkeys(shown, Threshold(at_least))
        self.max_title_chars = models[0].text.max_title_chars
        self.examples = examples(folders[0].parent, models[0])

    def explain(self, title: str) -> dict[str, Answer]:
        """The likeliest categories with the effect of each word, by the name of the network or AVERAGE;
        empty for a title without words."""
        if not next(iter(self._classifiers.values())).words(title):
            return {}
        return {
            name: Answer(explain(each, title, top=5), self._thresholds.get(name))
            for name, each in self._classifiers.items()
        }


# The one of this process: Streamlit reruns the page's script for each visitor and change.
loaded: list[Comparison] = []
