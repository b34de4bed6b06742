"""Compiled kernels are kept on disk, and never needed there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from titles.data import kernel_cache
from titles.data.compiling import compiled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels of this file are kept."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def add(numbers, first, last):
    for place in range(first, last):
        numbers[place] += 1


def run() -> int:
    """Run a kernel as a new process would; returns how often it was found on disk."""
    found = []
    numbers = np.zeros(3)

    class Counted(kernel_cache._Files):
        def load(self, key):
            data = super().load(key)
            found.append(data is not None)
            return data

    before, kernel_cache._Files = kernel_cache._Files, Counted
    try:
        compiled(add)(numbers, 1, 3)
    finally:
        kernel_cache._Files = before
    assert numbers.tolist() == [0, 1, 1]
    return sum(found)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_next_process_finds_what_the_first_compiled(folder):
    assert run() == 0
    (file,) = kept(folder)
    assert file.suffix == ".nbc"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert run() == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:10], id="only a part of the hash"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut short"),
        pytest.param(lambda content: content[:-1], id="without the last byte"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda content: content + b"x", id="longer"),
        pytest.param(
            lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:], id="a bit"
        ),
        pytest.param(lambda content: b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.", id="a pickle"),
    ],
)
def test_what_is_damaged_is_compiled_again_and_replaced(folder, damage):
    run()
    (file,) = kept(folder)
    file.write_bytes(damage(file.read_bytes()))
    assert run() == 0
    assert run() == 1
    assert kept(folder) == [file]


def test_a_folder_that_others_can_write_to_becomes_private(folder):
    run()
    (file,) = kept(folder)
    file.parent.chmod(0o777)
    run()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_could_have_written_is_not_loaded(folder, mode):
    run()
    (file,) = kept(folder)
    file.chmod(mode)
    assert run() == 0


def test_files_of_another_user_are_not_loaded(folder, monkeypatch):
    run()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert run() == 0


def test_a_full_disk_costs_only_the_time_to_compile(folder, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel_cache.tempfile, "NamedTemporaryFile", Full)
    assert run() == 0
    assert kept(folder) == []


@pytest.mark.parametrize("place", ["a file", "\udcff not UTF-8", "/dev/null", "x" * 300, "/proc/1/none"])
def test_any_setting_of_the_folder_works(tmp_path, monkeypatch, place):
    (tmp_path / "a file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / place))
    monkeypatch.setenv("HOME", str(tmp_path / "a file"))
    numbers = np.zeros(3)
    compiled(add)(numbers, 0, 3)
    assert numbers.tolist() == [1, 1, 1]


SCRIPT = """
import numpy as np
from titles.models.parts import kernels
table = np.ones((2, 2), np.float32)
rates = np.array([0, 0, 1, 1, 1], np.float32)
kernels.adam(table, table * 0, table * 0, np.array([1]), np.ones((1, 2), np.float32), rates, 0, 1)
print(table.tolist())
"""


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"HOME": None, "NUMBA_CACHE_DIR": None}, id="no home"),
        pytest.param({"HOME": "/nonexistent", "NUMBA_CACHE_DIR": "/nonexistent/x"}, id="no folder"),
    ],
)
def test_a_program_needs_no_place_for_its_cache(settings):
    environment = {**os.environ, **settings}
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[[1.0, 1.0], [0.5, 0.5]]\n"
