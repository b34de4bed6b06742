"""A third network, added to a copy of the project by the edits of CONTRIBUTING.md and no others."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from documents import read, sections
from small_project import QUICK, commit, copy, ran, run

pytestmark = pytest.mark.pipeline

(RECIPE,) = (one for one in sections(read("CONTRIBUTING.md")) if one.title == "Add a network")
MODEL, LINE, STAGE = (text for language, text in RECIPE.blocks if language == "python")
(SECTION,) = (text for language, text in RECIPE.blocks if language == "yaml")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def add_to_pipeline(file: Path) -> None:
    """The block of the stage, and a line each in what evaluate depends on and in the plots."""
    text = file.read_text(encoding="utf-8")
    (block,) = re.findall(r"\n  train_mlp:\n(?:    .*\n)+", text)
    text = text.replace(block, block + block.replace("mlp", "gru").replace("MLP", "GRU"))
    text = text.replace("      - models/mlp\n", "      - models/mlp\n      - models/gru\n", 1)
    text = text.replace("      - mlp\n", "      - mlp\n      - gru\n", 1)
    line = "        plots/mlp.json: validation_balanced_accuracy\n"
    assert line in text
    file.write_text(text.replace(line, line + line.replace("mlp", "gru")), encoding="utf-8")


@pytest.fixture(scope="module")
def project(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy, with the network trained as the experiment gru."""
    folder = copy(base, tmp_path_factory.mktemp("third") / "project")
    package = folder / "src/titles"
    (package / "models/gru.py").write_text(MODEL, encoding="utf-8")
    (package / "stages/train_gru.py").write_text(STAGE, encoding="utf-8")
    last = '    "mlp": "titles.models.mlp:TitleMLP",\n'
    replace(package / "models/registry.py", last, last + LINE)
    section = yaml.safe_load(SECTION)
    section["gru"] |= {key: value for key, value in QUICK.items() if key in section["gru"]}
    with (folder / "params.yaml").open("a", encoding="utf-8") as stream:
        stream.write("\n" + yaml.safe_dump(section))
    add_to_pipeline(folder / "dvc.yaml")
    commit(folder, "Add a gated recurrent network")
    output = run(folder, "dvc", "exp", "run", "--name", "gru")
    # Nothing that stood there is trained again.
    assert "Running stage 'train_gru'" in output
    assert ran(output) == ["evaluate"]
    return folder


def test_dvc_compares_it_with_the_others(project: Path) -> None:
    shown = run(project, "dvc", "exp", "show", "--csv", "--no-pager")
    rows = {row["Experiment"]: row for row in csv.DictReader(io.StringIO(shown))}
    for name in ("average", "cnn", "mlp", "gru"):
        assert 0 < float(rows["gru"][f"{name}.balanced_accuracy"]) <= 1
        assert 0 < float(rows["gru"][f"{name}.validation_balanced_accuracy"]) <= 1
    assert rows["gru"]["gru.units"] == "256"
    plots = run(project, "dvc", "plots", "show", "--json", "Balanced accuracy")
    assert "gru.json" in plots


def test_the_average_the_pairs_and_the_model_card_have_it(project: Path) -> None:
    details = json.loads((project / "metrics/details.json").read_text(encoding="utf-8"))
    assert list(details["models"]) == ["average", "cnn", "mlp", "gru"]
    assert list(details["pairs"]) == ["cnn_minus_mlp", "cnn_minus_gru", "mlp_minus_gru"]
    card = (project / "models/card.md").read_text(encoding="utf-8")
    assert "| gru     | `models/gru`" in card
    calibrated, _, _ = card.partition("## Sets of answers")
    weights = re.findall(r"^\| (?:cnn|mlp|gru) +\| [\d.]+ +\| ([\d.]+) +\|", calibrated, re.M)
    assert sum(map(float, weights)) == pytest.approx(1, abs=2e-4)


def test_the_report_shows_it(project: Path) -> None:
    run(project, "titles", "report", "gru", "--model", "gru", PYTHONPATH="src")
    assert "| gru |" in (project / "report.md").read_text(encoding="utf-8")
    assert "| GRU |" in (project / "report.md").read_text(encoding="utf-8")
    assert "<svg" in (project / "report.html").read_text(encoding="utf-8")


def test_it_predicts_and_so_does_the_average(project: Path) -> None:
    title = "Funda Para Celular Samsung J7"
    answers = {
        model: run(project, "titles", "predict", title, "--model", model, "--top", "2", PYTHONPATH="src")
        for model in ("gru", "cnn", "average")
    }
    assert len(set(answers.values())) == 3
    rows = list(csv.DictReader(io.StringIO(answers["gru"])))
    assert len(rows) in (1, 2)


def test_it_is_exported_as_onnx(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "onnx"
    # The export compares ONNX Runtime with the network.
    run(project, "titles", "export", "onnx", "--model", "gru", "--out", str(out), PYTHONPATH="src")
    assert json.loads((out / "encoding.json").read_text())["architecture"] == "gru"


def test_it_is_exported_for_the_hub_and_predicts_there_by_itself(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    run(project, "titles", "export", "hub", "--out", str(out), PYTHONPATH="src")
    titles = ["Funda Para Celular Samsung J7", "Xqztw ñandú", "***"]
    found = run(project, "python", "-I", "-B", str(out / "predict.py"), *titles)
    assert found == run(project, "titles", "predict", *titles, PYTHONPATH="src")
    assert "class TitleGRU(Network):" in (out / "inference/gru.py").read_text(encoding="utf-8")
    assert "| gru " in (out / "README.md").read_text(encoding="utf-8")


def test_it_keeps_the_rules_of_the_project(project: Path) -> None:
    rules = "covers_what_it_imports or reads_the_parameters or leaves_the_others_alone or every_network"
    run(project, "pytest", "-q", "tests/test_project.py", "-k", rules, PYTHONPATH="src")
