"""Workers for chunks: local processes, or a Dask cluster.

The environment variable TITLES_SCHEDULER names the address of a Dask scheduler, such as
tcp://10.0.0.5:8786; without it, there is one local process per core. Results come back in the order of
the chunks, so that the output does not depend on the workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor

from titles.data.interrupts import undisturbed

SCHEDULER = "TITLES_SCHEDULER"

# Seconds to wait for a scheduler that does not answer.
_PATIENCE = 15


@contextmanager
def pool() -> Iterator[tuple[Executor, int]]:
    """Yield an executor, and how many waiting tasks keep its workers busy; more only fill memory.

    The block waits at its end for all tasks that were not cancelled. Raises ValueError if the scheduler
    cannot be reached or has no workers, or Dask is not installed.
    """
    if address := os.environ.get(SCHEDULER):
        with _dask(address) as found:
            yield found
        return
    executor: Executor | None = None
    try:
        try:
            with undisturbed():
                executor = get_reusable_executor(max_workers=cpu_count())
                executor.submit(_nothing)  # starts them
        except (OSError, ImportError, NotImplementedError) as error:
            # Processes need semaphores, which need /dev/shm; threads do not.
            print(
                f"note: no worker processes can be started ({error}): one thread does it",
                file=sys.stderr,
            )
            executor = ThreadPoolExecutor(1)
        yield executor, 2 * cpu_count()
    finally:
        if executor:
            executor.shutdown(wait=True)


def _nothing() -> None:
    pass


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            f"{SCHEDULER} is set, but Dask is not installed: `make install-dev`, "
            "or pip install distributed"
        ) from None
    try:
        client: Any = Client(address, timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ValueError(f"{SCHEDULER}={address}: no Dask scheduler answers there ({error})") from None
    with client:
        threads = sum(client.nthreads().values())
        if threads == 0:
            raise ValueError(f"{SCHEDULER}={address}: the scheduler has no workers; start dask worker")
        # Dask keeps the results of pure tasks in memory, to share them between equal tasks.
        yield client.get_executor(pure=False, retries=1), 2 * threads
