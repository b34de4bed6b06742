"""A trained network as an MLflow model."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from imports import SRC, imported_files
from networks import LABEL_NAMES, NETWORKS, SIZES, TEXT_RULES, C, network, vocabulary
from titles.data import processor
from titles.data.subwords import Subwords
from titles.evaluation import sets
from titles.models.parts import saved
from titles.predict.classifier import Classifier
from titles.serve import mlflow_model

pytestmark = pytest.mark.pipeline  # MLflow takes seconds to load

RULES = TEXT_RULES.model_copy(update={"digits": "keep"})  # the words of the vocabulary hold digits
TITLES = ["Word5  WORD3", "", "word9 word4 word4 word10", "unheard"]
# Run where nothing of the project is at hand: a model must bring its code.
LOAD = """
import sys, json, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
import titles
from titles.data import processor
answers = model.predict(json.loads(sys.argv[2]), params={"k": 3}).to_dict("list")
print(json.dumps({"code": titles.__file__, "conflicts": processor.conflicts()} | answers))
"""


def write_network(name: str, folder: Path) -> Path:
    net = network(name, subwords=Subwords(shortest=3, longest=4, buckets=17))
    sizes = SIZES[name] | {"dropout": 0.0}
    folder.mkdir()
    saved.write(saved.SavedModel(name, sizes, net, vocabulary(), LABEL_NAMES, RULES), folder)
    return folder


def expected(folders: list[Path], k: int) -> dict[str, Any]:
    """What the classifier says, in the form of the model's answers."""
    models = [saved.read(folder, NETWORKS) for folder in folders]
    ranked = Classifier(models, torch.device("cpu")).top(TITLES, k)
    return {
        "category": [[LABEL_NAMES[c] for c in row if c >= 0] for row in ranked.categories_NK.tolist()],
        "probability": [[p for p in row if p > 0] for row in ranked.probabilities_NK.tolist()],
        "problem": ["", "empty title", "", ""],
    }


@pytest.fixture
def model(tmp_path: Path) -> mlflow_model.TitlesModel:
    made = mlflow_model.TitlesModel()
    made.load([write_network("cnn", tmp_path / "cnn")])
    return made


@pytest.mark.parametrize("names", [["mlp"], ["cnn", "mlp"]])
@pytest.mark.parametrize("column", [0, "title"])
def test_its_answers_are_those_of_the_classifier(
    tmp_path: Path, column: str | int, names: list[str]
) -> None:
    folders = [write_network(name, tmp_path / name) for name in names]
    model = mlflow_model.TitlesModel()
    model.load(folders)
    table = pd.DataFrame({column: TITLES, "other": 1})
    for params, k in (({"k": 2}, 2), (None, C)):  # of 5 wanted there are C
        answers = model.predict(None, table, params)
        assert answers.to_dict("list") == expected(folders, k)
        assert answers.loc[1].tolist() == [[], [], "empty title"]


@pytest.mark.parametrize("kind", [object, "str"])
def test_what_cannot_be_classified_says_why_and_leaves_the_others_alone(
    model: mlflow_model.TitlesModel, kind: Any
) -> None:
    problems = {"": "empty title", " \t": "empty title", "¡!": "no word", None: "no title"}
    if kind is object:
        problems |= {5: "title is no text", "word3 \ud800": "not UTF-8"}
    rows = [title for problem in problems for title in ("word4", problem)]
    answers = model.predict(None, pd.DataFrame({"title": pd.Series(rows, dtype=kind)}))
    assert answers.problem.tolist() == [text for told in problems.values() for text in ("", told)]
    alone = model.predict(None, pd.DataFrame({"title": ["word4"]})).iloc[0].tolist()
    assert alone[0]
    assert all(row == alone for row in answers.iloc[::2].to_numpy().tolist())
    assert all(row[:2] == [[], []] for row in answers.iloc[1::2].to_numpy().tolist())


# Beside "word4", which gets its category whatever they are.
ODD: list[tuple[Any, str]] = [
    (None, "no title"),
    (float("nan"), "no title"),
    (5, "title is no text"),
    (1.5, "title is no text"),
    (float("inf"), "title is no text"),
    (True, "title is no text"),
    (10**30, "title is no text"),
    (["word3"], "title is no text"),
    ([], "title is no text"),
    ({"title": "word3"}, "title is no text"),
    ("", "empty title"),
    ("\ud800", "not UTF-8"),
    ("word3 \udcff", "not UTF-8"),
]
FORMS: list[Any] = [
    list,
    lambda rows: [[row] for row in rows],
    lambda rows: pd.Series(rows, dtype=object),
    lambda rows: pd.DataFrame({"title": pd.Series(rows, dtype=object)}),
    lambda rows: {"title": rows},
]


