"""The notebook runs from beginning to end on the committed networks."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    find_spec("marimo") is None, reason="NOT RUN: `make install-dev` brings marimo, to include it"
)
def test_the_notebook_runs_in_a_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    environment = os.environ | {"PYTHONPATH": str(clone / "src")}

    def run(*command: str, folder: Path = clone) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("git", "clone", "-q", str(ROOT), str(clone), folder=tmp_path)
    run("dvc", "pull", "-q", "--remote", "store", "models/cnn", "models/mlp", "models/sets.json")
    program = clone / "notebooks/first_look.py"
    pages = clone / "page.html"
    run(
        sys.executable, "-m", "marimo", "export", "html", str(program), "-o", str(pages), folder=tmp_path
    )
    page = pages.read_text(encoding="utf-8")
    for text in ("CELLPHONE_COVERS", "validation_balanced_accuracy", "average.balanced_accuracy"):
        assert text in page
    assert "marimo-error" not in page
    assert run("git", "status", "--porcelain") == "?? page.html\n"
