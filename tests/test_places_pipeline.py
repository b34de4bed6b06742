"""The commands of a project that has run, in odd places: see test_places.py."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

import small_project

pytestmark = pytest.mark.pipeline

TITLES = (sys.executable, "-m", "titles.cli")
ODD = "Año 100%25 a?b#'c\"\\ :d:e,[x]"
SPACE = """
network: mlp
early_stopping: none
space:
  mlp.dropout: {low: 0.0, high: 0.75}
"""


def titles(folder: Path, *arguments: str, fails: bool = False) -> str:
    return small_project.run(folder, *TITLES, *arguments, fails=fails)


def test_in_a_folder_of_any_name_the_commands_work_or_name_the_remedy(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / ODD).mkdir()
    project = small_project.copy(base, tmp_path / ODD / "p")
    assert "all 2 outputs" in titles(project, "verify", "narrow", "--stage", "embed")
    told = titles(project, "mlflow", "sync")
    assert "were up to date" in titles(project, "mlflow", "sync"), told
    assert "cnn " in titles(project, "mlflow", "find", "narrow")
    assert "is registered" in titles(project, "mlflow", "register", "narrow")
    assert "move the project" in titles(project, "pruebas", fails=True)
    found = titles(project, "doctor")
    assert "DVC cannot run experiments in its queue" in found
    assert "-> move the project" in found
    (project / "space.yaml").write_text(SPACE)
    small_project.commit(project, "space")
    titles(project, "search", "space.yaml", "--name", "s", "--trials", "1", "--confirm", "0")
    assert "s-0" in small_project.run(project, "dvc", "exp", "list", "--name-only")
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert [path.name for path in (tmp_path / ODD).iterdir()] == ["p"]


@pytest.mark.parametrize("shape", ["subfolder", "shallow", "worktree"])
def test_in_any_repository_the_answers_are_those_of_a_full_clone(
    shape: str, base: Path, tmp_path: Path
) -> None:
    whole = small_project.copy(base, tmp_path / "whole")
    if shape == "subfolder":
        top = tmp_path / "all"
        top.mkdir()
        small_project.run(top, "git", "init", "-q", "-b", "main")
        small_project.run(whole, "git", "worktree", "add", "-q", "--detach", str(top / "ml"))
        (top / "ml/.git").unlink()
        small_project.run(top, "git", "add", "-A", "-f")
        small_project.commit(top, "all")
        place = top / "ml"
    elif shape == "shallow":
        place = tmp_path / "clone"
        small_project.run(tmp_path, "git", "clone", "-q", "--depth=1", whole.as_uri(), str(place))
    else:
        place = tmp_path / "tree"
        small_project.run(whole, "git", "worktree", "add", "-q", "-b", "feature/x", str(place))
    small_project.run(place, "dvc", "cache", "dir", "--local", str(whole / ".dvc/cache"))
    small_project.run(place, "dvc", "checkout", "-q")
    if shape == "shallow":
        small_project.run(place, "git", "fetch", "-q", "origin", "refs/exps/*:refs/exps/*")
    elif shape == "subfolder":
        small_project.experiment(place, "narrow", "cnn.filter_count=5")
        small_project.run(whole, "dvc", "exp", "remove", "slow")
    gate = ("gate", "HEAD", "narrow")
    assert titles(place, *gate) == titles(whole, *gate)
    rows = set(titles(place, "seeds", "--csv").splitlines())
    assert len(rows) > 3
    assert rows <= set(titles(whole, "seeds", "--csv").splitlines())
    titles(place, "report", "HEAD", "narrow", "--markdown", "report.md")
    titles(place, "mlflow", "sync")
    assert "cnn " in titles(place, "mlflow", "find", "narrow")
    assert "outputs" in titles(place, "verify", "narrow", "--stage", "prepare")


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_no_command_changes_the_cache_whatever_its_links_are(
    link: str, base: Path, tmp_path: Path
) -> None:
    project = small_project.copy(base, tmp_path / "project")
    small_project.run(project, "dvc", "config", "--local", "cache.type", link)
    small_project.run(project, "dvc", "checkout", "-q", "--relink")
    assert (project / "models/cnn/model.json").is_symlink() == (link == "symlink")

    def objects() -> dict[str, str]:
        files = (project / ".dvc/cache/files").rglob("*")
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}

    before = objects()
    for arguments in (
        ["predict", "funda celular"],
        ["export", "mlflow", "--out", "../mlflow"],
        ["export", "onnx", "--out", "../onnx"],
        ["mlflow", "register", "narrow"],
        ["explain", "funda celular", "--html", "models/card.md"],
        ["predict", "funda celular", "--out", "data/raw/sample.csv.gz"],
    ):
        titles(project, *arguments)
        assert objects() == before, arguments
    assert not (project / "models/card.md").is_symlink()
    exported = [*(tmp_path / "mlflow").rglob("*"), *(tmp_path / "onnx").rglob("*")]
    assert exported
    assert not any(path.is_symlink() for path in exported)
