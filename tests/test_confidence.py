"""Answers are sure from the threshold that `evaluate` proved, where it is known."""

import json
import shutil
from pathlib import Path

import pytest

from small_project import ROOT
from titles.predict.confidence import Threshold, thresholds


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "metrics").mkdir()
    return tmp_path


def write(project: Path, **models: object) -> None:
    (project / "metrics/details.json").write_text(json.dumps({"models": models}), encoding="utf-8")


def test_each_model_has_its_own_and_one_that_is_not_proven_is_none(project: Path) -> None:
    proven = {"threshold": 0.7, "precision_kept": 0.98, "coverage": 0.9}
    write(project, average=proven, cnn={"threshold": 0.9}, mlp={"threshold": 1.0, "coverage": 0.0})
    found = thresholds(project / "models")
    assert found == {"average": Threshold(0.7, 0.98), "cnn": Threshold(0.9, None)}
    assert [found["average"].accepts(p) for p in (0.69, 0.7, 1.0)] == [False, True, True]


def test_those_of_the_committed_run_are_read() -> None:
    measured = json.loads((ROOT / "metrics/details.json").read_text())["models"]
    found = thresholds(ROOT / "models")
    assert {name: found[name].probability for name in found} == {
        name: one["threshold"] for name, one in measured.items() if one["threshold"] < 1
    }


def test_models_from_elsewhere_do_not_get_those_of_the_folder_that_they_lie_in(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, cnn={"threshold": 0.9})
    (project / "bought").mkdir()
    assert thresholds(project / "models")
    assert thresholds(project / "bought") == {}
    shutil.rmtree(project / "metrics")
    assert thresholds(project / "models") == {}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"models": 3}',
        '{"models": {"cnn": 3}}',
        '{"models": {"cnn": {}}}',
        '{"models": {"cnn": {"threshold": "0.5"}}}',
        '{"models": {"cnn": {"threshold": NaN}}}',
        '{"models": {"cnn": {"threshold": 1.5}}}',
        '{"models": {"cnn": {"threshold": 0.5, "precision_kept": 7}}}',
        '{"models": {"mlp": {"threshold": 0.5}, "cnn": {"threshold": null}}}',
        "\udcff",
    ],
)
def test_damaged_metrics_are_told_and_cost_no_explanation(
    project: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = project / "metrics/details.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert thresholds(project / "models") == {}
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {file} has no thresholds that can be read")
    assert told.count("\n") == 1
