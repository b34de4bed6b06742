"""Trained networks as an MLflow model that loads without this project.

This file is also the code of the model: MLflow stores it beside the model folders and a copy of the
package, and runs it when the model is loaded ("models from code"), so that nothing is pickled.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    # MLflow did. Predictions compute with torch, which reads the settings when it is imported below.
    warnings.filterwarnings("ignore", "numpy was imported before titles:", RuntimeWarning)
    import titles  # noqa: F401

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc import PyFuncModel, save_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from titles.listings import listing
from titles.models.parts import saved
from titles.models.registry import NETWORKS
from titles.predict.classifier import Classifier
from titles.serve.http_requests import read_by_us

MARK = "MLmodel"  # the file that marks an MLflow model
EXAMPLE = ["Funda Para Celular Samsung J7", "Celular Samsung J7 Con Funda"]
_TOP = 5
# Imports of the code that is stored with a model; a test compares.
_REQUIREMENTS = (
    *("fastapi", "mlflow", "numba", "numpy", "orjson", "pandas", "pyarrow", "pydantic", "PyYAML"),
    *("safetensors", "torch"),
)
_OUTPUTS: dict[str, Any] = {
    "category": Array(DataType.string),
    "probability": Array(DataType.double),
    "problem": DataType.string,
}
_SIGNATURE = ModelSignature(
    # Without a schema of inputs, by which MLflow would make a table of pandas, which fails for titles
    # that are not UTF-8 and for empty lists.
    outputs=Schema([ColSpec(kind, name) for name, kind in _OUTPUTS.items()]),
    params=ParamSchema(
        [ParamSpec("k", DataType.long, _TOP), ParamSpec("at_least", DataType.double, 0.0)]
    ),
)


class TitlesModel(PythonModel):
    """Predicts the most likely categories of titles, with their probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow when the model is loaded."""
        read_by_us()
        # MLflow sorts them by name; sums of floats depend on the order.
        known = [name for name in NETWORKS if name in context.artifacts]
        names = [*known, *(name for name in context.artifacts if name not in known)]
        self.load([Path(context.artifacts[name]) for name in names])

    def load(self, folders: Sequence[Path]) -> None:
        """Load the networks in these model folders; several are averaged.

        Raises:
            ValueError: a folder is missing or damaged, or they were trained on different data.
        """
        models = [saved.read(folder, NETWORKS) for folder in folders]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._classifier = Classifier(models, device)

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,  # MLflow warns of a type that says all that is taken
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Rank categories.

        Args:
            model_input: N titles: a list, a series or an array, or rows with titles in the first column,
                which is called title if it has a name. Of rows as lists, the first value is the title.
            params: k, number of categories, default 5; at_least, minimum probability of the best
                category, default 0: below it, no category is predicted and `problem` names it.

        Returns:
            N rows: the lists `category` and `probability`, best first, and `problem`. For a title
            without a prediction the lists are empty and `problem` gives the reason; otherwise it is "".

        Raises:
            ValueError: the first column has another name, k is less than 1, at_least is no probability,
                or columns differ in length.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        k, at_least = int(given.get("k", _TOP)), float(given.get("at_least", 0))
        if not 0 <= at_least <= 1:
            raise ValueError(f"at_least is {at_least:g}: a probability from 0 to 1 is expected")
        labels = self._classifier.labels
        rows: list[tuple[list[str], list[float], str]] = []
        for chunk in listing.of_titles(_titles_of(model_input)).chunks:
            ranked = self._classifier.top(chunk.titles, k)
            abstentions = ranked.abstentions(labels, at_least)
            answers = zip(ranked.categories_NK.tolist(), ranked.probabilities_NK.tolist(), strict=True)
            for place, (codes, shares) in enumerate(answers):
                problem = abstentions.get(place, "")
                if codes[0] < 0:
                    problem = chunk.problems.get(place, "no word")
                names = [labels[code] for code in codes]
                rows.append(([], [], problem) if problem else (names, shares, ""))
        return pd.DataFrame(rows, columns=list(_OUTPUTS))


def loaded(folders: Sequence[Path]) -> PyFuncModel:
    """These networks as MLflow loads them from an export, without writing one.

    Raises:
        ValueError: as `TitlesModel.load`.
    """
    model = TitlesModel()
    model.load(folders)

    class Implementation:
        def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
            return model.predict(None, data, params)

    flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model"}}
    return PyFuncModel(Model(signature=_SIGNATURE, flavors=flavors), Implementation())


def _titles_of(found: Any) -> list[Any]:
    """The titles of an input of a model, None where one is missing."""
    if isinstance(found, dict):
        found = pd.DataFrame(
            {k: v if isinstance(v, list) else [v] for k, v in found.items()}, dtype=object
        )
    if isinstance(found, pd.DataFrame):
        names = list(found.columns[:1])
        if any(isinstance(name, str) and name != "title" for name in names):
            raise ValueError(f"the first column is {names[0]!r}: titles must be in a column 'title'")
        titles = found.iloc[:, 0].astype(object).tolist() if names else [None] * len(found)
    elif isinstance(found, pd.Series):
        titles = found.astype(object).tolist()
    else:
        titles = np.atleast_1d(found).tolist() if isinstance(found, np.ndarray) else found
        titles = titles if isinstance(titles, list) else [titles]
        if titles and all(isinstance(row, list) for row in titles):
            titles = [row[0] if row else None for row in titles]
    # pandas has NaN for missing values.
    return [None if _is_missing(title) else title for title in titles]


def _is_missing(title: Any) -> bool:
    return title is pd.NA or title is pd.NaT or (isinstance(title, float) and title != title)


def write(folders: Sequence[Path], out: Path, model: Model | None = None) -> None:
    """Write the model folders, one per network, as one MLflow model into `out`, which is empty or does
    not exist. The caller decides on the store of MLflow, see `tracking.mlflow.as_default`: that is not
    needed where the model is loaded.

    Raises:
        ValueError: a folder is missing or damaged, of a format that this version does not read, or of a
            network that was trained on different data than the first, or MLflow refuses to write it.
    """
    trial = TitlesModel()
    trial.load(folders)
    trial.predict(None, pd.DataFrame(EXAMPLE))
    with tempfile.TemporaryDirectory() as place:
        # Files may be links into DVC's cache, which MLflow does not follow.
        copies = {f.name: shutil.copytree(f, Path(place, f.name)) for f in folders}
        try:
            save_model(
                str(out),
                mlflow_model=model,
                python_model=__file__,
                artifacts={name: str(copy) for name, copy in copies.items()},
                # The package is not in a registry: its code has to be included.
                code_paths=[str(Path(__file__).parents[1])],
                pip_requirements=requirements(),
                signature=_SIGNATURE,
                input_example=(EXAMPLE, {"k": _TOP, "at_least": 0.0}),
            )
        except MlflowException as error:
            raise ValueError(f"MLflow cannot write the model: {error.message}") from None


def requirements() -> list[str]:
    """Requirements of the model, pinned to the installed versions without local labels such as +cpu."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]


set_model(TitlesModel())
