"""DVC's queue of experiments and its workers: when a worker dies, DVC still lists its run as running.

Commands change the queue, as in a shell. Its state is read through DVC's own objects: the output of
`dvc queue status` is for people, and takes a second longer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from titles.data.documents import read_json
from titles.experiments.commands import dvc
from titles.experiments.paths import unfit

# Seconds that an interrupted run has to clean up.
PATIENCE = 30.0
_ATTEMPTS = 30


class Task(NamedTuple):
    """An experiment in the queue. revision: commit of the stashed working tree, also the task's id."""

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
        if reason := unfit(Path(self._repo.root_dir), temporary=True):
            raise ValueError(reason)
        self._queue = self._repo.experiments.celery_queue
        # Part of the names that DVC gives to the workers of this project.
        self._mark = f"dvc-exp-{hashlib.sha256(self._queue.wdir.encode()).hexdigest()[:6]}-"

    def waiting(self) -> list[Task]:
        """Tasks that no worker has taken yet."""
        return [_task(entry) for entry in self._queue.iter_queued()]

    def running(self) -> list[Task]:
        """Tasks that a worker has taken and not ended; the worker may be dead."""
        return [_task(entry) for entry in self._queue.iter_active()]

    def failed(self) -> list[Task]:
        return [_task(done.entry) for done in self._queue.iter_failed()]

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
        """Start workers until `jobs` of them run."""
        dvc("queue", "start", "--jobs", str(jobs))

    def stop(self) -> None:
        """Interrupt workers and their runs as Ctrl-C would; kill those that do not end in time."""
        workers = self.workers()
        groups = _groups(workers)
        _signal(groups, signal.SIGINT)
        try:
            psutil.wait_procs(workers, PATIENCE)
        finally:
            _signal(groups, signal.SIGKILL)

    def kill_workers(self) -> None:
        _signal(_groups(self.workers()), signal.SIGKILL)

    def forget(self, task: Task) -> None:
        """Remove a task that failed or whose worker died."""
        _signal(_groups(_processes("exec-run", task.revision)), signal.SIGKILL)
        process = self._queue.proc.get(task.revision)
        if process is not None and process.returncode is None:
            # DVC would signal the process by its id, which another process may have by now.
            process.returncode = -1
            self._queue.proc[task.revision] = process
        if task in self.running():
            self._queue.kill([task.revision])
        self._queue.remove([task.revision])
        self._remove_folder(task)

    def _remove_folder(self, task: Task) -> None:
        """Remove the temporary folder that a killed run leaves."""
        try:
            known = read_json(Path(self._queue.get_infofile_path(task.revision)))
            folder = Path(known["root_dir"]).resolve()
        except (OSError, ValueError, KeyError, TypeError):
            return
        if folder.parent == Path(self._queue.wdir).resolve().parent and folder.name.startswith("tmp"):
            shutil.rmtree(folder, ignore_errors=True)

    def log(self, task: Task) -> str:
        """Output of a run so far; empty while DVC sets it up, or if that failed."""
        process = self._queue.proc.get(task.revision)
        with suppress(OSError):
            if process is not None and process.stdout:
                return Path(process.stdout).read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def worker_log(self) -> Path:
        """The output of the first worker."""
        return Path(self._queue.wdir) / "dvc-exp-worker-1.out"


def _task(entry: Any) -> Task:
    return Task(entry.name or "", entry.stash_rev, entry.baseline_rev)


def _processes(command: str, mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile, or is another user's
            words = process.cmdline()
            if command in words and any(mark in word for word in words):
                found.append(process)
    return found


def _groups(processes: list[psutil.Process]) -> set[int]:
    """Process groups; DVC starts each worker in one, which its runs and their stages share."""
    groups = set()
    for process in processes:
        with suppress(ProcessLookupError):
            groups.add(os.getpgid(process.pid))
    return groups - {os.getpgrp()}


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
