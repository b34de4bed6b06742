"""DVC's queue of experiments, its workers watched: they can die, and DVC then calls their run running.

Commands change the queue as they would in a shell; its state is read through DVC's own objects, since
`dvc queue status` prints for people and takes a second longer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from titles.experiments.revisions import dvc

# Seconds that an interrupted run has to clean up.
PATIENCE = 30.0
_ATTEMPTS = 30


class Task(NamedTuple):
    """An experiment in the queue. revision: of the stashed working tree it runs on, also its id."""

    name: str
    revision: str
    baseline: str


class Queue:
    """The queue of the project in this folder."""

    def __init__(self) -> None:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            self._repo = Repo()
        except NotDvcRepoError as error:
            raise ValueError(f"{error}: run from the project's folder") from None
        self._queue = self._repo.experiments.celery_queue
        # As DVC names its workers: the mark tells them from those of other projects.
        self._mark = f"dvc-exp-{hashlib.sha256(self._queue.wdir.encode()).hexdigest()[:6]}-"

    def waiting(self) -> list[Task]:
        """Tasks that no worker has taken yet."""
        return [Task(e.name or "", e.stash_rev, e.baseline_rev) for e in self._queue.iter_queued()]

    def running(self) -> list[Task]:
        """Tasks that a worker has taken and not ended; the worker may be dead."""
        return [Task(e.name or "", e.stash_rev, e.baseline_rev) for e in self._queue.iter_active()]

    def failed(self) -> list[Task]:
        return [
            Task(done.entry.name or "", done.entry.stash_rev, done.entry.baseline_rev)
            for done in self._queue.iter_failed()
        ]

    def put(self, name: str, overrides: Iterable[str]) -> Task:
        """Queue an experiment of the working tree as it is.

        Args:
            overrides: as `dvc exp run -S` takes them.

        Raises:
            ValueError: DVC refuses.
        """
        before = {task.revision for task in self.waiting()}
        settings = (word for override in overrides for word in ("--set-param", override))
        command = ["exp", "run", "--queue", "--name", name, *settings]
        for attempt in range(_ATTEMPTS):
            try:
                dvc(*command)
                break
            except ValueError as error:
                # A run that begins or ends holds a lock for a moment.
                busy = re.search("Unable to acquire lock|it is being blocked", str(error))
                if not busy or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(1)
        for task in [*self.waiting(), *self.running()]:
            if task.name == name and task.revision not in before:
                return task
        raise ValueError(f"dvc exp run --queue has not queued {name}: see `dvc queue status`")

    def workers(self) -> list[psutil.Process]:
        """Processes that are alive and take tasks from this queue."""
        return _processes("queue-worker", self._mark)

    def start(self, jobs: int) -> None:
        """See to it that `jobs` workers run."""
        dvc("queue", "start", "--jobs", str(jobs))

    def stop(self) -> None:
        """End workers and what they run, as Ctrl-C would; what does not end in time is killed."""
        groups = _groups(self.workers())
        _signal(groups, signal.SIGINT)
        try:
            end = time.monotonic() + PATIENCE
            while self.workers() and time.monotonic() < end:
                time.sleep(0.2)
        finally:
            _signal(groups, signal.SIGKILL)

    def kill_workers(self) -> None:
        _signal(_groups(self.workers()), signal.SIGKILL)

    def forget(self, task: Task) -> None:
        """Take a task out of the queue: one that failed, or whose worker died."""
        _signal(_groups(_processes("exec-run", task.revision)), signal.SIGKILL)
        process = self._queue.proc.get(task.revision)
        if process is not None and process.returncode is None:
            # DVC would signal the process by its number, which may be another's by now.
            process.returncode = -1
            self._queue.proc[task.revision] = process
        if task in self.running():
            self._queue.kill([task.revision])
        self._queue.remove([task.revision])
        self._remove_folder(task)

    def _remove_folder(self, task: Task) -> None:
        """A run that is killed leaves its temporary folder."""
        try:
            known = json.loads(Path(self._queue.get_infofile_path(task.revision)).read_bytes())
            folder = Path(known["root_dir"]).resolve()
        except (OSError, ValueError, KeyError, TypeError):
            return
        if folder.parent == Path(self._queue.wdir).resolve().parent and folder.name.startswith("tmp"):
            shutil.rmtree(folder, ignore_errors=True)

    def log(self, task: Task) -> str:
        """What a run has printed so far; nothing while DVC sets it up, or if that failed."""
        process = self._queue.proc.get(task.revision)
        if process is not None and process.stdout:
            try:
                return Path(process.stdout).read_text(encoding="utf-8", errors="replace")
            except OSError:
                pass
        return ""

    def where_workers_log(self) -> Path:
        """What the first worker prints."""
        return Path(self._queue.wdir) / "dvc-exp-worker-1.out"


def _processes(command: str, mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if command in words and any(mark in word for word in words):
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is another user's
            continue
    return found


def _groups(processes: list[psutil.Process]) -> set[int]:
    """Process groups; DVC gives each worker one, in which its runs and their stages are too."""
    groups = set()
    for process in processes:
        try:
            groups.add(os.getpgid(process.pid))
        except ProcessLookupError:
            continue
    return groups - {os.getpgrp()}


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            continue
