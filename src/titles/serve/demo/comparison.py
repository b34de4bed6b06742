"""One title, answered by networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from titles.models.parts import saved
from titles.models.registry import NETWORKS
from titles.predict.classifier import Classifier
from titles.predict.explain import Explanation, explain

_CATEGORIES = 5


class Comparison:
    """Each network by itself and, of several, their average first.

    Nothing in it changes once it is made: threads may share one.

    longest: characters of a title that are read.

    Raises:
        ValueError: a folder is missing, damaged or of another format, or the networks were trained on
            different data.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        models = [saved.read(folder, NETWORKS) for folder in folders]
        device = torch.device("cpu")
        self._classifiers: dict[str, Classifier] = {}
        if len(models) > 1:
            self._classifiers["Average"] = Classifier(models, device)
        for model in models:
            self._classifiers[model.name.upper()] = Classifier([model], device)
        self.longest = models[0].text.max_title_chars

    def explain(self, title: str) -> dict[str, Explanation]:
        """The likeliest categories and what each word adds to them, by heading; empty for a title that
        holds no word."""
        (first, *_) = self._classifiers.values()
        if not first.words(title):
            return {}
        return {name: explain(each, title, _CATEGORIES) for name, each in self._classifiers.items()}


_loaded: list[Comparison] = []


def load(folders: Sequence[Path]) -> None:
    """Make what `loaded` gives; raises what `Comparison` does."""
    made = Comparison(folders)
    made.explain("a")  # loops are compiled now, not while the first visitor waits
    _loaded[:] = [made]


def loaded() -> Comparison:
    """The one of this process: Streamlit runs the page's script anew for each visitor and change."""
    (comparison,) = _loaded
    return comparison
