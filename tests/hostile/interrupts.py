"""Commands that are interrupted or killed: an output is the old one or the new one."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from hostile.harness import Place, case, cases, excerpt

KIND = "interrupts"
# The trace of an interrupt that came before a command's own code.
BEFORE_MAIN = re.compile(r"Traceback(?!.*, in main\n).*KeyboardInterrupt", re.S)
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
# Sends itself a signal just before a change to the current folder, counted from the first; 0: none.
_DYING = """
import os, signal, sys, time
from pathlib import Path
number, last, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree"}
folder, own, count = os.getcwd(), os.getpid(), 0
def hook(event, given):
    global count
    if event == "open":
        changing = isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
    else:
        changing = event in changes or (event == "ctypes.call_function")
    if not changing or os.getpid() != own:
        return
    if event != "ctypes.call_function":
        if not isinstance(given[0], (str, os.PathLike)):
            return
        path = os.path.abspath(os.fspath(given[0]))
        if not path.startswith(folder) or "__pycache__" in path or ".titles" in path:
            return
    count += 1
    if count == last:
        os.kill(own, number)
        time.sleep(0.01)
sys.addaudithook(hook)
code = 0
try:
    if command[0] == "prepare":
        sys.orig_argv = [sys.executable, "-m", "titles.stages.prepare"]
        from titles.stages import prepare
        prepare.main()
    else:
        from titles.cli import main
        code = main(command)
finally:
    if not last:
        print("changes", count)
sys.exit(code)
"""


def dying(place: Place, number: int, last: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _DYING, str(number), str(last), *command],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=600,  # a busy machine is slow
        check=False,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def prepared_twice(place: Place) -> list[dict[str, bytes]]:
    """Old and new content of data/prepared; the old is in place, the parameters are those of the new."""
    place.listing()
    made = []
    for words in (9, 5):
        place.parameters(max_words=words)
        place.done("prepare", makes=["data", "metrics"])
        made.append(content(place / "data/prepared"))
        shutil.copytree(place / "data/prepared", place.folder.parent / str(words))
    assert made[0] != made[1], "the case is broken: both contents are equal"
    return made


@cases(KIND, {f"prepare, by {name} at its last changes": name for name in SIGNALS})
def prepare_at_each_change(place: Place, name: str) -> None:
    old_and_new = prepared_twice(place)
    told = dying(place, 0, 0, "prepare").stdout
    changes = int(told.rpartition("changes ")[2])
    # The exchange of the folders, and what follows.
    for last in range(changes, max(0, changes - 12), -1 if name == "KILL" else -2):
        for left in (place / "data").iterdir():
            shutil.rmtree(left)
        shutil.copytree(place.folder.parent / "9", place / "data/prepared")
        done = dying(place, SIGNALS[name], last, "prepare")
        assert (place / "data/prepared").is_dir(), f"at change {last} of {changes} nothing is left"
        found = content(place / "data/prepared")
        assert found in old_and_new, f"at change {last} of {changes} a mixture is left"
        assert "Traceback" not in done.stderr, f"at change {last}: {excerpt(done.stderr[-200:])}"
        if name != "KILL":
            left = sorted(path.name for path in (place / "data").iterdir())
            assert left == ["prepared"], f"at change {last} of {changes} there are {left}"
    place.done("prepare", makes=["data", "metrics"])
    assert content(place / "data/prepared") == old_and_new[1]


@cases(KIND, {f"prepare, by {name} at random moments": name for name in SIGNALS})
def prepare_at_moments(place: Place, name: str) -> None:
    old_and_new = prepared_twice(place)
    started = time.monotonic()
    place.done("prepare", makes=["data", "metrics"])
    took, draw = time.monotonic() - started, random.Random(f"{name} 3")
    for _ in range(5):
        shutil.rmtree(place / "data/prepared")
        shutil.copytree(place.folder.parent / "9", place / "data/prepared")
        process = place.start("prepare", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(took * draw.uniform(0.3, 1))
        process.send_signal(SIGNALS[name])
        told = process.communicate(timeout=150)[0].decode()
        assert process.returncode in (0, 128 + SIGNALS[name], -SIGNALS[name]), excerpt(told)
        assert "Traceback" not in told, excerpt(told[-200:])
        assert (place / "data/prepared").is_dir()
        assert content(place / "data/prepared") in old_and_new


@cases(KIND, {f"export onnx, by {name}": name for name in SIGNALS})
def export_at_its_last_changes(place: Place, name: str) -> None:
    place.models()
    place.done("export", "onnx", "--model", "mlp", "--out", "out", makes=["out"])
    old = content(place / "out")
    command = ("export", "onnx", "--model", "cnn", "--out", "out")
    changes = int(dying(place, 0, 0, *command).stdout.rpartition("changes ")[2])
    new = content(place / "out")
    for last in (changes, changes - 2):
        shutil.rmtree(place / "out")
        for file, data in old.items():
            place.write(f"out/{file}", data)
        done = dying(place, SIGNALS[name], last, *command)
        assert "Traceback" not in done.stderr, f"at change {last}: {excerpt(done.stderr[-200:])}"
        assert (place / "out").is_dir(), f"at change {last} of {changes} nothing is left"
        found = content(place / "out")
        same = [
            found.keys() == other.keys() and found["encoding.json"] == other["encoding.json"]
            for other in (old, new)
        ]
        assert any(same), f"at change {last} of {changes} a mixture is left"
        if name != "KILL":
            left = {path.name for path in place.folder.iterdir()} - {"models", ".titles"}
            assert left == {"out"}, f"there are {left}"


@cases(KIND, {f"sample, by {name}": name for name in SIGNALS})
def sample_in_the_middle(place: Place, name: str) -> None:
    place.write("out.csv", "old")
    for moment in (0.9, 1.5):
        process = place.start("sample", "out.csv", "--rows", "9000000", stderr=subprocess.PIPE)
        time.sleep(moment)
        process.send_signal(SIGNALS[name])
        told = process.communicate(timeout=150)[1].decode()
        assert (place / "out.csv").read_text() == "old"
        assert "Traceback" not in told, excerpt(told[-200:])
        assert process.returncode in (128 + SIGNALS[name], -SIGNALS[name]), process.returncode
        if name != "KILL":
            left = [path.name for path in place.folder.iterdir()]
            assert left == ["out.csv"], f"there are {left}"


@cases(
    KIND,
    {
        "predict while it starts": ("predict", "--file", "in.csv"),
        "explain while it starts": ("explain", "word2"),
        "sample while it starts": ("sample", "out.csv", "--rows", "9000000"),
    },
)
def while_it_starts(place: Place, *command: str) -> None:
    place.models()
    place.write("in.csv", "title\n" + "word2 word3\n" * 400_000)
    for moment in (0.25, 0.5, 0.9, 1.6):
        process = place.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=150)[1].decode()
        assert process.returncode in (0, 130, -signal.SIGINT), f"exit code {process.returncode}"
        if not BEFORE_MAIN.search(told):
            assert "Traceback" not in told, f"after {moment} s: {excerpt(told[-300:])}"
            assert len(told.splitlines()) <= 2, f"after {moment} s: {excerpt(told)}"


@case(KIND, "two Ctrl-C, one after the other")
def twice(place: Place) -> None:
    place.models()
    process = place.start("sample", "out.csv", "--rows", "9000000", stderr=subprocess.PIPE)
    time.sleep(1)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    told = process.communicate(timeout=150)[1].decode()
    assert "Traceback" not in told, excerpt(told[-300:])
    assert not (place / "out.csv").exists()
