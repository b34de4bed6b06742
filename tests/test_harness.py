"""Tests that hang, die or find no place to write to end in a clear line and disturb no others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import conftest
from small_project import ROOT


def run_pytest(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests in two processes, with the project's settings, as `make test` does."""
    (folder / "test_it.py").write_text(body)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, "-n", "2", "--dist", "loadfile", "-c", str(ROOT / "pyproject.toml"), *options, "."],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT / "tests"), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.pipeline
def test_a_test_that_hangs_and_one_that_kills_its_process_are_named_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    body = "import os, time\n\n"
    body += (
        "def test_dies(): os._exit(3)\n\ndef test_hangs(): time.sleep(300)\n\ndef test_passes(): pass\n"
    )
    done = run_pytest(tmp_path, body, "--timeout", "2")
    assert done.returncode == 1
    assert "crashed while running 'test_it.py::test_dies" in done.stdout
    assert "FAILED test_it.py::test_hangs - Failed: Timeout" in done.stdout
    assert "2 failed, 1 passed" in done.stdout


def test_without_a_folder_to_write_to_no_test_starts(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(pytest.exit.Exception, match=r"^error: .* name one with TMPDIR: No usable"):
        conftest.pytest_configure(pytestconfig)


MAKING = """
import os, sys, time
from pathlib import Path
from small_project import once

def make(folder):
    (folder / "half").touch()
    if sys.argv[2] == "die":
        os._exit(9)
    time.sleep(1)
    (folder / "whole").touch()
    print("made")

print(sorted(path.name for path in once(Path(sys.argv[1]), make).iterdir()))
"""


@pytest.mark.pipeline
def test_what_processes_need_at_once_is_made_once_and_whole_although_a_maker_died(
    tmp_path: Path,
) -> None:
    def start(how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAKING, str(tmp_path / "made"), how],
            env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
            stdout=subprocess.PIPE,
            text=True,
        )

    assert start("die").wait() == 9
    told = [process.communicate()[0].splitlines() for process in [start("make"), start("make")]]
    assert sorted(told) == [["['half', 'whole']"], ["made", "['half', 'whole']"]]
