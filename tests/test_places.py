"""Projects in odd places: folders of any name, each shape of git repository, each kind of link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.config import Config
from sqlalchemy import make_url

from titles.data.files import atomic_file, atomic_folder
from titles.experiments.clones import cloned
from titles.experiments.commands import git, top
from titles.experiments.paths import unfit
from titles.experiments.store import find, head
from titles.tracking.mlflow import open_store
from titles.tracking.provenance import sqlite_uri

ODD = "Año 100%25 a?b#'c\"\\ :d:e,[x];&$HOME"


def small_repository(folder: Path) -> Path:
    """A git repository with two commits, the second of them with a project of DVC."""
    folder.mkdir(parents=True)
    git("init", "-q", "-b", "main", folder=folder)
    for key in ("user.name", "user.email"):
        git("config", key, "t@example.com", folder=folder)
    git("commit", "-q", "--allow-empty", "-m", "empty", folder=folder)
    write_project(folder)
    return folder


def write_project(folder: Path) -> None:
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").touch()
    (folder / ".dvc/.gitignore").write_text("/config.local\n/cache\n")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text("seed: 1\n")
    git("add", "-A", folder=folder)
    git("commit", "-q", "-m", "project", folder=folder)


def shaped(shape: str, folder: Path) -> Path:
    """The folder of a project in a repository of that shape."""
    if shape == "subfolder":
        top = small_repository(folder / "all")
        write_project(top / "teams/ml")
        (top / "params.yaml").write_text("seed: 2\n")  # of another project
        git("commit", "-q", "-a", "-m", "other", folder=top)
        return top / "teams/ml"
    whole = small_repository(folder / "whole")
    if shape == "worktree":
        git("worktree", "add", "-q", "-b", "feature/slash", str(folder / "tree"), folder=whole)
        return folder / "tree"
    if shape in ("shallow", "partial"):
        git("config", "uploadpack.allowFilter", "true", folder=whole)
        how = "--depth=1" if shape == "shallow" else "--filter=blob:none"
        git("clone", "-q", how, whole.as_uri(), str(folder / "clone"))
        return folder / "clone"
    if shape == "detached":
        git("checkout", "-q", "--detach", folder=whole)
    return whole


SHAPES = ["whole", "subfolder", "worktree", "shallow", "partial", "detached"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["plain", ODD])
def test_a_clone_is_made_of_any_repository(
    shape: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "plain"
    project = shaped(shape, place)
    if name != "plain" and shape not in ("worktree", "partial"):  # these hold the path of the whole
        project = place.rename(tmp_path / name) / project.relative_to(place)
    (project / ".dvc/config.local").write_text(f'[remote "mine"]\n    url = ../../{"ñ"}\n')
    monkeypatch.chdir(project)
    folder = tmp_path / "Ñ 1"
    folder.mkdir()
    clone = cloned(project, head(), folder)
    assert (clone / "params.yaml").read_text() == "seed: 1\n"
    assert git("status", "--porcelain", folder=clone) == ""
    assert git("rev-parse", "HEAD", folder=clone) == git("rev-parse", "HEAD")
    read = Config(str(clone / ".dvc"))
    assert read["cache"]["dir"] == str(project / ".dvc/cache")
    assert read["remote"]["mine"]["url"] == str(project.parent / "ñ")
    assert Path(read["core"]["site_cache_dir"]).is_relative_to(folder)


@pytest.mark.parametrize("shape", SHAPES)
def test_files_of_a_commit_are_those_of_the_project(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shaped(shape, tmp_path)
    (project / "below").mkdir()
    for folder in (project, project / "below"):
        monkeypatch.chdir(folder)
        assert find("HEAD").params == {"seed": 1}
        assert find("workspace").params == {"seed": 1}
    if shape == "worktree":
        assert find("feature/slash").commit == head()


def test_a_commit_that_a_shallow_clone_lacks_is_told_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = shaped("shallow", tmp_path)
    monkeypatch.chdir(clone)
    older = git("rev-parse", "HEAD~1", folder=tmp_path / "whole").strip()
    for name in ("HEAD~1", older):
        with pytest.raises(ValueError, match=r"is shallow, .* `git fetch --unshallow`"):
            find(name)
    with pytest.raises(ValueError, match=r"is shallow, .* `git fetch --unshallow`"):
        git("diff", "--name-only", older)
    git("fetch", "-q", "--unshallow")
    assert find("HEAD~1").commit == older
    with pytest.raises(ValueError, match=r"named 'none'((?!shallow).)*$"):
        find("none")


def test_a_branch_that_only_the_origin_has_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = shaped("partial", tmp_path)
    monkeypatch.chdir(clone)
    git("branch", "-q", "feature/x", folder=tmp_path / "whole")
    git("fetch", "-q")
    with pytest.raises(ValueError, match="there is a branch origin/feature/x"):
        find("feature/x")


@pytest.mark.parametrize(
    ("path", "any_run", "temporary"),
    [
        ("/home/a b'\"\\:;,&[x]*$~=+@!|<>()", True, True),
        ("/home/Año", True, False),
        ("/home/100%", True, False),
        ("/home/a?b", True, False),
        ("/home/a#b", True, False),
        ("/home/a\tb", True, False),
        ("/home/a{b", False, False),
        ("/home/%(x)s", False, False),
    ],
)
def test_where_dvc_cannot_work_the_path_is_named(path: str, any_run: bool, temporary: bool) -> None:
    for told, fits in ((unfit(Path(path)), any_run), (unfit(Path(path), temporary=True), temporary)):
        assert (told == "") == fits
        assert fits or (path in told and "move the project" in told)


@pytest.mark.parametrize("name", [b"a\nb", b"a\rb", b"a\xffb"])
def test_a_path_that_no_line_can_hold_is_told_in_one(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(name)
    project = small_repository(folder)
    monkeypatch.chdir(project)
    (tmp_path / "clone").mkdir()
    with pytest.raises(ValueError, match=r"^DVC cannot work in .*a\?b, for the .*: move the project.*$"):
        cloned(top(), head(), tmp_path / "clone")


@pytest.mark.parametrize("name", [ODD, "{a}", "a%20b", " a ", "%(x)s", "a\tb"])
def test_the_uri_of_a_file_leads_to_it(name: str) -> None:
    path = f"/{name}/{name}.db"
    assert make_url(sqlite_uri(Path(path))).database == path


def test_the_store_of_mlflow_is_the_file_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / ODD
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client, experiment = open_store()
    run = client.create_run(experiment).info.run_id
    (project / "some.txt").write_text("x")
    client.log_artifact(run, "some.txt")
    assert {path.name for path in project.iterdir()} >= {"mlflow.db", "mlruns"}
    assert list(project.glob("mlruns/**/some.txt"))
    assert [path.name for path in tmp_path.iterdir()] == [ODD]


# -- links


def test_a_link_of_the_users_own_is_written_through_and_one_into_the_cache_is_not(
    tmp_path: Path,
) -> None:
    cached = tmp_path / "cache/files/md5/0f" / ("a" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("cached")
    into_cache, own, chain = tmp_path / "into", tmp_path / "own", tmp_path / "chain"
    (tmp_path / "there").mkdir()
    into_cache.symlink_to(cached)
    own.symlink_to("there/new")
    chain.symlink_to(own)
    for link, real in ((own, tmp_path / "there/new"), (chain, tmp_path / "there/new")):
        with atomic_file(link) as partial:
            partial.write_text(link.name)
        assert link.is_symlink()
        assert real.read_text() == link.name
    chain.unlink()
    chain.symlink_to(into_cache)
    with atomic_file(chain) as partial:
        partial.write_text("new")
    assert chain.is_symlink()
    assert not into_cache.is_symlink()
    assert into_cache.read_text() == "new"
    assert cached.read_text() == "cached"
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / "there")
    with atomic_folder(folder) as made:
        (made / "one").touch()
    assert folder.is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["one"]
    assert not list(tmp_path.rglob("*.partial"))


def test_links_that_never_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with (
        pytest.raises(ValueError, match=r"cannot write .*: too many levels"),
        atomic_file(tmp_path / "a"),
    ):
        pass


def test_make_refuses_a_folder_that_no_environment_can_be_in(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    root = Path(__file__).parents[1]
    for path in (root / "Makefile", root / "pyproject.toml", *root.glob("requirements*")):
        (folder / path.name).symlink_to(path)
    command = ["make", "install", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode
    assert re.search("error: .* with : { or } in its path: move the project", done.stderr)
    assert not (folder / ".venv").exists()
