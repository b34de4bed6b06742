"""Marketplace listing titles into categories.

    from titles import load

    model = load("models")
    model.predict(["Funda Para Celular Samsung J7"])

`load`, and what `Predictor` and `Answer` have, is the public face of the package; all else may change.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Before numpy and torch, which read its settings when they are imported.
from titles.data import processor as _processor  # noqa: F401

if TYPE_CHECKING:  # loads torch
    from titles.predict.library import Predictor

__all__ = ["load"]


def load(
    models: str | os.PathLike[str] = "models", model: str = "average", device: str = "cpu"
) -> Predictor:
    """Load trained networks; see `titles.predict.library.Predictor`.

    Args:
        models: the folder with a folder for each network. model: the name of one, or "average".
        device: of torch, "cpu" or "cuda".

    Raises:
        ValueError: the network is unknown, or its folder is missing, damaged or of another format.
    """
    from titles.predict.library import Predictor

    return Predictor(models, model, device)
