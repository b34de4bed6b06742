"""Results of one classifier on one dataset with one seed, as files in .bench/results/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rows import Codes

from titles.data.files import atomic_file, write_json
from titles.data.outcomes import Flags, balanced_accuracy

_ARRAYS = ("labels_N", "predicted_N")


class Case(NamedTuple):
    """A dataset, and the seed of its splits and of all training on it."""

    name: str
    seed: int

    def __str__(self) -> str:
        return f"{self.name}-{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        return Path(".bench/results") / str(self)


@dataclass(frozen=True)
class Result:
    """A trained classifier on N titles of the test split.

    key: changes when it must be trained again. rows: equal for classifiers that used the same rows.
    validation: balanced accuracy. train_seconds: without the search for settings.
    setting, trials, budget: the best point of a peer's grid, all points, and the seconds within which
    a point could start. stages: seconds and MiB of our stages.
    curve: balanced accuracy on validation after each epoch. machine: processor, cores and Python.
    """

    key: str
    rows: str
    train_rows: int
    categories: int
    labels_N: Codes
    predicted_N: Codes
    validation: float
    train_seconds: float
    predict_seconds: float
    peak_mib: float
    size_bytes: int
    setting: Mapping[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    budget: float = 0
    stages: Mapping[str, list[float]] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    seconds: float = 0  # only of the fit
    machine: str = ""

    @property
    def right_N(self) -> Flags:
        return np.equal(self.predicted_N, self.labels_N)

    @property
    def test(self) -> float:
        """Balanced accuracy on the test split."""
        return balanced_accuracy(self.labels_N, self.right_N)


def write_result(case: Case, name: str, result: Result) -> None:
    """The JSON file is removed first and written last: if it exists, the result is complete."""
    _failure(case, name).unlink(missing_ok=True)
    (case.folder / f"{name}.json").unlink(missing_ok=True)
    with atomic_file(case.folder / f"{name}.npy") as partial, partial.open("wb") as stream:
        np.save(stream, np.stack([getattr(result, array) for array in _ARRAYS]))
    write_json(
        case.folder / f"{name}.json", {k: v for k, v in asdict(result).items() if k not in _ARRAYS}
    )


def write_failure(case: Case, name: str, error: str) -> None:
    """Keep why a classifier gave no result; an earlier result of it is removed."""
    (case.folder / f"{name}.json").unlink(missing_ok=True)
    _failure(case, name).parent.mkdir(parents=True, exist_ok=True)
    write_json(_failure(case, name), {"error": error})


def read_failure(case: Case, name: str) -> str | None:
    """Why there is no result, if that is known."""
    path = _failure(case, name)
    if not path.exists():
        return None
    return str(json.loads(path.read_text(encoding="utf-8"))["error"])


def _failure(case: Case, name: str) -> Path:
    return case.folder / f"{name}.failed.json"


def read_result(case: Case, name: str) -> Result | None:
    """The result, or None if there is none."""
    path = case.folder / f"{name}.json"
    if not path.exists():
        return None
    labels_N, predicted_N = np.load(path.with_suffix(".npy"), allow_pickle=False)
    values = json.loads(path.read_text(encoding="utf-8"))
    return Result(labels_N=labels_N, predicted_N=predicted_N, **values)
