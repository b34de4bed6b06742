"""Folders with a table of word vectors and the list of its words, as static embedding models have them.

Legend: N words, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from titles.data.documents import DocumentError, read_bytes, read_json
from titles.embed.word2vec import LARGEST, Entry

_LISTS = ("words.txt", "vocab.txt", "tokenizer.json")
_EMBEDDINGS = "embeddings"
_BATCH = 4096  # words
# Pieces of words, and marks of words that begin: of WordPiece, and of Unigram and BPE on text.
_INNER, _BEGINS = "##", "\u2581"


class TableFolder:
    """A folder with one table and the list of its words.

    The table is a file .npy, or .safetensors with one matrix, or one called "embeddings". The list is
    words.txt or vocab.txt, a word on each line in the order of the rows, or the tokenizer.json of a
    static embedding model: of its tokens, those that are whole words are read.

    Raises:
        ValueError: a part is missing, damaged or of another dimension, or the two do not fit.
    """

    latin1 = 0  # as of VectorFile: words are UTF-8 here

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.dimension = path, dimension
        tables = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".safetensors"))
        if len(tables) != 1:
            names = ", ".join(file.name for file in tables) or "none"
            raise ValueError(f"{path} needs one table, .npy or .safetensors, and has: {names}")
        (self._file,) = tables
        self._table: Any = _array(self._file) if self._file.suffix == ".npy" else _tensor(self._file)
        shape = _shape(self._table)
        if len(shape) != 2:
            raise ValueError(f"{self._file} is no table: it has the shape {shape}")
        if shape[1] != dimension:
            raise ValueError(
                f"{self._file} has vectors of dimension {shape[1]}, but embed.dimension is {dimension}: "
                f"set embed.dimension={shape[1]}"
            )
        self._words = _words(path, shape[0])

    def batches(self) -> Iterator[list[Entry]]:
        """All words in the order of their rows, some at a time."""
        bar = tqdm(
            total=len(self._words), unit=" words", unit_scale=True, desc=self.path.name, disable=None
        )
        with bar:
            for start in range(0, len(self._words), _BATCH):
                batch = self._words[start : start + _BATCH]
                yield [Entry(word, b"", row + 1) for word, row in batch]
                bar.update(len(batch))

    def vectors(self, entries: Sequence[Entry]) -> NDArray[np.float32]:
        """The vectors (N, D) of entries.

        Raises:
            ValueError: a number is not finite, or too large.
        """
        rows = [self._table[entry.place - 1 : entry.place] for entry in entries]
        vectors_ND = np.empty((len(rows), self.dimension), np.float32)
        for place, row in enumerate(rows):
            vectors_ND[place] = row if isinstance(row, np.ndarray) else row.float().numpy()
            if not (np.abs(vectors_ND[place]) < LARGEST).all():
                raise ValueError(
                    f"{self._file}: {self.place(entries[place])} has a number that is not finite, or "
                    f"beyond {LARGEST:g}"
                )
        return vectors_ND

    def place(self, entry: Entry) -> str:
        """Where an entry stands, for messages."""
        return f"row {entry.place}"


def _array(file: Path) -> NDArray[Any]:
    try:
        table: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{file} is damaged, or no array of numpy: {error}") from None
    if not np.issubdtype(table.dtype, np.floating):
        raise ValueError(f"{file} has values of type {table.dtype}, not floating point numbers")
    return table


def _tensor(file: Path) -> Any:
    """A slice of the file, which reads the rows that it is asked for."""
    try:
        stored: Any = safe_open(file, "pt")
        tables = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged, or no file of safetensors: {error}") from None
    matrices = [name for name, table in tables.items() if len(_shape(table)) == 2]
    name = _EMBEDDINGS if _EMBEDDINGS in tables else matrices[0] if len(matrices) == 1 else ""
    if not name:
        raise ValueError(
            f"{file} needs one matrix, or one called {_EMBEDDINGS}, and has: "
            f"{', '.join(sorted(tables)) or 'none'}"
        )
    kind = tables[name].get_dtype()
    if not kind.startswith(("F", "BF")):
        raise ValueError(f"{file} has values of type {kind} in {name}, not floating point numbers")
    return tables[name]


def _shape(table: Any) -> tuple[int, ...]:
    return tuple(table.shape if isinstance(table, np.ndarray) else table.get_shape())


def _words(folder: Path, rows: int) -> list[tuple[str, int]]:
    """The words with their rows."""
    name = next((name for name in _LISTS if (folder / name).is_file()), None)
    if name is None:
        raise ValueError(f"{folder} has no list of words: one of {', '.join(_LISTS)} is needed")
    file = folder / name
    try:
        if file.suffix == ".json":
            return _of_tokenizer(file, read_json(file), rows)
        lines = read_bytes(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8") from None
    except DocumentError as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    if len(lines) != rows:
        raise ValueError(f"{file} has {len(lines)} words, but the table has {rows} rows")
    return [(word, row) for row, word in enumerate(lines)]


def _of_tokenizer(file: Path, content: Any, rows: int) -> list[tuple[str, int]]:
    model = content.get("model") if isinstance(content, Mapping) else None
    tokens = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(tokens, list):  # of Unigram: pairs with a score, in the order of the rows
        tokens = {
            token[0]: row
            for row, token in enumerate(tokens)
            if isinstance(token, list) and token and isinstance(token[0], str)
        }
    if not isinstance(tokens, Mapping) or not all(type(row) is int for row in tokens.values()):
        raise ValueError(f"{file} has no vocabulary of a tokenizer")
    if any(not 0 <= row < rows for row in tokens.values()):
        raise ValueError(f"{file} has tokens beyond the {rows} rows of the table")
    marked = any(token.startswith(_BEGINS) for token in tokens)
    words = [
        (token.removeprefix(_BEGINS), row)
        for token, row in tokens.items()
        if (token.startswith(_BEGINS) if marked else not token.startswith(_INNER))
    ]
    return sorted(words, key=lambda item: item[1])
