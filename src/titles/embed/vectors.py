"""Word vectors: trained on the train split, or read from a word2vec file.

Legend: V words of the vocabulary, D dimensions of a vector.
"""

from __future__ import annotations

import gzip
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gensim.models import FastText, Word2Vec
from gensim.models.callbacks import CallbackAny2Vec
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data.contract import PAD, SPECIAL_WORDS, UNK, opened
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.vocabulary import Vocabulary
from titles.params import Embed

# gensim cuts lines of a corpus file at 10,000 words; titles are far shorter.
_LINES_PER_WRITE = 100_000
# Values of word vectors are a few units; larger ones are damage, and sums of their squares overflow.
_LARGEST = 1e6
# Entry: a word with a function that parses its vector, since most vectors are not needed.
Vector = NDArray[np.float32]
Entry = tuple[str, Callable[[], Vector]]


def train(titles: EncodedTitles, words: Vocabulary, settings: Embed, seed: int) -> WordVectors:
    """Train skip-gram vectors with gensim; the unknown word is used as context but gets no vector.

    word2vec: Mikolov et al. (2013). fasttext: with subwords, Bojanowski et al. (2017).
    """
    logging.getLogger("gensim").setLevel(logging.WARNING)
    options: dict[str, Any] = {
        **{"vector_size": settings.dimension, "window": settings.window, "epochs": settings.epochs},
        **{"negative": settings.negative, "workers": settings.workers},
        **{"sg": 1, "min_count": 1, "seed": seed},
        "callbacks": [_Progress(settings.epochs, f"embed ({settings.method})")],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", newline="\n") as corpus:
        # gensim's threads read a file without the GIL.
        for start in range(0, len(titles), _LINES_PER_WRITE):
            rows = np.arange(start, min(start + _LINES_PER_WRITE, len(titles)))
            lines = (" ".join(words.words[i] for i in title) for title in titles.lists(rows))
            corpus.writelines(f"{line}\n" for line in lines)
        corpus.flush()
        if settings.method == "fasttext":
            subwords = {"min_n": settings.subword_min, "max_n": settings.subword_max}
            trained = FastText(corpus_file=corpus.name, **subwords, **options).wv
        else:
            trained = Word2Vec(corpus_file=corpus.name, **options).wv
    found = {i: trained[word] for i, word in enumerate(words.words) if i > UNK and word in trained}
    return _assemble(found, len(words), settings.dimension, seed)


class _Progress(CallbackAny2Vec):  # type: ignore[misc]
    def __init__(self, epochs: int, title: str) -> None:
        self._bar = tqdm(total=epochs, unit=" epochs", desc=title, disable=None)

    def on_epoch_end(self, model: Any) -> None:
        self._bar.update()

    def on_train_end(self, model: Any) -> None:
        self._bar.close()


def read_pretrained(
    path: Path, words: Vocabulary, dimension: int, seed: int, normalise: Callable[[str], str]
) -> WordVectors:
    """Read the vectors of the vocabulary from a word2vec file, text or binary, also gzip.

    Only needed vectors are kept: memory does not grow with the file. A word of the vocabulary gets the
    vector of the same word, or else of the first word that is the same after `normalise` ("Teléfono" for
    "telefono"), which is the most frequent. Raises ValueError if the file is missing, damaged,
    truncated, of another dimension, or shares no word.
    """
    ids = {word: number for word, number in words.ids().items() if number > UNK}
    exact: dict[int, Vector] = {}
    alike: dict[int, Vector] = {}
    try:
        with opened(path) as stream:
            for word, vector in _entries(path, stream, dimension):
                if word in ids:
                    exact.setdefault(ids[word], vector())
                    continue
                number = ids.get(normalise(word).strip())
                if number is not None and number not in alike:
                    alike[number] = vector()
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is not a file: set embed.pretrained to a word2vec file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}. Get the file again") from None
    if not exact and not alike:
        raise ValueError(f"{path} has none of the {len(words)} words: is it for this language?")
    return _assemble(alike | exact, len(words), dimension, seed)


