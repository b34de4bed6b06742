"""Damaged data that DVC takes for whole is found, and mended by what is advised."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import test_doctor
from small_project import commit, put, run
from test_doctor import examine, told
from titles.experiments import objects

pytestmark = pytest.mark.pipeline

made = test_doctor.made
FILES = {"made": b"content", "data/raw/folder/a": b"first\n" * 50, "data/raw/folder/b": b"second\n" * 50}


@pytest.fixture(scope="module")
def pushed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an output that is a file and one that is a folder."""
    folder = tmp_path_factory.mktemp("pushed") / "project"
    shutil.copytree(made, folder, symlinks=True)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    run(folder, "dvc", "add", "-q", "data/raw/folder")
    run(folder, "dvc", "push", "-q")
    commit(folder, "folder")
    return folder


@pytest.fixture
def project(pushed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed, tmp_path / "project", symlinks=True))


def follow(project: Path, finding: dict[str, Any]) -> None:
    """Run what is advised, as it stands there."""
    for command in re.findall("`([^`]+)`", finding["do"])[:2]:
        run(project, "sh", "-c", command)


def flip(data: bytes) -> bytes:
    return data[:9] + bytes([data[9] ^ 1]) + data[10:]


@pytest.mark.parametrize(
    "way",
    [
        flip,
        *(
            pytest.param(way, marks=pytest.mark.endures)
            for way in (lambda data: data[:5], lambda data: b"", lambda data: data + b"\0")
        ),
    ],
)
def test_damaged_objects_of_the_cache_are_found_and_mended(
    project: Path, way: Callable[[bytes], bytes]
) -> None:
    cache = project / ".dvc/cache"
    outs = objects.cached(project)
    names = objects.named(cache, outs["data/raw/folder"])
    assert len(names) == 3
    for name in names[:2]:  # the listing, and a file
        path = objects.place(cache, name)
        put(path, way(path.read_bytes()))
    # A folder's files are read once its listing is whole again.
    for _ in range(2):
        (finding,) = examine(project)["bytes"]
        assert finding["level"] == "problem"
        assert "1 damaged or missing objects in DVC's cache" in finding["found"]
        assert "data/raw/folder" in finding["found"]
        follow(project, finding)
    found = examine(project)
    assert "are what their names say" in told(found, "bytes", "ok")
    assert "to the byte" in told(found, "workspace", "ok")
    assert all((project / name).read_bytes() == content for name, content in FILES.items())


@pytest.mark.endures
def test_what_was_checked_out_from_a_damaged_object_is_found_and_mended(project: Path) -> None:
    cache = project / ".dvc/cache"
    for name in objects.named(cache, objects.cached(project)["data/raw/folder"])[1:]:
        path = objects.place(cache, name)
        put(path, flip(path.read_bytes()))
    shutil.rmtree(project / "data/raw/folder")
    run(project, "dvc", "checkout", "-q")
    assert (project / "data/raw/folder/a").read_bytes() == flip(FILES["data/raw/folder/a"])
    found = examine(project)
    assert "data/raw/folder/a" in told(found, "workspace", "problem")
    assert "2 damaged or missing objects" in told(found, "bytes", "problem")
    follow(project, found["bytes"][0])
    found = examine(project)
    assert "are what their names say" in told(found, "bytes", "ok")
    assert "to the byte" in told(found, "workspace", "ok")
    assert all((project / name).read_bytes() == content for name, content in FILES.items())


@pytest.mark.endures
def test_a_damaged_file_of_the_workspace_is_found_and_mended(project: Path) -> None:
    run(project, "dvc", "status", "-q")  # DVC notes times and hashes
    put(project / "data/raw/folder/b", flip(FILES["data/raw/folder/b"]))
    found = examine(project)
    assert "data/raw/folder/b" in told(found, "workspace", "problem")
    assert "are what their names say" in told(found, "bytes", "ok")
    follow(project, found["workspace"][0])
    assert "to the byte" in told(examine(project), "workspace", "ok")
    assert all((project / name).read_bytes() == content for name, content in FILES.items())


def test_a_damaged_object_of_the_remote_is_found_and_mended(project: Path) -> None:
    name = objects.cached(project)["made"]
    path = objects.place(project / "remote", name)
    put(path, b"CONTENT")
    found = examine(project)
    assert "1 damaged or missing objects in the remote store" in told(found, "bytes", "problem")
    follow(project, found["bytes"][0])
    assert path.read_bytes() == FILES["made"]
    assert "are what their names say" in told(examine(project), "bytes", "ok")


@pytest.mark.parametrize("store", [".dvc/cache", pytest.param("remote", marks=pytest.mark.endures)])
def test_a_file_that_a_folder_lacks_is_found_and_mended(project: Path, store: str) -> None:
    name = objects.named(project / store, objects.cached(project)["data/raw/folder"])[-1]
    objects.place(project / store, name).unlink()
    found = examine(project)
    assert "data/raw/folder" in told(found, "bytes", "problem")
    follow(project, found["bytes"][0])
    assert objects.is_whole(objects.place(project / store, name), name)
    assert "are what their names say" in told(examine(project), "bytes", "ok")


def test_a_lock_that_is_no_lock_is_told(project: Path) -> None:
    (project / "dvc.lock").write_text("stages: [1]")
    with pytest.raises(ValueError, match=r"dvc\.lock is damaged: `git checkout` it"):
        objects.cached(project)
