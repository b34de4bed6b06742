"""Runs stages that die at a chosen change to a file: python crashes.py FOLDER < (lines of JSON).

Each line names a stage, the number of the change it dies at (0: none) and the folder that it runs in; a
line with the exit code and the number of changes answers it. Every run is a process of its own, forked
from one that has the libraries loaded, and dies as if by SIGKILL: nothing is tidied up.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

DIED = 9
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree"}


def main() -> None:
    import dvclive.live  # noqa: F401
    import gensim.models  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch._dynamo  # noqa: F401, the optimisers import it

    stages = {
        name: importlib.import_module(f"titles.stages.{name}")
        for name in ("prepare", "embed", "train_cnn", "train_mlp", "evaluate")
    }
    from titles.tracking import recording
    from titles.tracking.tracker import Tracker
    from titles.training import checkpoints

    recording.MlflowTracker = lambda *_: Tracker()  # type: ignore[assignment, misc]
    checkpoints._WRITES_BETWEEN = 0
    for line in sys.stdin:
        stage, last, folder = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            quiet = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = 1
            try:
                changes = _watch(Path(folder).resolve(), last)
                stages[stage].main()
                code = 0
            finally:
                os.write(writing, str(len(changes)).encode())
                sys.stdout.flush()
                os._exit(code)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            count = int(stream.read() or 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), count]), flush=True)


def _watch(folder: Path, last: int) -> list[str]:
    """Die just before the change number `last` to anything in the folder; the list of changes grows."""
    changes: list[str] = []
    own = os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            changing = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changing = event in _CHANGES
        if not changing or os.getpid() != own or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(os.path.abspath(os.fspath(arguments[0])))  # noqa: PTH100, no look at the disk
        if path.is_relative_to(folder):
            changes.append(f"{event} {path}")
            if len(changes) == last:
                os._exit(DIED)

    sys.addaudithook(hook)
    return changes


if __name__ == "__main__":
    main()
