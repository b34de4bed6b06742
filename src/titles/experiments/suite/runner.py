"""Runs the experiments of a plan in DVC's queue, and restarts its workers when they die."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from titles.experiments.commands import git
from titles.experiments.queue import Queue
from titles.experiments.store import Revision, experiments, head
from titles.experiments.suite.plan import Plan, Wanted, read_plan, wanted
from titles.experiments.suite.state import State, difference, state
from titles.models.registry import load_params

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
    load_params()  # reports problems of params.yaml itself
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
    found = state(queue, baseline, cases)
    tell(
        f"{plan.about}, on {baseline[:7]}: {len(found.done)} of {len(cases)} done, "
        f"{len(found.tasks)} in the queue"
    )
    runner = _Runner(queue, baseline, cases, found, tell)
    if missing := len(cases) - len(found.done):
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


class _Runner:
    """Waits for experiments in the queue; restarts workers and queues lost runs again."""

    def __init__(
        self,
        queue: Queue,
        baseline: str,
        cases: Mapping[str, Wanted],
        found: State,
        tell: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._baseline = baseline
        self._cases = cases
        self._tell = tell
        self.done = dict(found.done)
        self.tasks = dict(found.tasks)
        self.failed: list[str] = []
        self._lost: Counter[str] = Counter()  # times that its worker died
        self._gone: set[str] = set()  # left the queue without a result, when last looked at
        self._started: dict[str, float] = {}
        self._restarts = 0

    def queue_missing(self) -> None:
        """Queue all that is neither finished nor in the queue."""
        old = [task for task in self._queue.failed() if task.baseline == self._baseline]
        for name in self._cases:
            if name not in self.done and name not in self.tasks:
                for task in old:
                    if task.name == name:
                        self._queue.forget(task)
                self._put(name)

    def _put(self, name: str) -> None:
        self._gone.discard(name)
        self._started.pop(name, None)
        self.tasks[name] = self._queue.put(name, self._cases[name].overrides)
        self._tell(f"{name}: queued")

    def wait(self, jobs: int) -> None:
        """Wait until each experiment is finished or failed."""
        # When a worker was last seen, a task last taken or ended, a line last printed.
        seen = moved = beat = time.monotonic()
        begun = -_WORKER_STARTS
        last: tuple[set[str], set[str]] = (set(), set())
        total = len(self._cases)
        with tqdm(
            total=total, initial=len(self.done), unit=" runs", disable=None, desc="experiments"
        ) as bar:
            while self.tasks:
                # In this order, a task that moves from one list to the other is in at least one.
                waiting = {task.revision for task in self._queue.waiting()}
                running = {task.revision for task in self._queue.running()}
                self._note(waiting, running)
                bar.n = len(self.done)
                now = time.monotonic()
                workers = self._queue.workers()
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
                    self._tell("the queue's workers take nothing: starting others")
                    self._queue.kill_workers()
                progress = self._progress(running)
                bar.set_postfix_str(progress)
                if bar.disable and now - beat > _HEARTBEAT:
                    beat = now
                    self._tell(f"{len(self.done)} of {total} done; {progress}")
                if self.tasks:
                    time.sleep(_POLL)

    def _start(self, jobs: int) -> None:
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise ValueError(
                f"the queue's workers ended {_MOST_RESTARTS} times before a run did: see "
                f"{self._queue.worker_log}"
            )
        self._queue.start(jobs)

    def _note(self, waiting: set[str], running: set[str]) -> None:
        """Report which experiments have begun and ended."""
        made = {found.name: found for found in experiments(self._baseline)}
        for name, task in list(self.tasks.items()):
            if task.revision in running and name not in self._started:
                self._started[name] = time.monotonic()
                self._tell(f"{name}: running")
            if task.revision in running | waiting:
                continue
            found = made.get(name)
            # Not with the working tree, which may have been edited since.
            if found and not difference(self._cases[name], found.commit, task.revision):
                self.done[name] = found
                self._end(name, "done")
            elif name not in self._gone:  # its last steps may be under way: look again
                self._gone.add(name)
            else:
                self._fail(name, "FAILED")
                log = _tail(self._queue.log(task)) or [
                    f"it printed nothing: DVC could not set it up, {self._queue.worker_log} says why"
                ]
                self._tell("\n".join(f"    {line}" for line in log))

    def _fail(self, name: str, how: str) -> None:
        self.failed.append(name)
        self._end(name, how)

    def _end(self, name: str, how: str) -> None:
        del self.tasks[name]
        self._restarts = 0
        took = f" after {self._duration(name)}" if name in self._started else ""
        self._tell(f"{name}: {how}{took} ({len(self.done)} of {len(self._cases)} done)")

    def _requeue_lost(self, running: set[str]) -> None:
        """With no worker left, tasks that the queue calls running are not."""
        for name, task in list(self.tasks.items()):
            if task.revision not in running:
                continue
            self._lost[name] += 1
            if self._lost[name] > _MOST_RETRIES:
                self._fail(name, f"FAILED, its worker died {self._lost[name]} times,")
                continue
            self._tell(f"{name}: its worker died, queueing it again")
            self._queue.forget(task)
            self._put(name)

    def _progress(self, running: set[str]) -> str:
        shown = []
        for name, task in self.tasks.items():
            if task.revision in running:
                line = "".join(_tail(self._queue.log(task), 1)).split("(")[0].strip()
                shown.append(f"{name} for {self._duration(name)}: {line[:60] or 'starting'}")
        return "; ".join([*shown, f"{len(self.tasks) - len(shown)} waiting"])

    def _duration(self, name: str) -> str:
        now = time.monotonic()
        minutes, rest = divmod(round(now - self._started.get(name, now)), 60)
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _tail(log: str, lines: int = _LOG_LINES) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", log) if line.strip()][-lines:]
