"""Networks written for other tools: what is refused, and what is left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from saved_models import write_models
from titles.cli import main

pytestmark = pytest.mark.pipeline  # torch loads its compiler to export

pytest.importorskip("onnx")
KINDS = ["hub", "mlflow", "onnx"]
MARKS = {"mlflow": "MLmodel", "onnx": "encoding.json"}
ANOTHER = {"hub": "onnx", "mlflow": "onnx", "onnx": "mlflow"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_models(tmp_path / "models")


@pytest.fixture
def export(models: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command for the CNN; returns its exit code and what it told."""

    def run(kind: str, out: Path) -> tuple[int, str]:
        code = main(["export", kind, "--model", "cnn", "--models", str(models), "--out", str(out)])
        return code, capsys.readouterr().err

    return run


def another_format(folder: Path) -> None:
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | {"format": 2}))


def a_word_less(folder: Path) -> None:
    lines = (folder / "vocabulary.tsv").read_text().splitlines(keepends=True)
    (folder / "vocabulary.tsv").write_text("".join(lines[:-1]))


def no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (another_format, "has model format 2, this version reads"),
        (a_word_less, "12 vectors for 11 words"),
        (no_weights, "has no weights.safetensors: run `dvc repro`, or `dvc pull`"),
    ],
)
def test_a_model_folder_that_is_not_whole_is_refused_and_nothing_is_written(
    export, models: Path, tmp_path: Path, kind: str, damage: Callable[[Path], None], told: str
) -> None:
    damage(models / "cnn")
    code, message = export(kind, tmp_path / "out")
    assert code == 1
    assert told in message
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    export, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    assert export(kind, out)[0] == 0
    (out / "added").touch()
    assert export(kind, out)[0] == 0
    assert not (out / "added").exists()
    for name in ("thesis.txt", MARKS[ANOTHER[kind]]):
        other = tmp_path / "other"
        other.mkdir()
        (other / name).write_text("mine")
        code, message = export(kind, other)
        assert code == 1
        assert "exists and is not an earlier export" in message
        assert (other / name).read_text() == "mine"
        (other / name).unlink()
        other.rmdir()
    other.write_text("a file")
    assert export(kind, other)[0] == 1
    assert other.read_text() == "a file"


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_fails_leaves_the_earlier_one(
    export, models: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    assert export(kind, out)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    a_word_less(models / "cnn")
    assert export(kind, out)[0] == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
