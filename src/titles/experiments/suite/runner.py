"""Runs the experiments of a plan in DVC's queue, and restarts its workers when they die."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from titles.experiments.commands import git
from titles.experiments.queue import Queue, Task
from titles.experiments.store import Revision, experiments, head
from titles.experiments.suite.plan import Plan, Wanted, read_plan, wanted
from titles.experiments.suite.state import difference, state
from titles.models.registry import load_params
from titles.tracking.tracked import note_inputs

_POLL = 2.0  # seconds
_HEARTBEAT = 60.0  # seconds between lines where there is no terminal
_WORKER_STARTS = 15.0  # seconds a worker may take to appear, or to take a task
_STALLED = 120.0  # seconds without a task taken or ended, though workers are idle
_MOST_RETRIES = 2  # of a run whose worker died
_MOST_RESTARTS = 5  # of workers, without a run that ends in between
_LOG_LINES = 20


def default_jobs(threads: int) -> int:
    """Number of concurrent runs of `threads` threads each that this machine has cores for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def run(
    file: Path, jobs: int | None = None, tell: Callable[[str], None] = tqdm.write
) -> tuple[Plan, dict[str, Revision]]:
    """Run the experiments of a file that are not finished yet on the commit that is checked out.

    An interrupt ends the queue's workers; finished experiments are kept, and a second call continues
    with the rest. If this process is killed, workers go on, and a second call waits for them.

    Args:
        jobs: concurrent runs; None takes the machine's cores over compute.threads.
        tell: is called with each line to show.

    Returns:
        The plan and its experiments, by name.

    Raises:
        ValueError: the file or the parameters are wrong, names are taken, workers do not stay alive, or
            experiments failed; the others are finished all the same.
    """
    plan = read_plan(file)
    params = load_params()  # reports problems of params.yaml itself
    for section in (params.prepare, params.embed):
        note_inputs(section)
    base: Any = OmegaConf.to_container(OmegaConf.load("params.yaml"))
    cases = {one.name: one for one in wanted(plan, file, base)}
    if jobs is None:
        jobs = default_jobs(max(one.params.compute.threads for one in cases.values()))
    elif jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    baseline = head()
    if untracked := git("ls-files", "--others", "--exclude-standard", "--", "src").splitlines():
        tell(f"warning: runs in the queue do not see files outside git: {', '.join(untracked)}")
    queue = Queue()
    done, tasks = state(queue, baseline, cases)
    tell(f"{plan.about}, on {baseline[:7]}: {len(done)} of {len(cases)} done, {len(tasks)} in the queue")
    runner = _Runner(queue, baseline, cases, tell, done, tasks)
    if missing := len(cases) - len(done):
        runner.queue_missing()
        try:
            runner.wait(min(jobs, missing))
        except BaseException:
            tell("stopping the queue's workers; the same command continues with what is missing")
            queue.stop()
            raise
    if runner.failed:
        raise ValueError(
            f"{len(runner.failed)} of {len(cases)} experiments failed: {', '.join(runner.failed)}. "
            f"`dvc queue logs {runner.failed[0]}` has the whole log; the same command runs again "
            "what failed, and nothing else"
        )
    return plan, runner.done


