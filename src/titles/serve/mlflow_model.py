"""Trained networks as an MLflow model that loads without this project.

This file is also the code of the model: MLflow stores it beside the model folders and a copy of the
package, and runs it when the model is loaded ("models from code"), so that nothing is pickled.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
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
from numpy.typing import NDArray

from titles.data.contract import SETS_FILE
from titles.evaluation.sets import LEAST, MOST, Sets
from titles.models.parts import saved
from titles.models.registry import AVERAGE, NETWORKS
from titles.predict.answers import answers
from titles.predict.classifier import Classifier
from titles.serve.http_requests import MOST_CATEGORIES, read_by_us

MARK = "MLmodel"  # the file that marks an MLflow model
EXAMPLE = ["Funda Para Celular Samsung J7", "Celular Samsung J7 Con Funda"]
_TOP = 5
_SETS = "sets"  # among the artifacts, beside the networks
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
        [
            ParamSpec("k", DataType.long, _TOP),
            ParamSpec("at_least", DataType.double, 0.0),
            ParamSpec("cover", DataType.double, 0.0),
        ]
    ),
)


class TitlesModel(PythonModel):
    """Predicts the most likely categories of titles, with their probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow when the model is loaded."""
        read_by_us()
        # MLflow sorts them by name; sums of floats depend on the order.
        known = [name for name in NETWORKS if name in context.artifacts]
        names = [*known, *(name for name in context.artifacts if name not in (*known, _SETS))]
        sets = context.artifacts.get(_SETS)
        self.load([Path(context.artifacts[name]) for name in names], Path(sets) if sets else None)

    def load(self, folders: Sequence[Path], sets: Path | None = None) -> None:
        """Load the networks in these model folders; several are averaged.

        Args:
            sets: the file of their sets, if there is one.

        Raises:
            ValueError: a folder is missing or damaged, or they were trained on different data.
        """
        models = [saved.read(folder, NETWORKS) for folder in folders]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._classifier = Classifier(models, device)
        self._covering = None
        if sets:
            name = AVERAGE if len(models) > 1 else models[0].name
            # Kept by level: networks are compared with the file each time that it is asked.
            self._covering = lru_cache(partial(Sets.read(sets).of, name, folders))

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
                category, default 0: below it, no category is predicted and `problem` names it; cover,
                from 0.5 to 0.99: in place of k categories, the smallest set that holds the right one
                with this probability.

        Returns:
            N rows: the lists `category` and `probability`, best first, and `problem`. For a title
            without a prediction the lists are empty and `problem` gives the reason; otherwise it is "".

        Raises:
            ValueError: the first column has another name, k is less than 1, at_least is no probability,
                columns differ in length, or cover is out of range, stands beside k or at_least, or the
                model has no sets for it.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        k, at_least = int(given.get("k", _TOP)), float(given.get("at_least", 0))
        threshold_C = self._thresholds(float(given.get("cover", 0)), k, at_least)
        wanted = k if threshold_C is None else threshold_C
        rows: list[tuple[list[str], list[float], str]] = []
        size = 0
        for answer in answers(self._classifier, _titles_of(model_input), wanted, at_least):
            size += len(answer.categories)
            if threshold_C is not None and size > MOST_CATEGORIES:  # not known before, as that of k is
                raise ValueError(
                    f"the sets hold more than {MOST_CATEGORIES} categories: send fewer titles"
                )
            rows.append((answer.categories, answer.probabilities, answer.problem))
        return pd.DataFrame(rows, columns=list(_OUTPUTS))

    def _thresholds(self, cover: float, k: int, at_least: float) -> NDArray[np.float32] | None:
        """The threshold of each category; None without `cover`."""
        if not cover:
            return None
        if not LEAST <= cover <= MOST:
            raise ValueError(f"cover is {cover:g}: a number from {LEAST:g} to {MOST:g} is expected")
        if k != _TOP or at_least:
            raise ValueError("cover and k or at_least exclude each other: a set that is cut covers less")
        if self._covering is None:
            raise ValueError("the model has no sets of answers: it was exported without them")
        return self._covering(cover)


def loaded(folders: Sequence[Path]) -> PyFuncModel:
    """These networks as MLflow loads them from an export, without writing one.

    Raises:
        ValueError: as `TitlesModel.load`.
    """
    model = TitlesModel()
    model.load(folders, _sets_of(folders))

    class Implementation:
        def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
            return model.predict(None, data, params)

    flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model"}}
    return PyFuncModel(Model(signature=_SIGNATURE, flavors=flavors), Implementation())


def _sets_of(folders: Sequence[Path]) -> Path | None:
    """The file of the sets of these networks, which stands beside their folders where there is one."""
    file = folders[0].parent / SETS_FILE
    return file if file.is_file() else None


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
    sets = _sets_of(folders)
    trial.load(folders, sets)
    trial.predict(None, pd.DataFrame(EXAMPLE))
    with tempfile.TemporaryDirectory() as place:
        # Files may be links into DVC's cache, which MLflow does not follow.
        copies = {f.name: shutil.copytree(f, Path(place, f.name)) for f in folders}
        if sets:
            copies[_SETS] = Path(shutil.copy(sets, Path(place, SETS_FILE)))
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
                input_example=(EXAMPLE, {"k": _TOP, "at_least": 0.0, "cover": 0.0}),
            )
        except MlflowException as error:
            raise ValueError(f"MLflow cannot write the model: {error.message}") from None


def requirements() -> list[str]:
    """Requirements of the model, pinned to the installed versions without local labels such as +cpu."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]


set_model(TitlesModel())
