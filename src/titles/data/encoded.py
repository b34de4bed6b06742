"""Encoded titles and word vectors on disk.

A split is a folder of arrays: the token ids of all titles, concatenated, and the end of each title.
Arrays are memory-mapped, so that opening 20 million titles takes no time and almost no memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import PAD, QUALITIES, UNK
from titles.data.documents import read_json
from titles.data.files import read_lines

_FILES: dict[str, Any] = {
    "word_ids": np.int32,
    "ends": np.int64,
    "labels": np.int32,
    "languages": np.uint8,
    "qualities": np.uint8,
    "keys": np.uint64,
    "files": np.uint32,
    "lines": np.int64,
}
_UNRELIABLE = QUALITIES.index("unreliable")
_UNKNOWN_WORDS = "unknown_words.txt"
_FILE_NAMES = "files.json"  # a name may hold a newline


@dataclass(frozen=True)
class EncodedTitles:
    """N titles of W tokens together; a title can have none.

    word_ids: (W,) vocabulary ids, never PAD; -1 - k is the k-th of unknown_words.
    ends: (N,) end of each title in word_ids; a title starts where the one before it ends.
    labels: (N,) category ids. languages, qualities: (N,) positions in contract.LANGUAGES, QUALITIES.
    keys: (N,) identity of the title, see prepare/identity.py.
    files, lines: (N,) where the title stands: position in file_names, and line of that file.
    unknown_words: distinct words outside the vocabulary; networks with subwords read their n-grams.
    """

    word_ids: NDArray[np.int32]
    ends: NDArray[np.int64]
    labels: NDArray[np.int32]
    languages: NDArray[np.uint8]
    qualities: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    files: NDArray[np.uint32]
    lines: NDArray[np.int64]
    unknown_words: list[str]
    file_names: list[str]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens per title."""
        return np.diff(self.ends, prepend=np.int64(0))

    @property
    def unreliable(self) -> float:
        """Share of the titles whose label is said to be unreliable; 0 if there are none."""
        return float(np.mean(self.qualities == _UNRELIABLE)) if len(self) else 0.0

    def write(self, folder: Path) -> None:
        folder.mkdir()
        for name, dtype in _FILES.items():
            _save(folder / f"{name}.npy", getattr(self, name).astype(dtype, copy=False))
        text = "".join(f"{word}\n" for word in self.unknown_words)
        (folder / _UNKNOWN_WORDS).write_text(text, encoding="utf-8", newline="\n")
        (folder / _FILE_NAMES).write_text(json.dumps(self.file_names) + "\n", encoding="utf-8")

    @staticmethod
    def open(folder: Path) -> EncodedTitles:
        """Memory-map a split.

        Raises:
            ValueError: a file is missing, damaged, or does not fit the others.
        """
        arrays: dict[str, Any] = {}
        for name, dtype in _FILES.items():
            path = folder / f"{name}.npy"
            arrays[name] = _array(path, mapped=True)
            if arrays[name].dtype != dtype or arrays[name].ndim != 1:
                raise ValueError(f"{path} is damaged: not a row of {np.dtype(dtype)}")
        titles = EncodedTitles(
            **arrays,
            unknown_words=read_lines(folder / _UNKNOWN_WORDS),
            file_names=_names(folder / _FILE_NAMES),
        )
        sizes = {len(arrays[name]) for name in _FILES if name != "word_ids"}
        if len(sizes) != 1 or len(titles.word_ids) != (titles.ends[-1] if len(titles) else 0):
            raise ValueError(f"{folder} is damaged: its files do not fit together")
        return titles

    @staticmethod
    def unlabelled(
        word_ids: NDArray[np.int32], ends: NDArray[np.int64], unknown_words: list[str]
    ) -> EncodedTitles:
        """Titles of which nothing else is known: all other columns are zeros."""
        others = {
            name: np.zeros(len(ends), dtype)
            for name, dtype in _FILES.items()
            if name not in ("word_ids", "ends")
        }
        return EncodedTitles(word_ids, ends, **others, unknown_words=unknown_words, file_names=[""])

    def places(self) -> list[tuple[str, int]]:
        """File and line of each title."""
        files = [self.file_names[position] for position in self.files.tolist()]
        return list(zip(files, self.lines.tolist(), strict=True))

    def select(self, chosen_N: NDArray[np.bool_]) -> EncodedTitles:
        """The titles whose flag is set."""
        columns = {
            name: getattr(self, name)[chosen_N] for name in _FILES if name not in ("word_ids", "ends")
        }
        word_ids = self.word_ids[np.repeat(chosen_N, self.lengths)]
        return replace(self, word_ids=word_ids, ends=np.cumsum(self.lengths[chosen_N]), **columns)

    def words(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Token ids of the given rows, concatenated (T,), and the mask (B, L) of tokens in a padded
        batch of them; L is at least 1, also where no title has a token."""
        ends_B = self.ends[rows]
        starts_B = np.where(rows > 0, self.ends[rows - 1], 0)
        lengths_B = ends_B - starts_B
        place_L = np.arange(lengths_B.max(initial=1))
        inside_BL = place_L < lengths_B[:, None]
        return self.word_ids[(starts_B[:, None] + place_L)[inside_BL]], inside_BL

    def lists(self, rows: NDArray[np.int64]) -> list[list[int]]:
        """Token ids of consecutive rows as Python lists, with UNK for unknown words."""
        first = int(self.ends[rows[0] - 1]) if rows[0] else 0
        ids = map_oov(self.word_ids[first : self.ends[rows[-1]]]).tolist()
        ends = (self.ends[rows] - first).tolist()
        return [ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def map_oov(word_ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Replace the ids of `EncodedTitles.unknown_words` by UNK."""
    return np.where(word_ids < 0, np.int32(UNK), word_ids)


@dataclass(frozen=True)
class WordVectors:
    """One vector per word of the vocabulary.

    matrix_VD: float32; PAD is zero, UNK is the mean of all vectors, and words without a vector get
        random values with the standard deviation of the others.
    has_vector_V: words that were trained or found in the file; neither PAD nor UNK.
    """

    matrix_VD: NDArray[np.float32]
    has_vector_V: NDArray[np.bool_]

    def write(self, folder: Path) -> None:
        _save(folder / "matrix.npy", self.matrix_VD)
        _save(folder / "has_vector.npy", self.has_vector_V)

    @staticmethod
    def read(folder: Path, vocabulary_size: int) -> WordVectors:
        """Read vectors; raises ValueError if a file is missing, damaged, or for another vocabulary."""
        matrix_VD = _array(folder / "matrix.npy")
        has_vector_V = _array(folder / "has_vector.npy")
        if (
            matrix_VD.dtype != np.float32
            or matrix_VD.shape[:-1] != (vocabulary_size,)
            or has_vector_V.shape != (vocabulary_size,)
        ):
            raise ValueError(f"{folder} is not for this vocabulary of {vocabulary_size} words")
        if matrix_VD[PAD].any():
            raise ValueError(f"{folder} is damaged: the vector of padding is not zero")
        return WordVectors(matrix_VD, has_vector_V)


def _names(path: Path) -> list[str]:
    try:
        names = read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, or `dvc pull`") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is damaged: not a list of names")
    return names


def _array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """Read an array, or map it into memory.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, or `dvc pull`") from None
    # A damaged header, which is a Python literal, raises any of these.
    except (
        ValueError,
        TypeError,
        OverflowError,
        SyntaxError,
        TokenError,
        MemoryError,
        EOFError,
        OSError,
    ) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return array


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as stream:
        # Not the file itself: numpy then writes past Python, and does not say what the disk refused.
        np.save(SimpleNamespace(write=stream.write), array)
