"""Files of word vectors: word2vec's text and binary formats, and GloVe's text, which has no header.

Legend: N words, D dimensions of a vector.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice, takewhile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from titles.listings import streams

# Values of word vectors are a few units; larger ones are damage, and sums of their squares overflow.
LARGEST = 1e6
_SAMPLED_LINES = 100
_BYTES_PER_NUMBER = 64
_LONGEST_WORD = 10_000
_BATCH = 256  # words
_BLOCK = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_OF_NUMBERS = b"0123456789+-.,eE \t\r\n"


class Entry(NamedTuple):
    """A word of a file, with its numbers as they stand there."""

    word: str
    numbers: bytes
    place: int  # line in a text file, word in a binary file, from 1


class VectorFile:
    """A file of word vectors.

    The last D fields of a line of text are its numbers, and all before them is the word: GloVe's and
    NILC's files have words with spaces. A word that is not UTF-8 is read as Latin-1.

    Raises:
        ValueError: the file is no file of word vectors, or of another dimension.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.dimension = path, dimension
        self.latin1 = 0  # words read as Latin-1
        limit = _BYTES_PER_NUMBER * (dimension + 16)
        with streams.opened(path, binary=True) as stream:
            first = stream.readline(limit)
            header = first.split()
            self._has_header = len(header) == 2 and len(first) < 100 and all(map(bytes.isdigit, header))
            lines = [] if self._has_header else [first]
            rest = islice(iter(lambda: stream.readline(limit), b""), _SAMPLED_LINES)
            lines = [line for line in [*lines, *rest] if line.strip()]
        self._words = int(header[0]) if self._has_header else None
        numbers = [_numbers_at_end(line) for line in lines]
        self._is_text = 2 * sum(map(bool, numbers)) > len(lines) or _is_printable(b"".join(lines))
        whole = [n for n, line in zip(numbers, lines, strict=True) if line.endswith(b"\n") and n]
        (usual, times), *_ = Counter(whole).most_common(1) or [(0, 0)]
        if not self._has_header and not (self._is_text and 2 * times > len(lines)):
            raise ValueError(
                f"{path} does not start with '<words> <dimension>', nor are its lines words with "
                "numbers: not a word2vec file, nor GloVe's"
            )
        found = int(header[1]) if self._has_header else usual
        if found != dimension:
            raise ValueError(
                f"{path} has vectors of dimension {found}, but embed.dimension is {dimension}: "
                f"set embed.dimension={found}"
            )
        if self._is_text and usual != dimension and 2 * times > len(lines):
            raise ValueError(
                f"{path} is damaged: it announces dimension {dimension}, but its lines have {usual} "
                "numbers"
            )

    def batches(self) -> Iterator[list[Entry]]:
        """All entries in order, some at a time.

        Raises:
            ValueError: the file is damaged or truncated, or its header has another number of words.
        """
        with streams.opened(self.path, binary=True) as stream:
            if self._has_header:
                stream.readline()
            entries = self._text_entries(stream) if self._is_text else self._binary_entries(stream)
            read = 0
            bar = tqdm(
                total=self._words, unit=" words", unit_scale=True, desc=self.path.name, disable=None
            )
            with bar:
                while batch := list(islice(entries, _BATCH)):
                    read += len(batch)
                    if self._words is not None and read > self._words:
                        raise ValueError(
                            f"{self.path} announces {self._words} words and has more: "
                            "its first line is wrong, or the file is damaged"
                        )
                    if not self._is_text:
                        self.vectors(batch)  # a reader out of step finds impossible numbers
                    yield batch
                    bar.update(len(batch))
        if self._words is not None and read < self._words:
            raise ValueError(
                f"{self.path} is truncated: it announces {self._words} words and ends after {read}. "
                "Get the file again"
            )

    def vectors(self, entries: Sequence[Entry]) -> NDArray[np.float32]:
        """The vectors (N, D) of entries.

        Raises:
            ValueError: a number is none, not finite, or too large.
        """
        try:
            return self._parsed(entries)
        except ValueError:
            for entry in entries:
                self._parsed([entry])  # raises the error with its place
            raise

    def _parsed(self, entries: Sequence[Entry]) -> NDArray[np.float32]:
        place = self.place(entries[0]) if entries else ""
        if self._is_text:
            fields = [field for entry in entries for field in entry.numbers.split(b" ")]
            try:
                # Several times as fast as numpy.
                values = pa.array(fields, pa.binary()).cast(pa.string()).cast(pa.float32()).to_numpy()
            except ValueError:
                raise ValueError(f"{self.path}: {place} has a value that is not a number") from None
        else:
            data = b"".join(entry.numbers for entry in entries)
            values = np.frombuffer(data, "<f4").astype(np.float32)
        if not (np.abs(values) < LARGEST).all():
            raise ValueError(
                f"{self.path}: {place} has a number that is not finite, or beyond {LARGEST:g}"
            )
        vectors_ND: NDArray[np.float32] = values.reshape(len(entries), self.dimension)
        return vectors_ND

    def place(self, entry: Entry) -> str:
        """Where an entry stands, for messages."""
        return f"{'line' if self._is_text else 'word'} {entry.place}"

    def _text_entries(self, stream: BinaryIO) -> Iterator[Entry]:
        path, dimension, empty = self.path, self.dimension, 0
        following = iter(lambda: stream.readline(streams.LONGEST_LINE + 1), b"")
        for number, line in enumerate(following, start=2 if self._has_header else 1):
            if len(line) > streams.LONGEST_LINE:
                raise ValueError(
                    f"{path} is damaged: line {number} is longer than {streams.TOLD_LONGEST}"
                )
            if not line.endswith(b"\n"):  # a line cut inside its last number would parse
                raise ValueError(f"{path} is truncated: line {number} does not end. Get the file again")
            line = line.rstrip()
            if not line or empty:  # at the end of the file they do no harm
                empty = empty or number
                if line:
                    raise ValueError(f"{path} is damaged: line {empty} is empty")
                continue
            parts = line.count(b" ") + 1 - dimension  # of the word
            if parts > 0 and b"  " not in line and b"\t" not in line:
                # Nearly all lines are like this, and splitting them whole takes ten times as long.
                *words, numbers = line.split(b" ", parts)
            else:
                *words, numbers = self._split(line, number)
            yield Entry(self._decoded(b" ".join(words)), numbers, number)

    def _split(self, line: bytes, number: int) -> tuple[bytes, bytes]:
        """The word and the numbers of a line, however many blanks are between them."""
        fields = line.rsplit(None, self.dimension)
        word = b"" if line[:1].isspace() and len(fields) == self.dimension else fields.pop(0)
        if len(fields) != self.dimension:
            raise ValueError(
                f"{self.path} is truncated or damaged: line {number} has {len(fields)} numbers, "
                f"expected {self.dimension}"
            )
        return word, b" ".join(fields)

    def _binary_entries(self, stream: BinaryIO) -> Iterator[Entry]:
        path, size = self.path, 4 * self.dimension
        block, at = b"", 0
        for number in count(1):
            while (space := block.find(b" ", at)) < 0 or len(block) <= space + size:
                if space < 0 and len(block) - at > _LONGEST_WORD:
                    raise ValueError(f"{path} is damaged: word {number} does not end")
                more = stream.read(_BLOCK)
                block, at = block[at:] + more, 0
                if not more:
                    if not block.strip():
                        return
                    raise ValueError(f"{path} is truncated: the vector of word {number} is incomplete")
            # Some writers put a newline after each vector.
            word = block[at:space].lstrip(b"\r\n")
            at = space + 1 + size
            data = block[space + 1 : at]
            if _CONTROL.search(word) or len(word) > _LONGEST_WORD or not data.strip(_OF_NUMBERS):
                raise ValueError(
                    f"{path} is damaged: word {number} is no text, or its vector is. Get the file again"
                )
            yield Entry(self._decoded(word), data, number)

    def _decoded(self, word: bytes) -> str:
        try:
            return word.decode()
        except UnicodeDecodeError:
            self.latin1 += 1
            return word.decode("latin-1")


def is_number(text: str | bytes) -> bool:
    """Whether a field of a line is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers_at_end(line: bytes) -> int:
    """Fields at the end of a line that are numbers, beside its first."""
    return sum(1 for _ in takewhile(is_number, reversed(line.split()[1:])))


def _is_printable(data: bytes) -> bool:
    """Whether bytes are text of UTF-8; raw floats practically never are."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return not _NO_TEXT.search(data)
