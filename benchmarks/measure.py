"""Measure the time of work, and the memory of all its processes together."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 2**20
_SECONDS_BETWEEN_NOTES = 5


class Cost(NamedTuple):
    """Seconds by the clock, peak memory in MiB, seconds of all processors, and number of starts."""

    seconds: float = 0.0
    peak_mib: float = 0.0
    processor_seconds: float = 0.0
    starts: int = 0

    def then(self, other: Cost) -> Cost:
        """The cost of work that was cut off and resumed."""
        return Cost(
            self.seconds + other.seconds,
            max(self.peak_mib, other.peak_mib),
            self.processor_seconds + other.processor_seconds,
            self.starts + other.starts,
        )


@contextmanager
def peak_memory(process: psutil.Process | None = None) -> Iterator[list[float]]:
    """Peak memory in MiB of a process, by default this one, together with its children.

    Shared pages count once. The only element of the list is the peak so far. Memory held for less than
    0.2 seconds can be missed, and for less than 50 times as long as a look takes: a process with much
    memory would be slowed down by looks that follow each other closely.
    """
    peak, done = [0.0], threading.Event()
    root = process or psutil.Process()

    def watch() -> None:
        pause = 0.2  # seconds
        while not done.wait(pause):
            held, started = 0, time.perf_counter()
            try:
                family = [root, *root.children(recursive=True)]
            except psutil.Error:  # it has ended
                return
            for member in family:
                try:
                    held += member.memory_full_info().pss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], held / MIB)
            pause = max(0.2, 50 * (time.perf_counter() - started))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def measured(
    command: Sequence[str], folder: Path, note: Callable[[Cost], None] = lambda _: None
) -> Cost:
    """Run a command in `folder`; its output is appended to `log.txt` there.

    Args:
        note: gets the cost so far every few seconds, and when the work is cut off.

    Raises:
        RuntimeError: it failed; the message ends with its last output.
    """
    log = folder / "log.txt"
    # A stage would write its records to the places that these variables name instead of `folder`.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_TRACKING"))}
    before = _processor_seconds_of_ended()
    started = time.perf_counter()

    def cost() -> Cost:
        ended = _processor_seconds_of_ended() - before
        return Cost(time.perf_counter() - started, peak[0], ended, 1)

    with (
        log.open("ab") as out,
        subprocess.Popen(command, cwd=folder, env=own, stdout=out, stderr=subprocess.STDOUT) as child,
        peak_memory(psutil.Process(child.pid)) as peak,
    ):
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = child.wait(timeout=_SECONDS_BETWEEN_NOTES)
                    break
                running = cost()
                note(running._replace(processor_seconds=_processor_seconds(child.pid)))
        except BaseException:
            # Its children too, since a stage outlives the DVC that started it.
            for member in [*psutil.Process(child.pid).children(recursive=True), child]:
                member.terminate()
            child.wait()
            note(cost())
            raise
    if code:
        note(cost())
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise RuntimeError("\n  ".join([f"{' '.join(command[1:])} ended with exit code {code}:", *last]))
    return cost()


def _processor_seconds_of_ended() -> float:
    """Of all children so far that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor_seconds(process: int) -> float:
    """Of a running process and its children; those that ended a moment ago can be missed."""
    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(process)
        for member in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                used = member.cpu_times()
                total += used.user + used.system
                if member == root:
                    total += used.children_user + used.children_system
    return total
