"""`titles.load`, the public face of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import titles
from networks import LABEL_NAMES, NAMES
from saved_models import write_models
from titles.cli import main
from titles.evaluation import sets
from titles.models.registry import AVERAGE, CLASSIFIERS

TITLES = ["Word5  WORD3", "", "word9 word4 word4 word10", "unheard word3"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_models(tmp_path_factory.mktemp("library") / "models")
    sets.Sets(
        levels=[0.9],
        groups=[0] * len(LABEL_NAMES),
        rows=[30],
        thresholds={name: [[0.25]] for name in CLASSIFIERS},
        networks={name: sets.fingerprint(folder / name) for name in NAMES},
    ).write(folder / "sets.json")
    return folder


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_answers_are_those_of_the_command(
    models: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = titles.load(models, name)
    assert model.labels == LABEL_NAMES
    options = ["predict", "--models", str(models), "--model", name, "--out-format", "jsonl", *TITLES]
    for wanted, answers in (
        (["--top", "2"], model.predict(TITLES, top=2)),
        (["--at-least", "0.3"], model.predict(TITLES, at_least=0.3)),
        (["--cover", "0.9"], model.cover(iter(TITLES), 0.9)),
    ):
        assert main([*options, *wanted]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [answer.title for answer in answers] == TITLES
        for answer, row in zip(answers, rows, strict=True):
            assert answer.problem == row["problem"]
            named = [row[key] for key in row if key.startswith("category_") and row[key]]
            assert answer.categories == (row.get("categories") or named)
            assert len(answer.probabilities) == len(answer.categories)
            if named:
                assert answer.probabilities[0] == pytest.approx(row["probability_1"], abs=1e-6)
    assert model.predict([]) == []


def test_threads_share_a_model(models: Path) -> None:
    model = titles.load(str(models))
    expected = model.predict(TITLES)
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(lambda _: model.predict(TITLES), range(20))] == [expected] * 20


def test_an_explanation_names_each_word(models: Path) -> None:
    found = titles.load(models).explain("Word5 WORD3", top=2)
    assert found.words == ["Word5", "WORD3"]
    assert [len(category.effects) for category in found.categories] == [2, 2]


def test_what_is_no_title_has_a_problem(models: Path) -> None:
    (answer,) = titles.load(models).predict([None])  # type: ignore[list-item]
    assert (answer.categories, answer.probabilities) == ([], [])
    assert answer.problem


def test_mistakes_are_told(models: Path, tmp_path: Path) -> None:
    model = titles.load(models)
    with pytest.raises(TypeError, match="titles are one text: put it in a list"):
        model.predict("word3")
    with pytest.raises(ValueError, match="at_least is 2"):
        model.predict(TITLES, at_least=2)
    with pytest.raises(ValueError, match="k is 0"):
        model.predict(TITLES, top=0)
    with pytest.raises(ValueError, match=r"0\.95 cannot be covered"):
        model.cover(TITLES)
    with pytest.raises(ValueError, match="model is 'gru'"):
        titles.load(models, "gru")
    with pytest.raises(ValueError, match="is missing"):
        titles.load(tmp_path, AVERAGE)
    with pytest.raises(ValueError, match=r"sets\.json is missing"):
        titles.load(write_models(tmp_path / "models")).cover(TITLES)


def test_the_package_is_imported_without_torch() -> None:
    program = "import sys, titles; titles.load; assert 'torch' not in sys.modules; print(titles.__all__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "['load']\n"
