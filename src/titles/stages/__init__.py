"""Entry points of the DVC stages: `python -m titles.stages.<name>`."""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
import sys
from collections.abc import Callable

from titles.data import console, inputs, messages
from titles.data.announcement import announce

# Spinning threads slow training by a factor of 20 or more when anything else runs on the machine, such
# as a second experiment of the queue; threads that sleep at once wake up late on an idle one. So they
# spin for some microseconds. torch reads this when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Needed for deterministic matrix multiplications on a GPU; also read on import.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# `python -m titles.stages.x` imports this package before it looks for x: what x imports is noted first.
# Options can be glued together, as in -um.
if sys.argv[0] == "-m" and (_run := re.search(rf"{__name__}\.\w+", " ".join(sys.orig_argv))):
    inputs.note(_run[0])
    # Also for what goes wrong while the stage is imported, such as a lack of memory.
    sys.excepthook = messages.excepthook


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Turn an error into one line and an exit code; TITLES_DEBUG=1 shows the trace.

    A stage whose inputs change while it runs fails, see `inputs.unchanged`. One whose messages nobody
    reads any more goes on: its results are files.

    Exit codes: 1 bad input, parameters or disk, and other errors, 130 interrupted, 143 terminated.
    """

    @functools.wraps(main)
    def run() -> None:
        # SIGTERM ends a stage with cleanup, like Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with console.streams(output_is_vital=False):
            try:
                with inputs.unchanged(main.__module__):
                    announce()
                    main()
                    if main.__module__ == "__main__":
                        # Collecting garbage would be most of the time from the last comparison to DVC's.
                        gc.freeze()
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(130)
            except Exception as error:
                raise SystemExit(messages.failure(error)) from error

    return run
