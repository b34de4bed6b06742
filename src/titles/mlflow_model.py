"""A trained network as an MLflow model, which anyone with MLflow can load, without this project.

This file is the model's code as well: MLflow keeps it beside the model's folder and a copy of the
package, and runs it when the model is loaded ("models from code"), so that nothing is pickled.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from titles.models import saved
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.predict import Classifier

COLUMN = "title"
EXAMPLE = ["Funda Para Celular Samsung J7", "Celular Samsung J7 Con Funda"]
_ARTIFACT = "model"
_TOP = 5
# What the code that travels with a model imports; a test compares.
_REQUIREMENTS = ("mlflow", "numba", "numpy", "pandas", "pydantic", "PyYAML", "safetensors", "torch")
_SIGNATURE = ModelSignature(
    # Without a name, so that a plain list is taken as well as a table.
    inputs=Schema([ColSpec(DataType.string)]),
    outputs=Schema(
        [ColSpec(Array(DataType.string), "category"), ColSpec(Array(DataType.double), "probability")]
    ),
    params=ParamSchema([ParamSpec("k", DataType.long, _TOP)]),
)


class TitlesModel(PythonModel):
    """Titles in, for each the likeliest categories and their probabilities out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow when the model is loaded."""
        self.load(Path(context.artifacts[_ARTIFACT]))

    def load(self, folder: Path) -> None:
        """Take the network in the model folder; raises ValueError if it is missing or damaged."""
        model = saved.read(folder, {"cnn": TitleCNN, "mlp": TitleMLP})
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._classifier = Classifier([model], device)

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Rank categories.

        Args:
            model_input: N rows, titles in the first column, which is named title where it has a name.
            params: k, how many categories to give, 5 unless told.

        Returns:
            N rows of two columns of lists, best first: `category` and `probability`. Both lists are
            empty for a title that holds no word.

        Raises:
            ValueError: the first column is another one, or k is less than 1.
        """
        name = model_input.columns[0]
        if isinstance(name, str) and name != COLUMN:
            raise ValueError(f"the first column is {name!r}: titles must be in a column {COLUMN!r}")
        titles = model_input.iloc[:, 0].tolist()
        ranked = self._classifier.top(titles, int((params or {}).get("k", _TOP)))
        labels = self._classifier.labels
        rows = [
            ([labels[code] for code in codes], shares) if codes[0] >= 0 else ([], [])
            for codes, shares in zip(
                ranked.categories_NK.tolist(), ranked.probabilities_NK.tolist(), strict=True
            )
        ]
        return pd.DataFrame(rows, columns=["category", "probability"])


def write(folder: Path, out: Path, model: Model | None = None) -> None:
    """Write the model folder `folder` as an MLflow model into `out`, a folder that does not exist.

    Raises:
        ValueError: `folder` is missing or damaged, or of a format that this code does not read.
    """
    trial = TitlesModel()
    trial.load(folder)
    trial.predict(None, pd.DataFrame(EXAMPLE))
    save_model(
        str(out),
        mlflow_model=model,
        python_model=__file__,
        artifacts={_ARTIFACT: str(folder)},
        # The package is in no registry, so that its code has to come along.
        code_paths=[str(Path(__file__).parent)],
        pip_requirements=requirements(),
        signature=_SIGNATURE,
        input_example=(EXAMPLE, {"k": _TOP}),
    )


def requirements() -> list[str]:
    """What the model needs, pinned to the versions here; a local one such as +cpu is in no registry."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]


set_model(TitlesModel())
