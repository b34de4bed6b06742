"""One run of the pipeline for a search: a process of its own, in a temporary clone of the project.

The working tree is not touched, so it can be edited meanwhile, and a kill leaves nothing in it. The
experiment reaches the project's git as the last step, all at once. The folder of a task is
.dvc/tmp/search/<search>/<experiment>: on the disk of the cache, and ignored by git and DVC.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from titles.data.contract import PLOTS
from titles.data.documents import read_json
from titles.data.interrupts import undisturbed
from titles.experiments.clones import CLONE, cloned
from titles.experiments.commands import end, environment, git
from titles.tracking import trial
from titles.tracking.provenance import PROJECT

_POLL = 0.1  # seconds
# Starts a task with this code, whose path may have the separator of PYTHONPATH in it.
_START = (
    "import runpy, sys; sys.path.insert(0, sys.argv[1]); "
    "runpy.run_module('titles.experiments.search.task', run_name='__main__')"
)
_TASK = "task.json"
_LOG_LINES = 15


@dataclass
class Task:
    """An experiment to run.

    project: its folder. timed: networks of which the time of a training is wanted, which is then run
    again if the result came from DVC's run cache.
    """

    name: str
    project: Path
    baseline: str
    overrides: Sequence[str]
    folder: Path
    timed: Sequence[str] = ()
    answers: bool = False  # whether trainings ask after each epoch if they should go on
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it anew; epochs and answers that its folder has stay."""
        _remove_clone(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.answers:
            trial.answering(self.folder)
        given = {
            "name": self.name,
            "project": str(self.project),
            "baseline": self.baseline,
            "overrides": list(self.overrides),
            "timed": list(self.timed),
        }
        (self.folder / _TASK).write_text(json.dumps(given), encoding="utf-8")
        with self.log_file.open("wb") as log, undisturbed():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(Path(__file__).parents[3])],
                cwd=self.folder,
                env=_environment(self.project, self.folder),  # by which `end_leftovers` finds it
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C does not reach it, and `end` reaches all of it
            )

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll() if self._process else None

    def end(self) -> None:
        """Interrupt it and all that it started."""
        if self._process:
            end(self._process)
        _remove_clone(self.folder)

    @property
    def log_file(self) -> Path:
        return self.folder / "log.txt"

    def log(self) -> str:
        """Its output so far."""
        with suppress(OSError):
            return self.log_file.read_text(encoding="utf-8", errors="replace")
        return ""

    def last_lines(self) -> str:
        """The end of its output, for a message."""
        lines = [line.rstrip() for line in self.log().replace("\r", "\n").splitlines() if line.strip()]
        return "\n".join(lines[-_LOG_LINES:])


def together(
    next_task: Callable[[], Task | None], jobs: int, watch: Callable[[Task], None]
) -> Generator[tuple[Task, int]]:
    """Run tasks, at most `jobs` at once; yield each with its exit code when it has ended.

    However this ends, so do the tasks: close it with contextlib.closing.

    Args:
        next_task: is asked for a task when one could start, until it has none and none runs.
        watch: is called for each task, again and again while it runs and once after its end.
    """
    running: list[Task] = []
    try:
        while True:
            while len(running) < jobs and (task := next_task()):
                running.append(task)
                task.start()
            if not running:
                return
            time.sleep(_POLL)
            for task in list(running):
                code = task.poll()  # before the last look at what it wrote
                watch(task)
                if code is not None:
                    task.end()
                    running.remove(task)
                    yield task, code
    finally:
        # In threads, so that all have the same time.
        with _requests_ignored(), ThreadPoolExecutor(len(running) or 1) as pool:
            list(pool.map(Task.end, running))


@contextmanager
def _requests_ignored() -> Iterator[None]:
    """Ignore further requests to end, such as another Ctrl-C, while what runs is ended."""
    # No SIG_IGN, which programs that are started meanwhile would inherit.
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_leftovers(folder: Path) -> None:
    """End what a killed search has left running for the tasks below a folder, and remove its clones."""
    while found := list(_below(folder)):  # again: one of them may have started another meanwhile
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, 10)
    for place in folder.iterdir():
        _remove_clone(place)


def _below(folder: Path) -> Iterator[psutil.Process]:
    """Processes that run for the tasks below a folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or is another user's
            task = process.environ().get(trial.VARIABLE)
            if task and Path(task).is_relative_to(folder.resolve()):
                yield process


def _remove_clone(folder: Path) -> None:
    for name in (CLONE, "site"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _environment(project: Path, folder: Path) -> dict[str, str]:
    passed = {k: v for k, v in environment().items() if not k.startswith("DVC_EXP") and k != "DVC_ROOT"}
    # Pushing is for the project, not for a clone.
    return passed | {PROJECT: str(project), trial.VARIABLE: str(folder), "DVC_EXP_AUTO_PUSH": "false"}


def reference(baseline: str, name: str) -> str:
    """The name in git of an experiment."""
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"


def main() -> None:
    """Run the task of the current folder."""
    # DVC and its stage are interrupted too, and clean up: this waits for their end.
    signal.signal(signal.SIGINT, lambda *_: None)
    folder = Path.cwd()
    task: dict[str, Any] = read_json(folder / _TASK)
    project, name = Path(task["project"]), task["name"]
    clone = cloned(project, task["baseline"], folder)
    for key in ("user.name", "user.email"):  # of the project only, perhaps
        with suppress(ValueError):
            git("config", key, git("config", key, folder=project).strip(), folder=clone)
    _dvc(clone, "checkout", "--quiet", "--allow-missing")
    settings = (word for override in task["overrides"] for word in ("--set-param", override))
    _dvc(clone, "exp", "run", "--name", name, *settings)
    trained = Counter(epoch.network for epoch in trial.epochs(folder))
    for network in task["timed"]:
        curve = read_json(clone / PLOTS / f"{network}.json")
        if trained[network] == len(curve):
            continue
        # None were trained, or a part before an interrupt. Nothing is resumed: checkpoints are in the
        # project, which is now the clone.
        trial.forget(folder, network)
        os.environ[PROJECT] = str(clone)
        stage = f"train_{network}"
        _dvc(clone, "repro", "--single-item", "--force", "--no-run-cache", "--no-commit", stage)
    ref = reference(task["baseline"], name)
    # No housekeeping: others read this repository at the same time.
    quiet = ("-c", "gc.auto=0", "-c", "maintenance.auto=false")
    git(
        *quiet,
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        str(folder / CLONE),
        f"{ref}:{ref}",
        folder=project,
    )


def _dvc(clone: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=clone, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
