"""The trained networks and their average, as they are evaluated."""

from __future__ import annotations

from pathlib import Path

import torch

from titles.data.contract import LABELS, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes
from titles.data.vocabulary import Vocabulary, read_labels
from titles.models.parts import saved
from titles.models.parts.calibration import divide_logits
from titles.models.parts.inference import Seen, evaluate
from titles.models.registry import CLASSIFIERS, NETWORKS


class Classifiers:
    """The networks in the folder `models`, on a device, with the labels and words of data/prepared.

    Raises:
        ValueError: a network is missing or damaged, or was trained with other labels or words.
    """

    def __init__(self, models: Path, device: torch.device) -> None:
        self.labels, self.words = read_labels(LABELS), Vocabulary.read(VOCABULARY)
        self.models = {name: saved.read(models / name, NETWORKS) for name in NETWORKS}
        for name, model in self.models.items():
            if model.labels != self.labels or model.vocabulary != self.words:
                raise ValueError(
                    f"{models / name} was not trained on data/prepared as it is now: `dvc repro`"
                )
        self._device = device
        self._networks = [model.network.to(device) for model in self.models.values()]
        self._weight_M = saved.weights(list(self.models.values()))

    def outcomes(self, titles: EncodedTitles, seen: Seen | None = None) -> dict[str, Outcomes]:
        """Outcomes of each network and the average; `seen` is that of `inference.evaluate`."""
        found = evaluate(self._networks, titles, self._device, weight_M=self._weight_M, seen=seen)
        return dict(zip(CLASSIFIERS, found, strict=True))

    def as_trained(self, titles: EncodedTitles) -> dict[str, Outcomes]:
        """Outcomes of each network before calibration, which is taken away for good."""
        for model in self.models.values():
            divide_logits(model.network, 1 / model.temperature)
        found = evaluate(self._networks, titles, self._device)
        return dict(zip(NETWORKS, found, strict=True))
