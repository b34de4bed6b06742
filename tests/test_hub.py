"""Folders for the Hugging Face Hub: they predict without the package, byte for byte as it does, and have
a card that the Hub reads."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from imports import SRC
from networks import LABEL_NAMES, NAMES
from saved_models import LETTERS, RULES, model, write_format_5, write_models
from titles.cli import main
from titles.data.subwords import Subwords, VocabularySubwords
from titles.data.vocabulary import Vocabulary
from titles.models.parts import saved
from titles.models.parts.embedding import WordEmbedding
from titles.models.registry import NETWORKS
from titles.serve.hub import folder
from titles.serve.hub.folder import standalone

pytestmark = pytest.mark.pipeline  # torch is loaded in processes of their own

ROOT = SRC.parent
# Runs a script where the package cannot be imported, although it may be installed.
HIDDEN = """
import runpy, sys
sys.modules["titles"] = None
try:
    import titles
except ImportError:
    pass
else:
    sys.exit("the package can be imported")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TITLES = [
    "word3 word4",
    "word2 unheard word9 ñandú",
    "",
    "  ",
    "***",
    "手机壳 😀 9,5",
    '"quoted, here"',
    "word5\nword6",
    "a\rb",
    os.fsdecode(b"b\xffd"),
    "word3 " * 40,
    "Envío GRATIS word7 12x sin interés",
]
NOT_INSTALLED = "NOT RUN: pip install huggingface_hub to include it"


def run_predict(folder: Path, *arguments: str, given: bytes | None = None) -> tuple[int, bytes, str]:
    """Run predict.py of a folder: exit code, output and what it told."""
    command = [sys.executable, "-I", "-B", "-c", HIDDEN, str(folder / "predict.py"), *arguments]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, input=given, stdin=None if given is not None else subprocess.DEVNULL,
        capture_output=True, env=environment, cwd="/", check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.decode()


def ours(models: Path, choice: str, *arguments: str, given: bytes | None = None) -> bytes:
    command = [sys.executable, "-m", "titles.cli", "predict", "--models", str(models)]
    return subprocess.run(
        [*command, "--model", choice, *arguments],
        input=given,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SRC), "LC_ALL": "C.UTF-8"},
        check=True,
    ).stdout


def export(models: Path, out: Path, choice: str = "average") -> Path:
    arguments = ["--model", choice, "--models", str(models), "--out", str(out)]
    assert main(["export", "hub", *arguments]) == 0
    return out


def large(name: str) -> saved.SavedModel:
    """As large as a network of the project, with random weights."""
    torch.manual_seed(len(name))
    words = ["<pad>", "<unk>", *(f"w{number}x{number % 7}" for number in range(900))]
    sizes: dict[str, Any] = {
        "cnn": {"filter_lengths": [2, 3, 4], "filter_count": 100, "fc_size": 512},
        "mlp": {"leading_words": 2, "hidden_layers": [512]},
    }
    subwords = Subwords(3, 5, 4096)
    matrix_VD = torch.randn(len(words), 100)
    matrix_VD[0] = 0
    known_V = torch.ones(len(words), dtype=torch.bool)
    embedding = WordEmbedding(matrix_VD, known_V, False, VocabularySubwords(subwords, words))
    labels = sorted(f"LABEL_{number}" for number in range(246))
    settings = sizes[name] | {"dropout": 0.3}
    network = NETWORKS[name](embedding, len(labels), **settings).eval()
    vocabulary = Vocabulary(words, [1] * len(words))
    made = saved.SavedModel(
        name, settings, network, vocabulary, labels, RULES, 1.0, 0.3 + len(labels) / 7, {}, "int8"
    )
    made.round_as_saved()
    return made


