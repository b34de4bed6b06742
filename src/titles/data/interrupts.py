"""Signals that ask a process to end, and the work that they must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the end of the block.

    For work that an exception cuts in two: a process that has started but is not noted yet would run
    on, and a pool of workers that has half started cannot be ended. In other threads than the main
    one, which alone handles signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What is ignored stays so. No signal mask: programs that are started meanwhile would inherit it.
    numbers = [n for n in asking if callable(signal.getsignal(n))]
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
