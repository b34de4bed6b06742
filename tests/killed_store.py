"""Opens MLflow's local store again and again, killed at one step after the other.

    python killed_store.py FOLDER EVERY

A step is a statement of SQL, or a change of files. Each EVERY-th step of making a store is the last of a
process, and so is each change of files. Each time, the store has to be absent or whole, and at the end
another process has to record a run in it. Prints the number of steps that were tried, and of all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  once, as it takes seconds
from sqlalchemy import event
from sqlalchemy.engine import Engine

from titles.tracking import local_store
from titles.tracking.mlflow import open_store

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def child(folder: Path, work: Callable[[], None]) -> int:
    """The exit code of a process that works in the folder; negative if a signal ended it."""
    number = os.fork()
    if not number:
        os.chdir(folder)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def steps(last: int, note: Callable[[str], None]) -> Callable[[], None]:
    """Opens the store, and is killed before the step `last`; each step is noted."""

    def work() -> None:
        count = 0

        def step(name: str, *_: object) -> None:
            nonlocal count
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            note(name)

        event.listen(Engine, "before_cursor_execute", lambda *_: step("sql"))
        event.listen(Engine, "commit", lambda _: step("sql"))
        sys.addaudithook(lambda name, _: step(name) if name in CHANGES else None)
        open_store()

    return work


def record() -> None:
    client, experiment = open_store()
    client.create_run(experiment)
    assert len(client.search_runs([experiment])) == 1


def main() -> None:
    root, every = Path(sys.argv[1]), int(sys.argv[2])
    whole, log = root / "whole", root / "steps"
    whole.mkdir()
    with log.open("a", buffering=1) as stream:
        assert child(whole, steps(-1, lambda name: print(name, file=stream))) == 0
    names = log.read_text().split()
    tried = [n for n, name in enumerate(names) if n % every == 0 or name in CHANGES]
    for number in tried:
        folder = root / "killed"
        folder.mkdir(exist_ok=True)  # with what the kills before have left
        store = folder / "mlflow.db"
        assert child(folder, steps(number, lambda _: None)) == -signal.SIGKILL, number
        if store.exists() or number == tried[-1]:
            if store.exists():  # raises if it is half-made
                assert local_store.schema(store) == local_store.schema(whole / "mlflow.db"), number
            assert child(folder, record) == 0, number
            folder.rename(root / str(number))
    assert "os.rename" in names
    print(len(tried), len(names))


if __name__ == "__main__":
    main()