@pytest.mark.parametrize("form", FORMS, ids=["list", "rows", "series", "table", "columns"])
def test_whatever_is_in_a_list_the_other_titles_are_answered(tmp_path: Path, form: Any) -> None:
    """By MLflow itself, which makes a table of what a schema describes and fails at some of these."""
    mlflow_model.write([write_network("cnn", tmp_path / "cnn")], tmp_path / "out")
    model = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    alone = model.predict(["word4"]).iloc[0].tolist()
    assert alone[0]
    for odd in ([pair] for pair in ODD):
        answers = model.predict(form(["word4", *(title for title, _ in odd), "word4"]))
        assert answers.problem.tolist() == ["", *(problem for _, problem in odd), ""]
        assert answers.iloc[[0, -1]].to_numpy().tolist() == [alone, alone]
    assert model.predict(form([title for title, _ in ODD[:1]])).problem.tolist() == ["no title"]
    assert model.predict(form([])).empty


@pytest.mark.parametrize(
    "form", ["word4", pd.Series(["word4"]), np.array(["word4"]), np.array([["word4", "x"]])]
)
def test_titles_are_taken_in_any_form(model: mlflow_model.TitlesModel, form: Any) -> None:
    assert model.predict(None, form).equals(model.predict(None, ["word4"]))


@pytest.mark.parametrize("titles", [[], pd.DataFrame({"title": []}), pd.DataFrame(), np.array([])])
def test_no_titles_get_no_answers(model: mlflow_model.TitlesModel, titles: Any) -> None:
    answers = model.predict(None, titles)
    assert list(answers.columns) == ["category", "probability", "problem"]
    assert answers.empty


def test_a_table_that_starts_with_another_column_is_refused(model: mlflow_model.TitlesModel) -> None:
    with pytest.raises(
        ValueError, match="first column is 'category': titles must be in a column 'title'"
    ):
        model.predict(None, pd.DataFrame({"category": ["x"], "title": ["y"]}))


def test_no_categories_cannot_be_wanted(model: mlflow_model.TitlesModel) -> None:
    with pytest.raises(ValueError, match="k is 0"):
        model.predict(None, pd.DataFrame(TITLES), {"k": 0})


def test_titles_below_the_wanted_probability_get_no_category_and_say_which_it_was(
    model: mlflow_model.TitlesModel,
) -> None:
    table = pd.DataFrame(TITLES)
    sure = model.predict(None, table)
    best = [shares[0] for shares in sure.probability if shares]
    wanted = (min(best) + max(best)) / 2
    answers = model.predict(None, table, {"at_least": wanted})
    kept = [bool(shares) and shares[0] >= wanted for shares in sure.probability]
    assert 0 < sum(kept) < len(best)
    assert answers[kept].equals(sure[kept])
    for (_, before), (_, after) in zip(sure.iterrows(), answers.iterrows(), strict=True):
        if before.probability and before.probability[0] < wanted:
            assert after.tolist()[:2] == [[], []]
            assert after.problem.startswith("not sure: 0.")
            assert after.problem.endswith(f" for {before.category[0]}")


