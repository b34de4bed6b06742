"""From which probability on an answer is sure: the thresholds that `evaluate` chose on validation.

They are in metrics/details.json, beside the folder `models` of a project: the average has one of its
own, which no network's folder could hold.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from titles.data.contract import METRICS, MODELS
from titles.data.documents import DocumentError, read_json

_DETAILS = METRICS / "details.json"


class Threshold(NamedTuple):
    """The probability from which an answer counts as sure.

    precision: share of the test titles at or above it whose answer is right; None if it is not measured.
    """

    probability: float
    precision: float | None = None

    def accepts(self, probability: float) -> bool:
        """Whether an answer of this probability is sure."""
        return probability >= self.probability


def thresholds(models: Path) -> dict[str, Threshold]:
    """The thresholds of a project's models, by the name of the network or the average.

    Those that validation did not prove are left out; there are none beside models that were exported or
    copied elsewhere. Metrics that cannot be read are told on the standard error.
    """
    folder = models.resolve()
    file = folder.parent / _DETAILS
    if folder.name != MODELS.name or not file.is_file():
        return {}
    try:
        found = {}
        for name, measured in read_json(file)["models"].items():
            probability, precision = measured["threshold"], measured.get("precision_kept")
            if not (0 <= probability <= 1 and (precision is None or 0 <= precision <= 1)):
                raise ValueError(f"threshold {probability!r}, precision {precision!r}")
            if probability < 1:
                found[name] = Threshold(probability, precision)
    except (DocumentError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        print(f"warning: {file} has no thresholds that can be read ({reason})", file=sys.stderr)
        return {}
    return found
