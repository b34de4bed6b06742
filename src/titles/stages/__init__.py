"""Entry points, one a DVC stage: `python -m titles.stages.<name>`."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable

# Threads of torch that wait for each other by spinning slow training down by a factor of 20 or more as
# soon as anything else runs on the machine, a second experiment of the queue for instance; those that
# sleep at once wake up late on a quiet one. So they spin for some microseconds. It has to be said before
# torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Without it, matrix products on a GPU have no repeatable form; also read before torch.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Turn what went wrong for a user into one line and an exit code; TITLES_DEBUG=1 shows where.

    Exit codes: 1 bad input, parameters or disk, 130 interrupted, 143 terminated.
    """

    @functools.wraps(main)
    def run() -> None:
        # SIGTERM ends a stage like Ctrl-C does, so that both clean up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            main()
        except (ValueError, OSError) as error:
            if os.environ.get("TITLES_DEBUG"):
                raise
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run
