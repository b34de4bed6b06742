"""Measure the time of work, and the memory of all its processes together."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 2**20


class Cost(NamedTuple):
    """Wall-clock seconds, and peak memory in MiB."""

    seconds: float
    peak_mib: float


@contextmanager
def peak_memory(process: psutil.Process | None = None) -> Iterator[list[float]]:
    """Peak memory in MiB of a process, by default this one, together with its children.

    Shared pages count once. The only element of the list is the peak so far. Memory held for less than
    0.2 seconds can be missed.
    """
    peak, done = [0.0], threading.Event()
    root = process or psutil.Process()

    def watch() -> None:
        while not done.wait(0.2):
            held = 0
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

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def measured(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in `folder`; its output is appended to `log.txt` there.

    Raises:
        RuntimeError: it failed; the message ends with its last output.
    """
    log = folder / "log.txt"
    # A stage would write its records to the places that these variables name instead of `folder`.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_TRACKING"))}
    started = time.perf_counter()
    with (
        log.open("ab") as out,
        subprocess.Popen(command, cwd=folder, env=own, stdout=out, stderr=subprocess.STDOUT) as child,
        peak_memory(psutil.Process(child.pid)) as peak,
    ):
        try:
            code = child.wait()
        except BaseException:
            # Its children too, since a stage outlives the DVC that started it.
            for member in [*psutil.Process(child.pid).children(recursive=True), child]:
                member.terminate()
            raise
    seconds = time.perf_counter() - started
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise RuntimeError("\n  ".join([f"{' '.join(command[1:])} ended with exit code {code}:", *last]))
    return Cost(seconds, peak[0])
