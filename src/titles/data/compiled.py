"""Loops compiled by numba at their first call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, wraps
from typing import Any, ParamSpec

from titles.data.interrupts import undisturbed

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
        # An exception from a handler is lost where C code calls Python, as numba's compiler does.
        with nullcontext() if function.signatures else undisturbed():
            function(*given, **named)

    return call
