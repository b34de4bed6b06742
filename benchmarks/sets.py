"""Coverage of the sets of `titles predict --cover`, with calibration and test divided again at random.

python benchmarks/sets.py   # in a folder where all stages have run
"""

from __future__ import annotations

import argparse
from typing import Any

import titles.stages  # noqa: F401  before torch and numpy, whose threads read its settings

# isort: split
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from titles.data.contract import MODELS, PREPARED
from titles.data.encoded import EncodedTitles
from titles.evaluation import sets
from titles.evaluation.classifiers import Classifiers
from titles.models.parts.inference import set_up
from titles.models.registry import CLASSIFIERS, load_params

Scores = NDArray[np.float32]


def scores_of(classifiers: Classifiers, titles: EncodedTitles) -> dict[str, Scores]:
    """The score of each category for each title, (N, C), by model."""
    shape = len(titles), len(classifiers.labels)
    found = {name: np.empty(shape, np.float32) for name in CLASSIFIERS}

    def seen(rows: NDArray[np.int64], probabilities: Any) -> None:
        for name, probability_BC in zip(CLASSIFIERS, probabilities, strict=True):
            found[name][rows] = sets.scores(probability_BC.cpu().numpy())

    classifiers.outcomes(titles, seen)
    return found


def resplit(
    score_NC: Scores,
    labels_N: NDArray[np.int64],
    train_C: NDArray[np.int64],
    group_C: NDArray[np.int64],
    calibration: int,
    level: float,
    splits: int,
    seed: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Coverage over `splits` random divisions into `calibration` rows and others that are covered.

    Returns:
        For each division, (splits,), the coverage of rows, its mean over categories, and mean and median
        size of the sets; for `groups` and `tenths` the coverage of each, (splits, parts).
    """
    random = np.random.default_rng(seed)
    categories = len(train_C)
    tenth_C = sets.tenth_of(train_C)
    keys = ("rows", "categories", "groups", "tenths", "mean", "median")
    found: dict[str, list[Any]] = {key: [] for key in keys}
    for _ in range(splits):
        order_N = random.permutation(len(labels_N))
        ours, others = order_N[:calibration], order_N[calibration:]
        true_N = score_NC[ours, labels_N[ours]]
        (threshold_G,) = sets.thresholds(true_N, group_C[labels_N[ours]], [level])
        threshold_C = np.array(threshold_G, np.float32)[group_C]
        covered_N = score_NC[others, labels_N[others]] >= threshold_C[labels_N[others]]
        size_N = (score_NC[others] >= threshold_C).sum(axis=1)
        found["rows"].append(covered_N.mean())
        found["categories"].append(np.nanmean(sets.means(covered_N, labels_N[others], categories)))
        for key, part_C in (("groups", group_C), ("tenths", tenth_C)):
            found[key].append(sets.means(covered_N, part_C[labels_N[others]], int(part_C.max()) + 1))
        found["mean"].append(size_N.mean())
        found["median"].append(np.median(size_N))
    return {key: np.array(values) for key, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--splits", type=int, default=20, help="random divisions (default: 20)")
    options = parser.parse_args()
    params = load_params()
    classifiers = Classifiers(MODELS, set_up(params.compute, params.seed))
    train, calibration, test = (
        EncodedTitles.open(PREPARED / split) for split in ("train", "calibration", "test")
    )
    train_C = np.bincount(train.labels, minlength=len(classifiers.labels))
    labels_N = np.concatenate([calibration.labels, test.labels]).astype(np.int64)
    group_C = sets.groups(train_C, np.bincount(calibration.labels, minlength=len(train_C)))
    parts = [scores_of(classifiers, titles) for titles in (calibration, test)]
    rows = []
    for name in CLASSIFIERS:
        score_NC = np.concatenate([part[name] for part in parts])
        for level in (0.8, 0.9, 0.95, 0.98):
            found = resplit(
                score_NC, labels_N, train_C, group_C, len(calibration), level, options.splits
            )
            group_G, tenth_T = (np.nanmean(found[key], axis=0) for key in ("groups", "tenths"))
            rows.append(
                [
                    *(name, level, found["rows"].mean(), found["categories"].mean()),
                    *(group_G.min(), group_G.max(), tenth_T.min(), tenth_T.max()),
                    *(found["rows"].std(), found["median"].mean(), found["mean"].mean()),
                ]
            )
    heads = (
        "model level rows categories lowest_group highest_group lowest_tenth highest_tenth std "
        "median_size mean_size"
    )
    print(tabulate(rows, heads.split(), "pipe", floatfmt=".4f"))


if __name__ == "__main__":
    main()
