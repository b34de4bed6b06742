"""The end of a program that began a session: all that it started can clean up, in a limited time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from titles.experiments import commands

# Starts a copy of itself; after an interrupt, each takes its time to clean up.
PROGRAM = """
import signal, subprocess, sys, time
from pathlib import Path
name, *others = sys.argv[1:]
own, *rest = others
def clean_up(*_):
    time.sleep(float(own))
    Path(name + ".clean").touch()
    sys.exit()
signal.signal(signal.SIGINT, clean_up)
if rest:
    subprocess.Popen([sys.executable, __file__, "child", *rest])
Path(name + ".ready").touch()
time.sleep(60)
"""


def started(folder: Path, parent: float, child: float) -> subprocess.Popen[bytes]:
    """Seconds that each takes to clean up."""
    (folder / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(folder / "program.py"), "parent", str(parent), str(child)],
        cwd=folder,
        start_new_session=True,
    )
    while not (folder / "child.ready").exists() or not (folder / "parent.ready").exists():
        time.sleep(0.02)
    return process


def left(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for other in psutil.process_iter(["status"]):
        try:
            if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.parametrize(("parent", "child"), [(0, 1), (1, 0), (0, 0)])
def test_a_child_may_clean_up_after_its_parent_has_ended(
    tmp_path: Path, parent: float, child: float
) -> None:
    process = started(tmp_path, parent, child)
    start = time.monotonic()
    commands.end(process)
    assert {path.name for path in tmp_path.glob("*.clean")} == {"parent.clean", "child.clean"}
    assert process.returncode == 0
    assert left(process) == []
    assert time.monotonic() - start < commands._PATIENCE / 2  # nothing is waited for that has ended


@pytest.mark.parametrize(("parent", "child"), [(0, 50), (50, 0), (50, 50)])
def test_what_does_not_end_is_killed_when_the_patience_is_spent(
    tmp_path: Path, parent: float, child: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_PATIENCE", 1.5)
    process = started(tmp_path, parent, child)
    commands.end(process)
    assert process.returncode == (-9 if parent else 0)
    time.sleep(0.2)
    assert left(process) == []


def test_what_has_ended_is_left_alone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    commands.end(process)
    assert process.returncode == 0


def test_a_second_interrupt_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = started(tmp_path, 50, 50)

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        commands.end(process)
    assert process.returncode == -9
