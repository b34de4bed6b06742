"""Sets of categories that hold the right one with a given probability: split conformal prediction.

A category is in the set of a title if its score is at least the threshold of its group. The score is the
probability of the category (Sadinle, Lei and Wasserman, 2019, "Least ambiguous set-valued classifiers
with bounded error levels"), and 1 for the most likely one, so that no set is empty. A group has
categories with similar numbers of rows, and a threshold from the calibration rows of its own (Vovk,
2012, "Conditional validity of inductive conformal predictors"): rare categories are not the ones left
out.

For a level P and a group of n calibration rows, the threshold is the ceil((n + 1) P)-th highest score of
the true category. Where titles are exchangeable with those of calibration, the true category of a title
of that group is in the set with a probability of at least P and, without ties, at most P + 1 / (n + 1);
more only where the most likely category is right more often.

Legend: N titles, C categories, G groups, B titles of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from titles.data.contract import SETS_FILE
from titles.data.documents import DocumentError, read_json
from titles.data.files import write_json
from titles.data.outcomes import Flags, Floats, Ints
from titles.data.problems import described
from titles.models.registry import AVERAGE, NETWORKS

if TYPE_CHECKING:  # loads torch
    from torch import Tensor

    from titles.data.encoded import EncodedTitles

Scores = NDArray[np.float32]

# Whole numbers: a product of floats can lie above the whole number that it stands for.
_PERCENTS = range(50, 100)
LEAST, MOST = _PERCENTS[0] / 100, _PERCENTS[-1] / 100
REPORTED = 0.95  # the level of metrics/details.json
_TENTHS = 10  # also the most groups
_FILES = ("weights.safetensors", "model.json")  # what decides the probabilities of a network

Threshold = Annotated[float, Field(ge=0, le=1)]


class Sets(BaseModel):
    """The thresholds of each model, as they are in models/sets.json.

    levels: the levels offered, increasing; none if there are too few calibration rows. groups: the group
    of each category. rows: calibration rows of each group. thresholds: for each network and the average,
    a list for each level with the threshold of each group. networks: `fingerprint` of each network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    levels: list[Annotated[float, Field(gt=0, lt=1)]]
    groups: list[int]
    rows: list[int]
    thresholds: dict[str, list[list[Threshold]]]
    networks: dict[str, str]

    @model_validator(mode="after")
    def _parts_fit(self) -> Sets:
        if sorted(set(self.levels)) != self.levels:
            raise ValueError("levels do not increase")
        if any(not 0 <= group < len(self.rows) for group in self.groups):
            raise ValueError("a category has a group that does not exist")
        for name, lists in self.thresholds.items():
            if [len(values) for values in lists] != [len(self.rows)] * len(self.levels):
                raise ValueError(f"thresholds of {name} are not one for each level and group")
        return self

    def write(self, path: Path) -> None:
        """Write JSON that `read` reads."""
        write_json(path, self.model_dump())

    @staticmethod
    def read(path: Path) -> Sets:
        """Read a file of `write`.

        Raises:
            ValueError: it is missing or damaged.
        """
        try:
            return Sets.model_validate(read_json(path))
        except FileNotFoundError:
            raise ValueError(
                f"{path} is missing, which has the sets of answers: run `dvc repro`, or `dvc pull`"
            ) from None
        except ValidationError as error:
            reason = "; ".join(described(error, Sets, {}))[:300]
            raise ValueError(f"{path} is damaged: {reason}") from None
        except (DocumentError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None

    def of(self, name: str, folders: Sequence[Path], level: float) -> Scores:
        """The threshold of each category, (C,), at the lowest level offered that is at least `level`.

        Args:
            name: a network or the average. folders: those of its networks.

        Raises:
            ValueError: no level is high enough, or these are not the networks that were evaluated.
        """
        known = {folder.name: self.networks.get(folder.name) for folder in folders}
        of_all = name != AVERAGE or known.keys() == self.networks.keys()
        if name not in self.thresholds or not of_all:
            raise ValueError(f"there are no sets of answers for the model {name} of {', '.join(known)}")
        for folder in folders:
            if known[folder.name] != fingerprint(folder):
                raise ValueError(f"the sets of answers are not those of {folder}: `dvc repro evaluate`")
        if not self.levels:
            raise ValueError(
                "there are no sets of answers, since the calibration split has too few titles: see "
                "prepare.calibration_share in params.yaml"
            )
        high = [place for place, offered in enumerate(self.levels) if offered >= level]
        if not high:
            raise ValueError(
                f"{level:g} cannot be covered: {self.levels[-1]:g} is the most that "
                f"{min(self.rows):,} titles of calibration prove"
            )
        return np.array(self.thresholds[name][high[0]], np.float32)[self.groups]


def covering(models: Path, name: str, level: float) -> Scores:
    """The threshold of each category for a network in the folder `models`, or the average of all.

    Raises:
        ValueError: as `Sets.read` and `Sets.of`.
    """
    folders = [models / each for each in (NETWORKS if name == AVERAGE else [name])]
    return Sets.read(models / SETS_FILE).of(name, folders, level)


def fingerprint(folder: Path) -> str:
    """A hash of what decides the probabilities of a saved network.

    Raises:
        ValueError: a file is missing.
    """
    found = hashlib.sha256()
    for name in _FILES:
        try:
            with (folder / name).open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        except FileNotFoundError:
            raise ValueError(f"{folder / name} is missing: run `dvc repro`, or `dvc pull`") from None
    return found.hexdigest()


def scores(probability_BC: Scores) -> Scores:
    """The score of each category, (B, C)."""
    score_BC = probability_BC.copy()
    score_BC[np.arange(len(score_BC)), score_BC.argmax(axis=1)] = 1
    return score_BC


class Scored:
    """Scores of titles with known categories by each model; a function of the batches that
    `inference.evaluate` computes.

    Args:
        thresholds: of each category, (C,), by model; the sizes of the sets are counted with them.
    """

    def __init__(
        self, names: Sequence[str], titles: EncodedTitles, thresholds: Mapping[str, Scores] | None = None
    ) -> None:
        self.labels_N = titles.labels.astype(np.int64)
        self.true = {name: np.empty(len(titles), np.float32) for name in names}
        self.sizes = {name: np.zeros(len(titles), np.int64) for name in names}
        self.thresholds = thresholds or {}

    def __call__(self, rows: NDArray[np.int64], probabilities: Sequence[Tensor]) -> None:
        for (name, true_N), probability_BC in zip(self.true.items(), probabilities, strict=True):
            score_BC = scores(probability_BC.cpu().numpy())
            true_N[rows] = score_BC[np.arange(len(rows)), self.labels_N[rows]]
            if name in self.thresholds:
                self.sizes[name][rows] = (score_BC >= self.thresholds[name]).sum(axis=1)

    def covered(self, name: str) -> Flags:
        """Whether the set of each title holds its category, (N,)."""
        found: Flags = self.true[name] >= self.thresholds[name][self.labels_N]
        return found


def rank(rows: int, level: float) -> int:
    """The place of the threshold among the scores of a group, from 1; more than `rows` if they are too
    few."""
    return -(-(rows + 1) * round(level * 100) // 100)


def groups(train_C: Ints, rows_C: Ints) -> Ints:
    """The group of each category, (C,), from 0, the rarest: at most ten of about as many categories.

    Neighbours are merged until each group has enough rows for the highest level; one group is left if
    there are too few rows in all.

    Args:
        train_C, rows_C: rows of each category in train and in calibration.
    """
    enough = next(rows for rows in range(1, 100_000) if rank(rows, MOST) <= rows)
    merged: list[Ints] = []
    waiting = np.empty(0, np.int64)
    for part in tenths(train_C):
        waiting = np.append(waiting, part)
        if rows_C[waiting].sum() >= enough:
            merged.append(waiting)
            waiting = np.empty(0, np.int64)
    if len(waiting) and merged:
        merged[-1] = np.append(merged[-1], waiting)
    elif len(waiting):
        merged = [waiting]
    group_C = np.empty(len(train_C), np.int64)
    for group, members in enumerate(merged):
        group_C[members] = group
    return group_C


def tenths(train_C: Ints) -> list[Ints]:
    """Categories in ten parts of about as many, by their rows in train, the rarest first; fewer parts if
    there are fewer categories."""
    parts = min(_TENTHS, len(train_C))
    return [*np.array_split(np.argsort(train_C, kind="stable"), parts)]


def thresholds(true_N: Scores, group_N: Ints, levels: Sequence[float]) -> list[list[float]]:
    """For each level a list with the threshold of each group.

    Args:
        true_N: the score of the true category. group_N: its group; each has rows enough for all levels.
    """
    sorted_G = [
        np.sort(true_N[group_N == group])[::-1] for group in range(int(group_N.max(initial=-1)) + 1)
    ]
    # The shortest decimal that gives the same number of 32 bits.
    return [
        [float(str(values[rank(len(values), level) - 1])) for values in sorted_G] for level in levels
    ]


def calibrated(scored: Scored, train_C: Ints, networks: Sequence[Path]) -> Sets:
    """The sets of models whose scores on calibration are known.

    Args:
        train_C: rows of each category in train. networks: their folders.

    Raises:
        ValueError: a file of a network is missing.
    """
    group_C = groups(train_C, np.bincount(scored.labels_N, minlength=len(train_C)))
    group_N = group_C[scored.labels_N]
    rows_G = np.bincount(group_N, minlength=int(group_C.max()) + 1).tolist()
    levels = [level / 100 for level in _PERCENTS if rank(min(rows_G), level / 100) <= min(rows_G)]
    return Sets(
        levels=levels,
        groups=group_C.tolist(),
        rows=rows_G,
        thresholds={name: thresholds(true_N, group_N, levels) for name, true_N in scored.true.items()},
        networks={folder.name: fingerprint(folder) for folder in networks},
    )


def reported(sets: Sets) -> dict[str, Scores]:
    """The thresholds of each category at the level REPORTED, by model; none if it is not offered."""
    if REPORTED not in sets.levels:
        return {}
    place = sets.levels.index(REPORTED)
    return {
        name: np.array(lists[place], np.float32)[sets.groups] for name, lists in sets.thresholds.items()
    }


def measures(scored: Scored, train_C: Ints) -> dict[str, dict[str, float]]:
    """Of the sets of each model that has thresholds: the share that holds the right category (coverage),
    its mean over categories, the lowest and highest of the tenths of categories by size, and sizes."""
    tenth_N = tenth_of(train_C)[scored.labels_N]
    found = {}
    for name in scored.thresholds:
        covered_N, size_N = scored.covered(name), scored.sizes[name]
        share_T = means(covered_N, tenth_N, _TENTHS)
        values = {
            "level": REPORTED,
            "coverage": covered_N.mean(),
            "coverage_of_categories": np.nanmean(means(covered_N, scored.labels_N, len(train_C))),
            "lowest_tenth": np.nanmin(share_T),
            "highest_tenth": np.nanmax(share_T),
            "median_size": np.median(size_N),
            "mean_size": size_N.mean(),
        }
        found[name] = {key: round(float(value), 6) for key, value in values.items()}
    return found


def by_tenth(scored: Scored, train_C: Ints) -> dict[str, dict[str, Floats | Ints]]:
    """For each model the columns of its table: for each tenth of the categories by size, the rarest
    first, that has titles, its number from 1, categories, titles, and coverage and mean size of the
    sets, which are NaN without thresholds."""
    tenth_C = tenth_of(train_C)
    tenth_N = tenth_C[scored.labels_N]
    titles_T = np.bincount(tenth_N, minlength=_TENTHS)
    occurs = np.flatnonzero(titles_T)
    columns: dict[str, Floats | Ints] = {
        "tenth": occurs + 1,
        "categories": np.bincount(tenth_C, minlength=_TENTHS)[occurs],
        "titles": titles_T[occurs],
    }
    found = {}
    for name in scored.true:
        share, size = np.full(len(occurs), np.nan), np.full(len(occurs), np.nan)
        if name in scored.thresholds:
            share = means(scored.covered(name), tenth_N, _TENTHS)[occurs]
            size = means(scored.sizes[name], tenth_N, _TENTHS)[occurs]
        found[name] = columns | {"coverage": share, "size": size}
    return found


def tenth_of(train_C: Ints) -> Ints:
    """The number of each category's tenth, (C,), from 0; see `tenths`."""
    found = np.empty(len(train_C), np.int64)
    for number, members in enumerate(tenths(train_C)):
        found[members] = number
    return found


def means(values_N: NDArray[Any], of_N: Ints, parts: int) -> Floats:
    """The mean value of the titles of each part; NaN for one without titles."""
    rows = np.bincount(of_N, minlength=parts)
    total = np.bincount(of_N, values_N, parts)
    found: Floats = np.divide(total, rows, out=np.full(parts, np.nan), where=rows > 0)
    return found
