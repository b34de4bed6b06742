"""Loops that numpy and torch have no function for, compiled for the CPU at their first call."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, wraps
from typing import Any, ParamSpec

_Given = ParamSpec("_Given")

# `functools.cache` lets two threads compute the same value.
_making = threading.Lock()


def compiled(loop: Callable[_Given, None]) -> Callable[_Given, None]:
    """Compile at the first call, without the GIL so that threads run side by side; kept on disk where
    possible."""

    @cache
    def made() -> Any:
        import numba  # takes a second, which reading parameters should not

        from titles.data.kernel_cache import cached

        return cached(numba.njit(nogil=True)(loop), loop)

    @wraps(loop)
    def call(*given: _Given.args, **named: _Given.kwargs) -> None:
        with _making:
            function = made()
        with nullcontext() if function.signatures else undisturbed():
            function(*given, **named)

    return call


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block: an exception from their handlers is lost when
    C code calls Python, as numba's compiler does."""
    if threading.current_thread() is not threading.main_thread():  # handlers only run there
        yield
        return
    came: list[int] = []
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
