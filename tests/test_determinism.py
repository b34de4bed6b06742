"""The same bytes, whoever runs the stages and whatever surrounds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from small_project import STAGES, environment, outs, run, write_project

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

OTHER_USER = 54_321
NAME = "año 1"  # of the second folder: neither ASCII nor one word


def files(folder: Path) -> dict[str, bytes]:
    """All that the five stages made, the metrics and plots too."""
    made = [folder / out for stage in STAGES for out in outs(folder, stage)]
    found = [file for out in made for file in [out, *sorted(out.rglob("*"))] if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def repro(folder: Path, surroundings: Mapping[str, str], umask: int, *starter: str) -> None:
    """Run the stages with other variables, by a command that starts them otherwise."""
    done = subprocess.run(
        [*starter, "dvc", "repro"],
        cwd=folder,
        env=environment(mlflow=True) | surroundings,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"Running stage '{stage}'" in done.stdout for stage in STAGES)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users can enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="titles-determinism-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def project(place: Path) -> Path:
    """Never run."""
    folder = place / "project"
    folder.mkdir()
    write_project(folder, 1_000)
    return folder


@pytest.fixture(scope="module")
def usual(place: Path, project: Path) -> Path:
    """Run in plain surroundings."""
    shutil.copytree(project, place / "usual")
    plain = {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0"}
    repro(place / "usual", plain, 0o022)
    return place / "usual"


def assert_same(folder: Path, usual: Path) -> None:
    expected, found = files(usual), files(folder)
    assert len(expected) > 40
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    # All hashes and sizes, of inputs and outputs.
    assert (folder / "dvc.lock").read_bytes() == (usual / "dvc.lock").read_bytes()


def test_another_user_folder_time_zone_hash_seed_and_umask_give_the_same_bytes(
    place: Path, project: Path, usual: Path
) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("NOT RUN as another user: only root can become one, with setpriv of util-linux")
    home = place / "home"
    home.mkdir()
    folder = home / NAME
    shutil.copytree(project, folder)
    run(place, "chown", "-R", f"{OTHER_USER}:{OTHER_USER}", str(home))
    # That user may read everything, as Python may lie in root's own folder, and write what it owns.
    reading = [word for kind in ("inh", "ambient") for word in (f"--{kind}-caps", "+dac_read_search")]
    become = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", *reading]
    assert run(place, *become, "id", "-u").strip() == str(OTHER_USER)
    assert "denied" in run(place, *become, "touch", str(place / "usual/dvc.lock"), fails=True)
    surroundings = {
        "HOME": str(home),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "Asia/Kathmandu",  # 5:45 ahead
        "PYTHONHASHSEED": "4242",
    }
    repro(folder, surroundings, 0o077, *become)
    assert (folder / "models/cnn/weights.safetensors").stat().st_uid == OTHER_USER
    assert_same(folder, usual)


def test_one_core_and_a_turkish_locale_that_is_not_utf_8_give_the_same_bytes(
    place: Path, project: Path, usual: Path
) -> None:
    """There I and i are no pair, and 1.5 is written 1,5."""
    made = (
        subprocess.run(
            ["localedef", "-i", "tr_TR", "-f", "ISO-8859-9", str(place / "tr_TR")],
            capture_output=True,
            check=False,
        )
        if shutil.which("localedef")
        else None
    )
    if made is None or not (place / "tr_TR").is_dir():
        pytest.skip("NOT RUN in a Turkish locale: install localedef and its sources to include it")
    surroundings = {"LOCPATH": str(place), "LC_ALL": "tr_TR", "TZ": "America/Buenos_Aires"}
    ask = "from locale import *; setlocale(LC_ALL, ''); print(str(1.5), getencoding())"
    answer = subprocess.run(
        [sys.executable, "-c", ask], env=environment() | surroundings, capture_output=True, check=True
    )
    assert answer.stdout.split() == [b"1,5", b"ISO-8859-9"]
    folder = place / "turkish"
    shutil.copytree(project, folder)
    core = str(min(os.sched_getaffinity(0)))
    repro(folder, surroundings, 0o002, "taskset", "-c", core)
    assert_same(folder, usual)
