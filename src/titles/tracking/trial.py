"""What a training and the search that started it tell each other, by files in the folder of the trial.

The training appends a line to `epochs.jsonl` after each epoch. Where the search stops trials early, it
answers each line by one in `answers.jsonl`, and the training waits for it: the search thus decides on
the same epochs whenever it runs. Both files survive a kill; a training that resumes adds the epochs that
are not there yet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

from titles.data.documents import parse_json, read_bytes
from titles.data.files import atomic_file
from titles.params import MOST_EPOCHS
from titles.tracking.tracker import Tracker

VARIABLE = "TITLES_TRIAL"  # in the environment: the folder of the trial
_EPOCHS = "epochs.jsonl"
_ANSWERS = "answers.jsonl"
_SEARCH = "search.pid"
_POLL = 0.02  # seconds
T = TypeVar("T")


class StoppedError(ValueError):
    """The search stopped this training; its weights are not wanted."""


class Epoch(NamedTuple):
    """An epoch of a trial. seconds: since the epoch before, or since the training began. planned: the
    epochs of the training, unless it stops early; older versions did not say."""

    network: str
    epoch: int
    seconds: float
    validation_balanced_accuracy: float
    planned: int = MOST_EPOCHS


class TrialTracker(Tracker):
    """Reports the epochs of the network `name` to the search; raises StoppedError when it says so."""

    def __init__(self, name: str, folder: Path, planned: int) -> None:
        self._name, self._folder, self._planned = name, folder, planned
        self._told = {epoch.epoch for epoch in epochs(folder) if epoch.network == name}
        self._last = time.monotonic()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if step not in self._told:
            accuracy = metrics["validation/balanced_accuracy"]
            epoch = Epoch(self._name, step, seconds, accuracy, self._planned)
            _append(self._folder / _EPOCHS, epoch._asdict())
        if reason := self._answer(step):
            raise StoppedError(f"stopped by the search after epoch {step} of {self._name}: {reason}")

    def _answer(self, step: int) -> str:
        """Why this training is to stop after an epoch; "" if it is not, or if the search has ended."""
        place = [(e.network, e.epoch) for e in epochs(self._folder)].index((self._name, step))
        while _searching(self._folder):
            given = answers(self._folder)
            if len(given) > place:
                return given[place]
            time.sleep(_POLL)
        return ""


def epochs(folder: Path) -> list[Epoch]:
    """The epochs of a trial so far, in the order in which they ended."""
    return _read(folder / _EPOCHS, lambda record: Epoch(**record))


def training_seconds(trained: Sequence[Epoch]) -> float:
    """The time of the epochs of one network. The first, which also waits for compilers and caches,
    counts as the mean of the others."""
    others = [epoch.seconds for epoch in trained[1:] or trained]
    return len(trained) * sum(others) / len(others)


def answers(folder: Path) -> list[str]:
    """The search's answers to the epochs so far: why the training is to stop, or ""."""
    return _read(folder / _ANSWERS, lambda record: str(record["stop"]))


def answer(folder: Path, stop: str) -> None:
    """Answer the next epoch: why the training is to stop, or ""."""
    _append(folder / _ANSWERS, {"stop": stop})


def answering(folder: Path) -> None:
    """Let trainings of this folder wait for answers, as long as the calling process lives."""
    (folder / _SEARCH).write_text(str(os.getpid()), encoding="utf-8")


def _searching(folder: Path) -> bool:
    try:
        search = int((folder / _SEARCH).read_text(encoding="utf-8"))
        return bool(psutil.pid_exists(search))
    except (OSError, ValueError):
        return False


def forget(folder: Path, network: str) -> None:
    """Drop the epochs of a network, which is to be trained anew."""
    kept = [json.dumps(e._asdict()) for e in epochs(folder) if e.network != network]
    with atomic_file(folder / _EPOCHS) as partial:
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _append(path: Path, record: Mapping[str, object]) -> None:
    """Append a line, in place of one that a kill left half-written."""
    with path.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(f"{json.dumps(record)}\n".encode())


def _read(path: Path, form: Callable[[Any], T]) -> list[T]:
    """The whole lines of a file, whose last may be half-written as yet.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        lines = read_bytes(path).split(b"\n")[:-1]
        return [form(parse_json(line)) for line in lines if line]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