def _entries(path: Path, stream: BinaryIO, dimension: int) -> Iterator[Entry]:
    header = stream.readline(100).split()
    if len(header) != 2 or not all(part.isdigit() for part in header):
        raise ValueError(f"{path} does not start with '<words> <dimension>': not a word2vec file")
    words, found = map(int, header)
    if found != dimension:
        raise ValueError(
            f"{path} has vectors of dimension {found}, but embed.dimension is {dimension}: "
            f"set embed.dimension={found}"
        )
    entries = _binary_entries if _is_binary(path, dimension) else _text_entries
    rows = entries(path, stream, dimension)
    for read in tqdm(range(words), unit=" words", unit_scale=True, desc=path.name, disable=None):
        if (entry := next(rows, None)) is None:
            raise ValueError(
                f"{path} is truncated: it announces {words} words and ends after {read}. "
                "Get the file again"
            )
        yield entry


def _is_binary(path: Path, dimension: int) -> bool:
    # The second line of a text file is a word and numbers; raw floats practically never parse as that.
    with opened(path) as stream:
        stream.readline(100)
        line = stream.readline(64 * (dimension + 16))
    try:
        numbers = [float(number) for number in line.split()[1:]]
        line.decode("utf-8")
    except (ValueError, UnicodeDecodeError):
        return True
    return not numbers  # the first byte of the first float is a newline


def _text_entries(path: Path, stream: BinaryIO, dimension: int) -> Iterator[Entry]:
    for number, line in enumerate(stream, start=2):
        if not line.endswith(b"\n"):  # a line cut inside its last number would parse
            raise ValueError(f"{path} is truncated: line {number} does not end. Get the file again")
        word, _, numbers = line.rstrip().partition(b" ")

        def vector(numbers: bytes = numbers, number: int = number) -> Vector:
            try:
                with np.errstate(over="ignore"):  # infinity is refused below
                    values = np.array(numbers.split(), dtype=np.float32)
            except ValueError:
                raise ValueError(f"{path}: line {number} has a value that is not a number") from None
            return _checked(path, values, dimension, f"line {number}")

        if numbers.count(b" ") < dimension - 1:
            raise ValueError(
                f"{path} is truncated or damaged: line {number} has {len(numbers.split())} numbers, "
                f"expected {dimension}"
            )
        yield word.decode("utf-8", "replace"), vector


def _binary_entries(path: Path, stream: BinaryIO, dimension: int) -> Iterator[Entry]:
    size = 4 * dimension
    for number in count(1):
        letters = bytearray()
        while (byte := stream.read(1)) not in (b" ", b""):
            letters += byte
            if len(letters) > 10_000:
                raise ValueError(f"{path} is damaged: word {number} does not end")
        if byte == b"" and not letters.strip():
            return
        data = stream.read(size)
        if len(data) != size:
            raise ValueError(f"{path} is truncated: the vector of word {number} is incomplete")

        def vector(data: bytes = data, number: int = number) -> Vector:
            values = np.frombuffer(data, dtype="<f4").astype(np.float32)
            return _checked(path, values, dimension, f"word {number}")

        # Some writers put a newline after each vector.
        yield letters.lstrip(b"\n").decode("utf-8", "replace"), vector


def _checked(path: Path, values: Vector, dimension: int, place: str) -> Vector:
    if len(values) != dimension:
        raise ValueError(f"{path}: {place} has {len(values)} numbers, expected {dimension}")
    if not (np.abs(values) < _LARGEST).all():
        raise ValueError(f"{path}: {place} has a number that is not finite, or beyond {_LARGEST:g}")
    return values


def _assemble(found: dict[int, Vector], words: int, dimension: int, seed: int) -> WordVectors:
    has_vector_V = np.zeros(words, bool)
    rows = sorted(found)
    has_vector_V[rows] = True
    vectors = np.stack([found[row] for row in rows])
    random = np.random.default_rng(seed)
    matrix_VD = random.normal(0, vectors.std(), (words, dimension)).astype(np.float32)
    matrix_VD[rows] = vectors
    matrix_VD[UNK] = vectors.mean(axis=0)
    matrix_VD[PAD] = 0
    return WordVectors(matrix_VD, has_vector_V)


def coverage(vectors: WordVectors, words: Vocabulary) -> dict[str, float]:
    """Shares of the words of the vocabulary, and of the tokens of train, that have a vector."""
    counts_V = np.array(words.counts)
    known = len(words) - len(SPECIAL_WORDS)
    return {
        "words": round(float(vectors.has_vector_V.sum()) / max(1, known), 6),
        "tokens": round(float(counts_V[vectors.has_vector_V].sum() / max(1, counts_V.sum())), 6),
    }
