"""Trained networks as an MLflow model, which anyone with MLflow can load, without this project.

This file is the model's code as well: MLflow keeps it beside the models' folders and a copy of
the package, and runs it when the model is loaded ("models from code"), so that nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array

from titles.listings import listing
from titles.models.parts import saved
from titles.models.registry import NETWORKS
from titles.predict.classifier import Classifier

MARK = "MLmodel"  # the file by which an MLflow model is known
COLUMN = "title"
EXAMPLE = ["Funda Para Celular Samsung J7", "Celular Samsung J7 Con Funda"]
_TOP = 5
# What the code that travels with a model imports; a test compares.
_REQUIREMENTS = ("mlflow", "numba", "numpy", "pandas", "pydantic", "PyYAML", "safetensors", "torch")
_SIGNATURE = ModelSignature(
    # Without a name, so that a plain list is taken as well as a table. Titles are text, but where a
    # signature says so MLflow's server makes a list of them an array as wide as the longest title, in
    # which null is the word "None".
    inputs=Schema([ColSpec(AnyType())]),  # type: ignore[no-untyped-call]
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "category"),
            ColSpec(Array(DataType.double), "probability"),
            ColSpec(DataType.string, "problem"),
        ]
    ),
    params=ParamSchema(
        [ParamSpec("k", DataType.long, _TOP), ParamSpec("at_least", DataType.double, 0.0)]
    ),
)


class TitlesModel(PythonModel):
    """Titles in, for each the likeliest categories and their probabilities out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow when the model is loaded."""
        self.load([Path(folder) for folder in context.artifacts.values()])

    def load(self, folders: Sequence[Path]) -> None:
        """Take the networks in these model folders; of several, their mean logits count.

        Raises:
            ValueError: one is missing or damaged, or they were trained on different data.
        """
        models = [saved.read(folder, NETWORKS) for folder in folders]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._classifier = Classifier(models, device)

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Rank categories.

        Args:
            model_input: N rows, titles in the first column, which is named title where it has a name.
            params: k, how many categories to give, 5 unless told; at_least, a probability below which
                a title's likeliest category is not given, but told in `problem`, 0 unless told.

        Returns:
            N rows: the lists `category` and `probability`, best first, and `problem`. Of a title that
            has no category the lists are empty, and the problem says why; otherwise it is "".

        Raises:
            ValueError: the first column is another one, or k is less than 1.
        """
        name = model_input.columns[0]
        if isinstance(name, str) and name != COLUMN:
            raise ValueError(f"the first column is {name!r}: titles must be in a column {COLUMN!r}")
        given = params or {}
        k, at_least = int(given.get("k", _TOP)), float(given.get("at_least", 0))
        if not 0 <= at_least <= 1:
            raise ValueError(f"at_least is {at_least:g}: a probability from 0 to 1 is expected")
        column = model_input.iloc[:, 0].astype(object)
        labels = self._classifier.labels
        rows: list[tuple[list[str], list[float], str]] = []
        # pandas has NaN for what is missing.
        for chunk in listing.of_titles(column.where(column.notna(), None).tolist()).chunks:
            ranked = self._classifier.top(chunk.titles, k)
            abstentions = ranked.abstentions(labels, at_least)
            answers = zip(ranked.categories_NK.tolist(), ranked.probabilities_NK.tolist(), strict=True)
            for place, (codes, shares) in enumerate(answers):
                if place in abstentions:
                    rows.append(([], [], abstentions[place]))
                elif codes[0] >= 0:
                    rows.append(([labels[code] for code in codes], shares, ""))
                else:
                    rows.append(([], [], chunk.problems.get(place, "no word")))
        return pd.DataFrame(rows, columns=["category", "probability", "problem"])


def write(folders: Sequence[Path], out: Path, model: Model | None = None) -> None:
    """Write the model folders as one MLflow model into `out`, a folder that is empty or not there.

    Args:
        folders: each with another architecture's name; of several networks the mean counts.

    Raises:
        ValueError: a folder is missing or damaged, of a format that this code does not read, or of a
            network that was trained on other data than the first.
    """
    trial = TitlesModel()
    trial.load(folders)
    trial.predict(None, pd.DataFrame(EXAMPLE))
    save_model(
        str(out),
        mlflow_model=model,
        python_model=__file__,
        artifacts={folder.name: str(folder) for folder in folders},
        # The package is in no registry, so that its code has to come along.
        code_paths=[str(Path(__file__).parents[1])],
        pip_requirements=requirements(),
        signature=_SIGNATURE,
        input_example=(EXAMPLE, {"k": _TOP, "at_least": 0.0}),
    )


def requirements() -> list[str]:
    """What the model needs, pinned to the versions here; a local one such as +cpu is in no registry."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]


set_model(TitlesModel())
