"""Sets of categories from the stages to `titles predict --cover`, in a project that has run."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_project
from networks import NAMES
from small_project import outs, run
from titles.data.encoded import EncodedTitles
from titles.evaluation.sets import Sets, fingerprint
from titles.models.registry import CLASSIFIERS

pytestmark = pytest.mark.pipeline


def splits(folder: Path) -> dict[str, EncodedTitles]:
    names = ("train", "validation", "calibration", "test")
    return {name: EncodedTitles.open(folder / "data/prepared" / name) for name in names}


def measured(folder: Path) -> Any:
    return json.loads((folder / "metrics/details.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_prediction_covers_what_evaluation_says(base: Path, tmp_path: Path, model: str) -> None:
    test = splits(base)["test"]
    with gzip.open(base / "data/raw/sample.csv.gz", "rt", encoding="utf-8", newline="") as stream:
        rows = dict(enumerate(csv.DictReader(stream), start=2))
    chosen = [rows[line] for line in test.lines.tolist()]
    file, out = tmp_path / "test.csv", tmp_path / "found.jsonl"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    told = run(
        base, "titles", "predict", "--file", str(file), "--cover", "0.95", "--model", model,
        "--out", str(out),
    )  # fmt: skip
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert not [row["problem"] for row in found if row["problem"]]
    sizes = [row["size"] for row in found]
    assert sizes == [len(set(row["categories"])) for row in found]
    covered = [row["category"] in row["categories"] for row in found]
    expected = measured(base)["sets"][model]
    assert expected["level"] == 0.95
    assert round(float(np.mean(covered)), 6) == expected["coverage"]
    assert round(float(np.mean(sizes)), 6) == expected["mean_size"]
    assert round(float(np.median(sizes)), 6) == expected["median_size"]
    assert f"{np.mean(sizes):.2f} categories per title on average" in told


def test_calibration_is_apart_from_the_other_splits_and_no_training_depends_on_it(base: Path) -> None:
    found = splits(base)
    places = [set(zip(*titles.places(), strict=True)) for titles in found.values()]
    assert all(places)
    assert sum(map(len, places)) == len(set.union(*places))
    lock = (base / "dvc.lock").read_text(encoding="utf-8")
    assert lock.count("data/prepared/calibration") == 2  # of prepare, and for evaluate
    assert set(found["calibration"].labels) <= set(found["validation"].labels)


def test_the_file_is_of_these_networks_and_small(base: Path) -> None:
    made = Sets.read(base / "models/sets.json")
    assert made.networks == {name: fingerprint(base / "models" / name) for name in NAMES}
    assert set(made.thresholds) == set(CLASSIFIERS)
    assert sum(made.rows) == len(splits(base)["calibration"])
    assert (base / "models/sets.json").stat().st_size < 100_000
    assert "models/sets.json" in outs(base, "evaluate")


def test_without_a_share_there_are_no_sets_and_the_message_says_why(base: Path, tmp_path: Path) -> None:
    folder = small_project.copy(base, tmp_path / "project")
    params = folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert text.count("calibration_share: 0.5") == 1
    params.write_text(text.replace("calibration_share: 0.5", "calibration_share: 0"), encoding="utf-8")
    # Not by DVC, which would train again: the words are the same, so that the networks still fit.
    for stage in ("prepare", "evaluate"):
        run(folder, sys.executable, "-m", f"titles.stages.{stage}", PYTHONPATH="src")
    before, found = splits(base), splits(folder)
    assert len(found["calibration"]) == 0
    assert len(found["validation"]) == len(before["validation"]) + len(before["calibration"])
    for name in ("train", "test"):
        assert found[name].keys.tolist() == before[name].keys.tolist()
    assert measured(folder)["sets"] == {}
    card = (folder / "models/card.md").read_text(encoding="utf-8")
    assert "There are none: the calibration split has too few titles." in card
    told = run(folder, "titles", "predict", "celular", "--cover", "0.9", fails=True)
    assert "prepare.calibration_share" in told
    assert len(told.splitlines()) == 1
    assert "category_1" in run(folder, "titles", "predict", "celular")
