"""Outputs take their names only when they are on the disk."""

import os
from pathlib import Path

import pytest

from titles.data import files


@pytest.fixture
def synced(monkeypatch):
    """What was brought to the disk, in order, and whether `out` had its new content by then."""
    found = []
    real = files.to_disk

    def spy(path):
        real(path)
        new = [Path("out"), Path("out/a")]
        found.append((path.as_posix(), any(p.is_file() and p.read_bytes() == b"new" for p in new)))

    monkeypatch.setattr(files, "to_disk", spy)
    return found


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, synced):
    monkeypatch.chdir(tmp_path)
    Path("out").write_bytes(b"old")
    with files.atomic_file(Path("out")) as partial:
        partial.write_bytes(b"new")
    assert synced == [("out.partial", False), (".", True)]


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, synced):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    with files.atomic_folder(Path("out")) as partial:
        (partial / "a").write_bytes(b"new")
        (partial / "b").mkdir()
        (partial / "b/c").write_bytes(b"new")
    *before, last = synced
    assert sorted(before) == [
        (name, False) for name in ("out.partial", "out.partial/a", "out.partial/b", "out.partial/b/c")
    ]
    assert last == (".", True)


def test_what_the_disk_refuses_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "out").write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space left"),
        files.atomic_file(tmp_path / "out") as partial,
    ):
        partial.write_bytes(b"new")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert not (tmp_path / "out.partial").exists()
