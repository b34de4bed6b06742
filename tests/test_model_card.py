"""The card says what the results and parameters say, and nothing that is not so."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from networks import LABEL_NAMES, NAMES, params, write_prepared
from saved_models import model
from titles.data.contract import SPLITS
from titles.evaluation import model_card
from titles.models.parts.saved import SavedModel
from titles.models.registry import parse_params
from titles.params import Params

GROUPS = {"language": {"spanish": {"rows": 1234, "cnn": 0.25, "mlp": 0.5, "average": 0.75}}}
PAIR = {"difference": 0.5678, "difference_low": -0.1234, "difference_high": 0.9876}


def scores() -> dict[str, dict[str, float]]:
    """Every number is different."""
    measures = (
        *(
            "balanced_accuracy",
            "balanced_accuracy_low",
            "balanced_accuracy_high",
            "accuracy",
            "macro_f1",
        ),
        *("top_3", "top_5", "loss", "calibration_error", "calibration_error_before", "threshold"),
        *("coverage", "precision_kept"),
    )
    found = {
        name: {measure: (1000 * row + 10 * place + 1) / 10000 for place, measure in enumerate(measures)}
        for row, name in enumerate(("cnn", "mlp", "average"), start=1)
    }
    del found["average"]["calibration_error_before"]
    del found["mlp"]["precision_kept"]
    return found


@pytest.fixture(autouse=True)
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared()


def card(given: Params | None = None, sets: dict[str, dict[str, float]] | None = None) -> str:
    losses = zip(NAMES, (0.1, 0.3), strict=True)
    models: dict[str, SavedModel] = {n: replace(model(n), calibrated_loss=loss) for n, loss in losses}
    models["cnn"] = replace(models["cnn"], training={"machine": "a machine"})
    path = Path("models/card.md")
    for name in NAMES:
        folder = path.with_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_bytes(b"1" * 1_234_567)
        (folder / "labels").write_bytes(b"1" * 300_000)
    models["mlp"] = replace(models["mlp"], saved_weights="float32")
    details = {
        "models": scores(),
        "pairs": {"cnn_minus_mlp": PAIR},
        "groups": GROUPS,
        "sets": sets or {},
    }
    model_card.write(path, models, details, given or params())
    return path.read_text(encoding="utf-8")


def row(text: str, name: str, header: str) -> list[str]:
    """Cells of the row of that name, in the table whose head holds `header`."""
    lines = text.split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith("|") and header in line)
    found = next(line for line in lines[first:] if line.startswith(f"| {name} "))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_measures_stand_in_the_row_of_their_model() -> None:
    text, told = card(), scores()
    weight = dict(zip((*NAMES, "average"), ("0.7500", "0.2500", "-"), strict=True))
    for name in ("cnn", "mlp", "average"):
        of = told[name]
        interval = f"{of['balanced_accuracy_low']:.4f} to {of['balanced_accuracy_high']:.4f}"
        measures = ("accuracy", "macro_f1", "top_3", "top_5", "loss")
        assert row(text, name, "balanced accuracy") == [
            *(name, f"{of['balanced_accuracy']:.4f}", interval),
            *(f"{of[measure]:.4f}" for measure in measures),
        ]
        before, kept = of.get("calibration_error_before"), of.get("precision_kept")
        assert row(text, name, "threshold") == [
            *(name, "-" if name == "average" else "1", weight[name], f"{before:.4f}" if before else "-"),
            *(f"{of[measure]:.4f}" for measure in ("calibration_error", "threshold", "coverage")),
            f"{kept:.4f}" if kept else "-",
        ]
    assert row(text, "cnn minus mlp", "difference")[1:] == ["0.5678", "-0.1234 to 0.9876"]
    assert row(text, "language", "group") == [
        "language",
        "spanish",
        "1,234",
        "0.2500",
        "0.5000",
        "0.7500",
    ]


def test_saved_weights_and_sizes_are_those_of_the_folders() -> None:
    text = card()
    assert row(text, "cnn", "saved weights")[1:] == ["int8", "1.5 MB", "a machine"]
    assert row(text, "mlp", "saved weights")[1:] == ["float32", "1.5 MB", "-"]


def test_all_parameters_are_there() -> None:
    given = params(epochs=7)
    block = card(given).split("```yaml\n")[1].split("```")[0]
    assert parse_params(yaml.safe_load(block)) == given


def test_the_data_are_told_by_size_and_hash() -> None:
    text = card()
    for split in SPLITS:
        cells = row(text, f"`data/prepared/{split}`", "md5")
        assert cells[1:] == ["8 titles", f"`{model_card.digest(Path('data/prepared') / split)}`"]
    labels = Path("data/prepared/labels.txt").read_bytes()
    cells = row(text, "`data/prepared/labels.txt`", "md5")
    assert cells[1:] == [
        f"{len(LABEL_NAMES)} categories",
        f"`{hashlib.md5(labels).hexdigest()}`",
    ]
    assert row(text, "`data/prepared/vocabulary.tsv`", "md5")[1] == "12 words"


def test_only_the_sample_is_called_synthetic() -> None:
    given = params()
    other = given.prepare.model_copy(update={"source": "data/raw/real.csv", "holdout_quality": "any"})
    sample, real = card(given), card(given.model_copy(update={"prepare": other}))
    assert given.prepare.source == model_card.SAMPLE
    assert "synthetic" in sample
    assert "synthetic" not in real
    assert "`data/raw/real.csv`" in real
    assert "take reliable rows" in sample
    assert "take reliable rows" not in real


def test_sets_stand_in_the_row_of_their_model_or_are_said_to_be_none() -> None:
    names = ("level", "coverage", "coverage_of_categories", "lowest_tenth", "highest_tenth")
    sets = {
        name: {key: (100 * row + place) / 1000 for place, key in enumerate(names)}
        | {"level": 0.95, "median_size": row + 0.5, "mean_size": row + 0.125}
        for row, name in enumerate(("cnn", "mlp", "average"), start=1)
    }
    text = card(sets=sets)
    assert "`titles predict --cover 0.95`" in text
    assert row(text, "mlp", "mean over categories") == [
        *("mlp", "0.95", "0.2010", "0.2020", "0.2030", "0.2040", "2.5", "2.12")
    ]
    assert "There are none" not in text
    assert "There are none: the calibration split has too few titles." in card()


def test_the_same_results_are_the_same_bytes_and_other_ones_are_not() -> None:
    first = card()
    assert card() == first
    assert card(params(epochs=9)) != first


def test_tables_have_cells_for_their_heads_and_lines_end_plainly() -> None:
    lines = card().split("\n")
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) > 20
    for head, under in pairwise(tables):
        if set(under) <= set("|:-"):
            assert head.count("|") == under.count("|")
    assert not any(line != line.rstrip() for line in lines)
    assert lines[-1] == ""
    assert lines[-2] == "```"
