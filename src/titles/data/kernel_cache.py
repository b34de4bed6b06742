"""The compiled code of kernels, kept on disk so that the next process starts faster; never needed.

Numba's own cache ends the program where a file is cut short or the disk is full, and unpickles whatever
lies in its folder. Here a file carries the SHA-256 of its content, which is compared before anything is
unpickled, and is only read where nobody else can write. In all other cases kernels are compiled again.
"""

from __future__ import annotations

import hashlib
import os
import pickle  # noqa: TID251  numba's code has no other form
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, InTreeCacheLocator

_DIGEST_BYTES = 32


def cached(function: Any, loop: Callable[..., None]) -> Any:
    """The dispatcher of numba for `loop`, with a cache if there is a place for one."""
    # Any reason that numba or the system gives, such as a user without a home.
    with suppress(Exception):
        function._cache = _Cache(loop)
    return function


class _Cache(FunctionCache):
    def __init__(self, loop: Callable[..., None]) -> None:
        super().__init__(loop)  # type: ignore[no-untyped-call]
        locator: Any = self._impl.locator
        # Who can write beside the code can change the code.
        owner = None if isinstance(locator, InTreeCacheLocator) else os.geteuid()
        if owner is not None:
            Path(self._cache_path).chmod(0o700)  # it holds only files of this package
        stamp = locator.get_source_stamp()
        self._cache_file: Any = _Files(Path(self._cache_path), self._impl.filename_base, stamp, owner)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # a version whose code this one cannot load
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):  # a full disk, or one that became read-only
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


class _Files:
    """One file for each kernel, signature, processor and version.

    Args:
        stamp: of the source.
        owner: the only user who may own folder and files; None for any.
    """

    def __init__(self, folder: Path, name: str, stamp: object, owner: int | None) -> None:
        self._folder = folder
        self._name = name
        self._stamp = stamp
        self._owner = owner

    def load(self, key: object) -> Any:
        """The compiled code; None if it is missing, damaged, of other source or not ours."""
        try:
            with self._path(key).open("rb") as stream:
                if not (self._is_ours(os.fstat(stream.fileno())) and self._is_ours(self._folder.stat())):
                    return None
                digest, content = stream.read(_DIGEST_BYTES), stream.read()
        except OSError:
            return None
        return pickle.loads(content) if digest == self._digest(content) else None  # noqa: S301

    def save(self, key: object, data: object) -> None:
        content = pickle.dumps(data, protocol=pickle.HIGHEST_PROTOCOL)
        with tempfile.NamedTemporaryFile(
            suffix=".tmp", prefix=f"{self._name}.", dir=self._folder, delete=False
        ) as stream:
            try:
                stream.write(self._digest(content) + content)
                stream.flush()
                Path(stream.name).replace(self._path(key))
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise

    def _path(self, key: object) -> Path:
        told = repr((numba.__version__, sys.version, key))
        return self._folder / f"{self._name}.{hashlib.sha256(told.encode()).hexdigest()[:32]}.nbc"

    def _digest(self, content: bytes) -> bytes:
        return hashlib.sha256(repr(self._stamp).encode() + content).digest()

    def _is_ours(self, found: os.stat_result) -> bool:
        return self._owner is None or (found.st_uid == self._owner and not found.st_mode & 0o022)
