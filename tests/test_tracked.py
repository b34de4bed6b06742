"""Inputs that neither DVC nor git tracks are named, with the command to track them."""

from __future__ import annotations

import pytest

from small_project import run
from titles.params import Embed
from titles.tracking.tracked import note_inputs, note_untracked, untracked


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository whose files are tracked in all ways, or not at all."""
    folder = tmp_path_factory.mktemp("tracked") / "project"
    for name in ("raw/dvc.csv", "raw/git.csv", "raw/mine, of 2024.csv", "deep/in/a.csv", "mixed/a.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("title,category\na,b\n")
    (folder / "mixed/b.csv").write_text("title,category\na,b\n")
    (folder.parent / "outside.csv").write_text("")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "add", "-q", "raw/dvc.csv", "deep", "mixed/a.csv")
    run(folder, "git", "add", "raw/git.csv", "mixed/b.csv")
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    "path", ["raw/dvc.csv", "raw/git.csv", "./raw/dvc.csv", "deep", "deep/in/a.csv", "mixed", "missing"]
)
def test_what_is_tracked_or_missing_is_not_named(here, capsys, path):
    assert untracked(path) is None
    note_untracked("prepare.source", path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["raw/mine, of 2024.csv", "raw"])
def test_what_nothing_tracks_is_named_with_the_command(here, capsys, path):
    note_untracked("prepare.source", path)
    (line,) = capsys.readouterr().err.splitlines()
    shown = f"'{path}'" if " " in path else path
    assert line.startswith(f"warning: prepare.source {shown} is tracked by neither DVC nor git: ")
    assert line.endswith(f": `dvc add {shown}`")


def test_a_file_outside_of_the_project_is_named(here, capsys):
    note_untracked("prepare.source", str(here.parent / "outside.csv"))
    assert "is outside of the project: " in capsys.readouterr().err


def test_an_output_under_another_name_is_tracked(here):
    (here / "dvc.yaml").write_text("stages: {make: {cmd: touch made.csv, outs: [made.csv]}}\n")
    (here / "made.csv").touch()
    assert untracked("made.csv") is None
    (here / "dvc.yaml").unlink()
    assert untracked("made.csv") is not None


def test_without_a_repository_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    assert untracked("a.csv") is None


def test_vectors_count_only_where_they_are_read(here, capsys):
    settings = {"pretrained": "raw/mine, of 2024.csv", "dimension": 3, "epochs": 1, "window": 1}
    settings |= {"negative": 1, "subword_min": 1, "subword_max": 1, "workers": 1}
    note_inputs(Embed(method="pretrained", **settings))
    assert "embed.pretrained 'raw/mine, of 2024.csv' is tracked by neither" in capsys.readouterr().err
    note_inputs(Embed(method="word2vec", **settings | {"pretrained": "data/pretrained/none"}))
    assert capsys.readouterr().err == ""
