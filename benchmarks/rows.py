"""The rows of the pipeline's splits as raw titles and category ids, for other classifiers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import LABELS, PREPARED, SPLITS
from titles.data.encoded import EncodedTitles
from titles.listings import sources
from titles.params import Params

Codes = NDArray[np.int64]


class Split(NamedTuple):
    """Titles as in the source, and their category ids."""

    titles: list[str]
    labels: Codes


def read_splits(params: Params, folder: Path = Path()) -> dict[str, Split]:
    """The splits of `prepare`'s last run in a folder, by default this one."""
    encoded = {name: EncodedTitles.open(folder / PREPARED / name) for name in SPLITS}
    found = _titles_by_place(params, {place for split in encoded.values() for place in split.places()})
    return {
        name: Split([found[place] for place in split.places()], split.labels.astype(np.int64))
        for name, split in encoded.items()
    }


def _titles_by_place(params: Params, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    source = Path(params.prepare.source)
    return {
        (chunk.file, line): title
        for chunk in sources.read(source, params.prepare.language, params.prepare.max_title_chars)
        for line, title in zip(chunk.lines, chunk.titles, strict=True)
        if (chunk.file, line) in wanted
    }


def digest(files: Iterable[Path], *more: str) -> str:
    """A hash of the contents of files, in the given order, and of further text."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    total.update("\0".join(more).encode())
    return total.hexdigest()[:16]


def digest_of_rows(workspace: Path, source: Path) -> str:
    """A hash that changes with the titles, splits or category ids of `prepare` in `workspace`."""
    arrays = [
        workspace / PREPARED / split / f"{name}.npy" for split in SPLITS for name in ("lines", "labels")
    ]
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return digest([*files, workspace / LABELS, *arrays])
