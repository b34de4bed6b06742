"""Folders that leave the project, at a place that the user names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from titles.data.contract import atomic_folder


@contextmanager
def exported(out: Path, mark: str) -> Iterator[Path]:
    """`contract.atomic_folder` that takes the place of an earlier export only.

    Args:
        mark: the file by which an export of this kind is known.

    Raises:
        ValueError: something else stands there, or the place cannot be written to.
    """
    folder = out.resolve()
    if folder.exists() and not (
        folder.is_dir() and ((folder / mark).exists() or not any(folder.iterdir()))
    ):
        raise ValueError(f"{out} is there already and is no earlier export: name another folder")
    with atomic_folder(folder) as made:
        yield made
