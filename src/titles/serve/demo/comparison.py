"""Predictions of several networks for one title, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from titles.models.parts import saved
from titles.models.registry import NETWORKS
from titles.predict.classifier import Classifier
from titles.predict.explain import Explanation, explain


class Comparison:
    """Each network and, if there are several, their average first. Immutable: threads can share it.

    max_title_chars: titles are cut to this length.

    Raises:
        ValueError: a folder is missing, damaged or of a different format, or the networks were trained
            on different data.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        models = [saved.read(folder, NETWORKS) for folder in folders]
        shown = {"Average": models} if len(models) > 1 else {}
        shown |= {model.name.upper(): [model] for model in models}
        cpu = torch.device("cpu")
        self._classifiers = {name: Classifier(averaged, cpu) for name, averaged in shown.items()}
        self.max_title_chars = models[0].text.max_title_chars

    def explain(self, title: str) -> dict[str, Explanation]:
        """The likeliest categories with the effect of each word, by heading; empty for a title without
        words."""
        if not next(iter(self._classifiers.values())).words(title):
            return {}
        return {name: explain(each, title, top=5) for name, each in self._classifiers.items()}


# The one of this process: Streamlit reruns the page's script for each visitor and change.
loaded: list[Comparison] = []