@dataclass
class _Runner:
    """Waits for experiments in the queue; restarts workers and queues lost runs again.

    lost: times that the worker of an experiment died. gone: experiments that had left the queue without
    a result when last looked at.
    """

    queue: Queue
    baseline: str
    cases: Mapping[str, Wanted]
    tell: Callable[[str], None]
    done: dict[str, Revision]
    tasks: dict[str, Task]
    failed: list[str] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    gone: set[str] = field(default_factory=set)
    started: dict[str, float] = field(default_factory=dict)
    restarts: int = 0

    def queue_missing(self) -> None:
        """Queue all that is neither finished nor in the queue."""
        old = [task for task in self.queue.failed() if task.baseline == self.baseline]
        for name in self.cases:
            if name not in self.done and name not in self.tasks:
                for task in old:
                    if task.name == name:
                        self.queue.forget(task)
                self._put(name)

    def _put(self, name: str) -> None:
        self.gone.discard(name)
        self.started.pop(name, None)
        self.tasks[name] = self.queue.put(name, self.cases[name].overrides)
        self.tell(f"{name}: queued")

    def wait(self, jobs: int) -> None:
        """Wait until each experiment is finished or failed."""
        # When a worker was last seen, a task last taken or ended, a line last printed.
        seen = moved = beat = time.monotonic()
        begun = -_WORKER_STARTS
        last: tuple[set[str], set[str]] = (set(), set())
        total = len(self.cases)
        with tqdm(
            total=total, initial=len(self.done), unit=" runs", disable=None, desc="experiments"
        ) as bar:
            while self.tasks:
                # In this order, a task that moves from one list to the other is in at least one.
                waiting = {task.revision for task in self.queue.waiting()}
                running = {task.revision for task in self.queue.running()}
                self._note(waiting, running)
                bar.n = len(self.done)
                now = time.monotonic()
                workers = self.queue.workers()
                if workers:
                    seen = now
                if (waiting, running) != last:
                    last, moved = (waiting, running), now
                if waiting and len(workers) < jobs and now - begun > _WORKER_STARTS:
                    self._start(jobs)
                    begun = seen = moved = time.monotonic()
                elif not workers and now - seen > _WORKER_STARTS:
                    self._requeue_lost(running)
                elif waiting and not running and now - moved > _STALLED:
                    self.tell("the queue's workers take nothing: starting others")
                    self.queue.kill_workers()
                progress = self._progress(running)
                bar.set_postfix_str(progress)
                if bar.disable and now - beat > _HEARTBEAT:
                    beat = now
                    self.tell(f"{len(self.done)} of {total} done; {progress}")
                if self.tasks:
                    time.sleep(_POLL)

    def _start(self, jobs: int) -> None:
        self.restarts += 1
        if self.restarts > _MOST_RESTARTS:
            raise ValueError(
                f"the queue's workers ended {_MOST_RESTARTS} times before a run did: see "
                f"{self.queue.worker_log}"
            )
        self.queue.start(jobs)

    def _note(self, waiting: set[str], running: set[str]) -> None:
        """Report which experiments have begun and ended."""
        made = {found.name: found for found in experiments(self.baseline)}
        for name, task in list(self.tasks.items()):
            if task.revision in running and name not in self.started:
                self.started[name] = time.monotonic()
                self.tell(f"{name}: running")
            if task.revision in running | waiting:
                continue
            found = made.get(name)
            # Not with the working tree, which may have been edited since.
            if found and not difference(self.cases[name], found.commit, task.revision):
                self.done[name] = found
                self._end(name, "done")
            elif name not in self.gone:  # its last steps may be under way: look again
                self.gone.add(name)
            else:
                self._end(name, "FAILED")
                log = _tail(self.queue.log(task)) or [
                    f"it printed nothing: DVC could not set it up, {self.queue.worker_log} says why"
                ]
                self.tell("\n".join(f"    {line}" for line in log))

    def _end(self, name: str, how: str) -> None:
        del self.tasks[name]
        self.restarts = 0
        if name not in self.done:
            self.failed.append(name)
        took = f" after {self._duration(name)}" if name in self.started else ""
        self.tell(f"{name}: {how}{took} ({len(self.done)} of {len(self.cases)} done)")

    def _requeue_lost(self, running: set[str]) -> None:
        """With no worker left, tasks that the queue calls running are not."""
        for name, task in list(self.tasks.items()):
            if task.revision not in running:
                continue
            self.lost[name] += 1
            if self.lost[name] > _MOST_RETRIES:
                self._end(name, f"FAILED, its worker died {self.lost[name]} times,")
                continue
            self.tell(f"{name}: its worker died, queueing it again")
            self.queue.forget(task)
            self._put(name)

    def _progress(self, running: set[str]) -> str:
        shown = []
        for name, task in self.tasks.items():
            if task.revision in running:
                line = "".join(_tail(self.queue.log(task), 1)).split("(")[0].strip()
                shown.append(f"{name} for {self._duration(name)}: {line[:60] or 'starting'}")
        return "; ".join([*shown, f"{len(self.tasks) - len(shown)} waiting"])

    def _duration(self, name: str) -> str:
        now = time.monotonic()
        minutes, rest = divmod(round(now - self.started.get(name, now)), 60)
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _tail(log: str, lines: int = _LOG_LINES) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", log) if line.strip()][-lines:]
