"""Checkpoints, from which a killed training resumes: after an epoch, or within a long one.

DVC deletes the outputs of a stage before it runs, and runs stages in temporary folders; so checkpoints
are kept in the project's own folder, .titles/checkpoints/<model>-<key>.safetensors. The key is a hash
of everything that the result depends on: a checkpoint is never used for a different training. Reading
it runs no code. Of several processes, rank 0 has the file, and the others get what it reads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from titles.data.documents import parse_json
from titles.data.files import atomic_file
from titles.data.scratch import remove_leftovers
from titles.models.parts import distributed
from titles.models.parts.saved import save_tensors
from titles.tracking.provenance import project_folder
from titles.tracking.trial import StoppedError

FOLDER = Path(".titles/checkpoints")
_FORMAT = 2
_KEPT_DAYS = 14
# Time between two writes, in units of the time of a write: writing takes at most a tenth of the
# training.
_WRITES_BETWEEN = 10
# Seconds without a write after which one is due within an epoch: small trainings never wait for one.
_LONGEST_WITHOUT = 120
# Seconds that a process may take to end after a signal.
_PATIENCE = 10


class Checkpoint:
    """The checkpoint of one training; without a place, nothing is read or written.

    The processes of a training call `due`, `write` and `read` together; all but rank 0 have no place.

    run: file for the id of the tracker's run, which a resumed training continues.
    abandoned: such files of other trainings that no process is running.
    """

    def __init__(self, place: Path | None, abandoned: Iterable[Path] = ()) -> None:
        self._place = place
        self._file = place and place.with_suffix(".safetensors")
        self.run = place and place.with_suffix(".run")
        self.abandoned = list(abandoned)
        self._ended, self._seconds = time.monotonic(), 0.0

    def due(self, *, within_epoch: bool = False) -> bool:
        """Whether enough time has passed since the last write; the answer is rank 0's for all."""
        wait = max(_WRITES_BETWEEN * self._seconds, _LONGEST_WITHOUT if within_epoch else 0)
        due = self._file is not None and time.monotonic() - self._ended >= wait
        return distributed.broadcast([due]) == [True]

    def write(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Replace the checkpoint; a failure is a warning.

        Args:
            numbers: values that JSON holds exactly.
        """
        if self._file is None:
            return
        started = time.monotonic()
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(numbers)
        metadata = {"numbers": text, "sha256": _checksum(whole, text)}
        try:
            with atomic_file(self._file) as partial:
                save_tensors(whole, partial, metadata)
        except (ValueError, OSError) as error:
            print(f"warning: no checkpoint was written: {error}", file=sys.stderr)
        self._ended = time.monotonic()
        self._seconds = self._ended - started

    def read(self) -> distributed.State | None:
        """The last checkpoint, on the CPU; None if there is none or it is damaged."""
        return distributed.broadcast_state(self._read())

    def _read(self) -> distributed.State | None:
        if self._file is None or not self._file.exists():
            return None
        try:
            with safe_open(self._file, framework="pt") as stream:
                metadata = stream.metadata()
                # Cloned to be aligned like fresh tensors and independent of the file.
                tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
            if _checksum(tensors, metadata["numbers"]) != metadata["sha256"]:
                raise ValueError("its checksum is wrong")
            return tensors, parse_json(metadata["numbers"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            print(
                f"warning: training restarts, the checkpoint {self._file} is damaged: {error}",
                file=sys.stderr,
            )
            return None

    def remove(self) -> None:
        """Remove the files of a finished training."""
        if self._place:
            # The lock last: a process that waits for it then finds it gone.
            for suffix in (".safetensors", ".run", ".lock"):
                self._place.with_suffix(suffix).unlink(missing_ok=True)


@contextmanager
def opened(name: str, key: str) -> Iterator[Checkpoint]:
    """Open the checkpoint of a training; it is removed when the block ends without an error.

    It has no place if another process runs the same training in another folder, or the place is not
    writable. Checkpoints that are two weeks old are removed.

    Args:
        name: of the model.
        key: see `key`.

    Raises:
        ValueError: another process is training this model in this folder.
    """
    place = project_folder() / FOLDER / f"{name}-{key}"
    here = FOLDER.parent / f"{name}.lock"
    here.parent.mkdir(exist_ok=True)
    with ExitStack() as locks:
        # A killed DVC leaves its stage running, and the next run would write to the same outputs.
        try:
            locks.enter_context(FileLock(here, timeout=_PATIENCE).acquire())
        except Timeout:
            raise ValueError(
                f"another process is training {name} in this folder: wait for its end, or end it"
            ) from None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(_lock(place).acquire())
            checkpoint = Checkpoint(place, _abandoned(place))
        except Timeout:
            print(f"{name}: another process runs this training, no checkpoints here", flush=True)
            checkpoint = Checkpoint(None)
        except OSError as error:
            print(f"warning: no checkpoints in {place.parent}: {error.strerror}", file=sys.stderr)
            checkpoint = Checkpoint(None)
        try:
            yield checkpoint
        except StoppedError:  # nobody will resume it
            checkpoint.remove()
            raise
        checkpoint.remove()


def _lock(place: Path) -> FileLock:
    return FileLock(place.with_suffix(".lock"), blocking=False)


def _abandoned(own: Path) -> Iterator[Path]:
    """Run files of other trainings that were killed; files of old ones are removed."""
    remove_leftovers(own.parent)
    oldest = time.time() - _KEPT_DAYS * 24 * 3600
    files = [path for path in own.parent.iterdir() if not path.name.startswith(".")]
    for place in {path.with_name(path.name.partition(".")[0]) for path in files} - {own}:
        try:
            with _lock(place):
                paths = list(place.parent.glob(f"{place.name}.*"))
                if max(path.stat().st_mtime for path in paths) < oldest:
                    for path in paths:
                        path.unlink()
                elif place.with_suffix(".run") in paths:
                    yield place.with_suffix(".run")
        except (Timeout, OSError):  # running, or just removed by another process
            continue


def key(settings: Mapping[str, Any], data: Iterable[Path]) -> str:
    """Hash of everything that a training depends on: settings, the bytes of its data, the loaded code of
    this package, versions and the number of processes.

    Args:
        settings: values that JSON can hold.
        data: files, and folders of files.
    """
    code = {
        name: _digest(Path(module.__file__))
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "titles" and module.__file__
    }
    roots = list(data)
    files = [path for root in roots for path in (root.iterdir() if root.is_dir() else [root])]
    parts = {
        "format": _FORMAT,
        "settings": settings,
        "versions": [sys.version, np.__version__, torch.__version__],
        "processes": distributed.world_size(),
        "code": code,
        "data": {path.as_posix(): _digest(path) for path in files},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    whole = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