@pytest.fixture
def large_models(tmp_path: Path) -> Path:
    for name in ("cnn", "mlp"):
        (tmp_path / "large" / name).mkdir(parents=True)
        saved.write(large(name), tmp_path / "large" / name)
    return tmp_path / "large"


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports without running predict.py, which takes seconds and has tests of its own."""
    monkeypatch.setattr(folder, "_compare", lambda *_: None)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_models(tmp_path / "models")


def test_large_networks_predict_the_same_bytes_alone_and_together(
    large_models: Path, unchecked: None, tmp_path: Path
) -> None:
    source = random.Random(8)
    words = [f"w{number}x{number % 7}" for number in range(900)] + ["unheard", "ñandú", "x", "手机壳"]
    titles = [" ".join(source.choices(words, k=source.randint(1, 20))) for _ in range(2500)]
    given = "\n".join([*titles, "", "***"]).encode() + b"\nb\xffd\r\n"
    for choice in ("average", *NAMES):
        out = export(large_models, tmp_path / choice, choice)
        code, found, told = run_predict(out, "--top", "3", given=given)
        assert (code, told) == (0, "")
        wanted = ours(large_models, choice, "--top", "3", "--file", "-", given=given)
        assert len(wanted.splitlines()) == 1 + 2503
        assert found == wanted
    # A batch of a single title.
    assert run_predict(tmp_path / "average", titles[0])[1] == ours(large_models, "average", titles[0])


@pytest.mark.parametrize("kind", ["words", "letters", "float32", "format 5"])
def test_odd_titles_and_all_kinds_of_weights_predict_the_same_bytes(kind: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in NAMES:
        if kind == "format 5":
            write_format_5(model(name), models / name)
            continue
        (models / name).mkdir(parents=True)
        subwords = None if kind == "words" else LETTERS
        made = model(name, subwords, "float32" if kind == "float32" else "int8")
        saved.write(made, models / name)
    out = export(models, tmp_path / "out")
    code, found, told = run_predict(out, *TITLES)
    assert (code, told) == (0, "")
    assert found == ours(models, "average", *TITLES)


def test_the_folder_is_whole_and_imports_nothing_of_the_package(
    models: Path, unchecked: None, tmp_path: Path
) -> None:
    out = export(models, tmp_path / "out")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    saved_files = ["golden.json", "labels.txt", "model.json", "vocabulary.tsv", "weights.safetensors"]
    code = ["cnn", "contract", "layers", "mlp", "networks", "subwords", "text", "windows"]
    assert files == sorted(
        ["README.md", "predict.py", "requirements.txt"]
        + [f"{name}/{file}" for name in NAMES for file in saved_files]
        + [f"inference/{name}.py" for name in code]
    )
    for path in out.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (titles|pydantic|numba)", text, re.M), path
    for name in NAMES:
        for file in saved_files:
            assert (out / name / file).read_bytes() == (models / name / file).read_bytes()
    required = (out / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in required] == ["numpy", "safetensors", "torch"]
    assert f"torch=={torch.__version__.partition('+')[0]}" in required


def test_it_predicts_in_python_wherever_the_folder_lies(
    models: Path, unchecked: None, tmp_path: Path
) -> None:
    moved = shutil.move(export(models, tmp_path / "out"), tmp_path / "elsewhere")
    script = (
        f"import sys; sys.path.insert(0, {str(moved)!r}); from predict import Classifier; "
        "print(Classifier()(['word3 word4', '***'], k=2))"
    )
    done = subprocess.run([sys.executable, "-I", "-B", "-c", script], capture_output=True, check=True)
    first, second = eval(done.stdout)
    assert [category in LABEL_NAMES for category, _ in first] == [True, True]
    assert first[0][1] >= first[1][1] > 0
    assert second == []


def test_predict_py_tells_bad_input_in_one_line(models: Path, unchecked: None, tmp_path: Path) -> None:
    out = export(models, tmp_path / "out")
    code, found, told = run_predict(out, "word3", "--top", "0")
    assert (code, found) == (2, b"")
    assert told.splitlines()[-1].endswith("0 is less than 1")
    assert run_predict(out, given=b"")[:2] == (0, ours(models, "average", "--file", "-", given=b""))
    # A version of Python that reads titles otherwise.
    golden = out / "cnn/golden.json"
    count, first, *others = json.loads(golden.read_text())
    golden.write_text(json.dumps([count, first | {"words": ["other"]}, *others]))
    code, found, told = run_predict(out, "word3")
    assert (code, found, len(told.splitlines())) == (1, b"", 1)
    assert "has other words than when the networks learnt" in told
    (out / "cnn/weights.safetensors").unlink()
    code, found, told = run_predict(out, "word3")
    assert (code, found, len(told.splitlines())) == (1, b"", 1)


def test_a_clone_of_a_repository_is_not_replaced(
    models: Path, unchecked: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(models, tmp_path / "out")
    (out / ".git").mkdir()
    arguments = ["--models", str(models), "--out", str(out)]
    assert main(["export", "hub", *arguments]) == 1
    assert "is a git repository" in capsys.readouterr().err
    assert (out / ".git").is_dir()


@pytest.mark.parametrize(
    "line",
    ["import pandas", "from titles.data import memory", "from titles.models.parts.kernels import x"],
)
def test_a_network_that_imports_more_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="which a folder for the Hub does not have"):
        standalone(f"{line}\n", "titles.models.gru")


def test_a_networks_schema_is_left_out_and_nothing_else() -> None:
    source = (SRC / "titles/models/cnn.py").read_text(encoding="utf-8")
    made = standalone(source, "titles.models.cnn", "CNNSection")
    wanted = re.sub(r"^class CNNSection.*?(?=^class )", "", source, flags=re.M | re.S)
    wanted = re.sub(r"^(    Section = |from pydantic|from titles.params).*\n", "", wanted, flags=re.M)
    wanted = wanted.replace("titles.data", "inference")
    assert made == re.sub(r"titles\.models\.parts\.\w+", "inference.layers", wanted)
    assert "class TitleCNN(Network):" in made


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [(".rsqrt()", ".sqrt()", "the networks here give"), ("import torch\n", "import torc\n", "not run")],
)
def test_an_export_that_predicts_otherwise_is_not_kept(
    old: str,
    new: str,
    told: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def changed(text: str, *others: str) -> str:
        return standalone(text, *others).replace(old, new)

    monkeypatch.setattr(folder, "standalone", changed)
    monkeypatch.setattr(folder, "_AGREE", 1e-6)  # networks with random weights are unsure
    arguments = ["--models", str(models), "--out", str(tmp_path / "out")]
    assert main(["export", "hub", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- the card


def front(out: Path) -> dict[str, Any]:
    head = re.match("---\n(.*?)\n---\n", (out / "README.md").read_text(encoding="utf-8"), re.S)
    assert head
    found: dict[str, Any] = yaml.safe_load(head[1])
    return found


@pytest.fixture
def measured(tmp_path: Path, models: Path, unchecked: None) -> Path:
    """The models in a project, with the metrics of the committed run."""
    (tmp_path / "metrics").mkdir()
    for name in ("metrics/details.json", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return models


def metrics_of(out: Path) -> list[dict[str, Any]]:
    (index,) = front(out)["model-index"]
    (result,) = index["results"]
    assert result["dataset"]["split"] == "test"
    found: list[dict[str, Any]] = result["metrics"]
    return found


@pytest.mark.parametrize("choice", ["average", "mlp"])
def test_the_card_has_the_measures_of_the_run(choice: str, measured: Path, tmp_path: Path) -> None:
    out = export(measured, tmp_path / "out", choice)
    details = json.loads((tmp_path / "metrics/details.json").read_text())
    wanted = details["models"][choice]
    values = [metric["value"] for metric in metrics_of(out)]
    measures = ("balanced_accuracy", "accuracy", "macro_f1", "top_3", "top_5")
    assert values == [wanted[name] for name in measures]
    low, high = (f"{wanted[f'balanced_accuracy_{end}']:.4f}" for end in ("low", "high"))
    assert metrics_of(out)[0]["name"] == f"Balanced accuracy (95 % interval {low} to {high})"
    head, card = front(out), (out / "README.md").read_text(encoding="utf-8")
    assert head["language"] == ["es", "pt"]
    assert head["pipeline_tag"] == "text-classification"
    assert set(NAMES if choice == "average" else [choice]) <= set(head["tags"])
    assert "license" not in head
    assert "The project states no licence" in card
    for name in [*NAMES, "average"] if choice == "average" else [choice]:
        assert f"| {name} " in card
        assert f"{details['models'][name]['balanced_accuracy']:.4f}" in card
    assert ("No real listing is among them" in card) is True


def test_the_hubs_own_library_reads_the_card(measured: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=NOT_INSTALLED)
    out = export(measured, tmp_path / "out")
    card = hub.ModelCard.load(out / "README.md")
    assert card.text.lstrip().startswith("# Categories of marketplace listings")
    results = card.data.eval_results
    assert [result.metric_value for result in results] == [m["value"] for m in metrics_of(out)]
    index = hub.repocard_data.eval_results_to_model_index(card.data.model_name, results)
    assert index == front(out)["model-index"]
    assert yaml.safe_load(card.data.to_yaml()) == front(out)


def test_models_of_no_project_have_a_card_without_results(
    models: Path, unchecked: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(models, tmp_path / "out")
    assert "the model card has no results" in capsys.readouterr().err
    assert "model-index" not in front(out)
    assert "language" not in front(out)
    assert "Not measured for this copy" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage", [lambda details: [], lambda details: details | {"models": {"cnn": {"accuracy": None}}}]
)
def test_damaged_metrics_are_told_and_left_out(
    damage: Any, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics/details.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    out = export(measured, tmp_path / "out")
    assert "warning: the model card has no results" in capsys.readouterr().err
    assert "model-index" not in front(out)


def test_the_same_models_give_the_same_bytes(measured: Path, tmp_path: Path) -> None:
    def content(out: Path) -> dict[str, bytes]:
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    choices: Sequence[Path] = [export(measured, tmp_path / name) for name in ("one", "two")]
    assert content(choices[0]) == content(choices[1])