@pytest.mark.parametrize("at_least", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_cannot_be_wanted(
    model: mlflow_model.TitlesModel, at_least: float
) -> None:
    with pytest.raises(ValueError, match=r"at_least is .*: a probability from 0 to 1"):
        model.predict(None, pd.DataFrame(TITLES), {"at_least": at_least})


def test_what_travels_along_imports_nothing_that_is_not_required() -> None:
    files = imported_files("titles.serve.mlflow_model")
    nodes = [n for f in files for n in ast.walk(ast.parse((SRC.parent / f).read_text("utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"titles"}
    required = {line.split("==")[0].lower() for line in mlflow_model.requirements()}
    assert foreign == {{"pyyaml": "yaml"}.get(name, name) for name in required}


def test_a_folder_that_is_no_network_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    folder = write_network("cnn", tmp_path / "cnn")
    (folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        mlflow_model.write([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cnn", pytest.param("mlp", marks=pytest.mark.endures)])
def test_it_loads_where_the_project_is_not_and_says_the_same(tmp_path: Path, name: str) -> None:
    folder = write_network(name, tmp_path / name)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    mlflow_model.write([folder], out)
    answers = expected([folder], 3)
    elsewhere.mkdir()
    folder.rename(elsewhere / "moved")  # the model holds a copy
    environment = {k: v for k, v in processor.without(os.environ).items() if k != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", LOAD, str(out), json.dumps(TITLES)]
    ran = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found.pop("code") == str(out / "code/titles/__init__.py")
    # MLflow imports numpy, which predictions do not compute with; torch has read the settings.
    assert found.pop("conflicts") == ["numpy was imported before titles"] * processor.portable()
    assert "imported before titles" not in ran.stderr
    assert found == answers


def test_no_file_of_it_is_pickled_and_versions_are_pinned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mlflow_model.write([write_network("mlp", tmp_path / "mlp")], out)
    described = yaml.safe_load((out / "MLmodel").read_text())
    flavor = described["flavors"]["python_function"]
    assert flavor["model_code_path"].endswith("mlflow_model.py")
    assert "python_model" not in flavor  # the key of a pickled one
    assert set(described["signature"]) == {"inputs", "outputs", "params"}
    files = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pyc")]
    # Protocol 2 and later begin with this byte, as zip archives of torch do with PK.
    assert not [path for path in files if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK")]
    pinned = (out / "requirements.txt").read_text().splitlines()
    assert sorted(pinned) == sorted(mlflow_model.requirements())
    assert all("==" in line and "+" not in line for line in pinned)
    assert json.loads((out / "serving_input_example.json").read_text())["params"] == {
        "k": 5,
        "at_least": 0.0,
        "cover": 0.0,
    }


def write_sets(folder: Path) -> None:
    """Beside the folder of the CNN, thresholds that make sets of different sizes."""
    sets.Sets(
        levels=[0.9, 0.95],
        groups=[0] * C,
        rows=[30],
        thresholds={"cnn": [[0.25], [0.2]]},
        networks={"cnn": sets.fingerprint(folder)},
    ).write(folder.with_name("sets.json"))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_sets_are_asked_for_by_a_parameter_and_travel_with_the_model(
    tmp_path: Path, level: float
) -> None:
    folder = write_network("cnn", tmp_path / "cnn")
    write_sets(folder)
    threshold_C = np.full(C, 0.25 if level < 0.95 else 0.2, np.float32)
    classifier = Classifier([saved.read(folder, NETWORKS)], torch.device("cpu"))
    found = [
        ([LABEL_NAMES[code] for code in codes], shares)
        for codes, shares in classifier.sets(TITLES, threshold_C).rows()
    ]
    assert len({len(names) for names, _ in found}) > 1
    mlflow_model.write([folder], tmp_path / "out")
    for name in ("cnn", "sets.json"):
        (tmp_path / name).rename(tmp_path / f"gone {name}")
    model = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    answers = model.predict(TITLES, params={"cover": level})
    assert answers.category.tolist() == [names for names, _ in found]
    assert answers.probability.tolist() == [shares for _, shares in found]
    assert answers.problem.tolist() == ["", "empty title", "", ""]
    assert model.predict(TITLES).category.map(len).max() == C


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"cover": 0.4}, "cover is 0.4: a number from 0.5 to 0.99 is expected"),
        ({"cover": -1.0}, "cover is -1"),
        ({"cover": float("nan")}, "cover is nan"),
        ({"cover": 0.9, "k": 3}, "cover and k or at_least exclude each other"),
        ({"cover": 0.9, "at_least": 0.5}, "cover and k or at_least exclude each other"),
        ({"cover": 0.99}, "0.99 cannot be covered: 0.95 is the most"),
    ],
)
def test_a_set_that_cannot_be_given_is_refused(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    folder = write_network("cnn", tmp_path / "cnn")
    write_sets(folder)
    model = mlflow_model.loaded([folder])
    with pytest.raises(ValueError, match=message):
        model.predict(TITLES, params=params)
    folder.with_name("sets.json").unlink()
    with pytest.raises(ValueError, match="the model has no sets of answers: it was exported without"):
        mlflow_model.loaded([folder]).predict(TITLES, params={"cover": 0.9})


def test_sets_of_more_categories_than_an_answer_may_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_network("cnn", tmp_path / "cnn")
    write_sets(folder)
    model = mlflow_model.loaded([folder])
    model.predict(TITLES, params={"cover": 0.95})
    monkeypatch.setattr(mlflow_model, "MOST_CATEGORIES", 3)
    with pytest.raises(ValueError, match="the sets hold more than 3 categories: send fewer titles"):
        model.predict(TITLES, params={"cover": 0.95})
