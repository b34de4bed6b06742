"""Export folders, at a path that the user names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from titles.data.contract import atomic_folder


@contextmanager
def exported(out: Path, mark: str) -> Iterator[Path]:
    """An `atomic_folder` that replaces only an earlier export.

    Args:
        mark: the file that marks an export of this kind.

    Raises:
        ValueError: something else exists there, or the path is not writable.
    """
    folder = out.resolve()
    if folder.exists() and not (
        folder.is_dir() and ((folder / mark).exists() or not any(folder.iterdir()))
    ):
        raise ValueError(f"{out} exists and is not an earlier export: name another folder")
    with atomic_folder(folder) as made:
        yield made
