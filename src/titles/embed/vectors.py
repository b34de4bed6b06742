"""Word vectors: trained on the train split, blended with an encoder's, or read from a word2vec file.

Legend: V words of the vocabulary, D dimensions of a vector.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gensim.models import FastText, Word2Vec
from gensim.models.callbacks import CallbackAny2Vec
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data import memory
from titles.data.contract import PAD, SPECIAL_WORDS, UNK
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.vocabulary import Vocabulary
from titles.embed import encoder, ppmi
from titles.embed.tables import TableFolder
from titles.embed.word2vec import VectorFile, is_number
from titles.listings.streams import DAMAGE
from titles.params import Embed

# gensim cuts lines of a corpus file at 10,000 words; titles are far shorter.
_LINES_PER_WRITE = 100_000
_SMALLEST = 1e-6
_GENSIM_BUCKETS = 2_000_000  # of n-grams, its default
Vector = NDArray[np.float32]


def train(titles: EncodedTitles, words: Vocabulary, settings: Embed, seed: int) -> WordVectors:
    """Train vectors by the method of `settings`; the unknown word is context but gets no vector.

    word2vec: skip-gram by gensim, Mikolov et al. (2013). fasttext: with subwords, Bojanowski et al.
    (2017). ppmi, encoder: see their modules.
    """
    if settings.method == "ppmi":
        found = ppmi.train(titles, len(words), settings, seed)
        return _assemble(found, len(words), settings.dimension, seed)
    if settings.method == "encoder":
        found = encoder.train(titles, words, settings, seed)
        return _assemble(found, len(words), settings.dimension, seed)
    buckets = _GENSIM_BUCKETS if settings.method == "fasttext" else 0
    _check_memory(2 * len(words) + buckets, settings.dimension)
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
    """Read the vectors of the vocabulary from a file of word2vec, text or binary, or GloVe, also packed,
    or from a folder with a table (see `TableFolder`).

    Only needed vectors are kept: memory does not grow with the file. A word of the vocabulary gets the
    vector of the same word, or else of the first word that is the same after `normalise` ("Teléfono" for
    "telefono"), which is the most frequent. Raises ValueError if the file is missing, damaged,
    truncated, of another dimension, or shares no word.
    """
    _check_memory(len(words), dimension)
    ids = {word: number for word, number in words.ids().items() if number > UNK}
    exact: dict[int, Vector] = {}
    alike: dict[int, Vector] = {}
    doubtful: dict[int, str] = {}
    try:
        file = TableFolder(path, dimension) if path.is_dir() else VectorFile(path, dimension)
        for batch in file.batches():
            names = [entry.word.replace("\n", " ") for entry in batch]
            others = normalise("\n".join(names)).split("\n")
            wanted: dict[int, int] = {}  # places in the batch, by word
            wanted_alike: dict[int, int] = {}
            for place, (name, other) in enumerate(zip(names, others, strict=True)):
                if name in ids:
                    wanted.setdefault(ids[name], place)
                elif (other := other.strip()) in ids:
                    wanted_alike.setdefault(ids[other], place)
                first, *more = name.split() or [""]
                # "mesa 7" is a word with a space or, where "mesa" is missing, a line with a number more.
                if more and first in ids and all(map(is_number, more)):
                    doubtful.setdefault(
                        ids[first], f"{file.place(batch[place])} has {dimension + len(more)} numbers"
                    )
            for found, places in ((exact, wanted), (alike, wanted_alike)):
                new = {number: batch[place] for number, place in places.items() if number not in found}
                found |= zip(new, file.vectors(list(new.values())), strict=True)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: set embed.pretrained to a file of word vectors") from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            error.filename = error.filename or str(path)
            raise  # of the system
        raise ValueError(f"{path} is damaged: {error}. Get the file again") from None
    for number, problem in doubtful.items():
        if number not in exact:
            raise ValueError(f"{path} is damaged: {problem}, expected {dimension}")
    if not exact and not alike:
        raise ValueError(f"{path} has none of the {len(words)} words: is it for this language?")
    found = alike | exact
    if max(np.abs(vector).max() for vector in found.values()) < _SMALLEST:
        raise ValueError(f"{path} is damaged or no file of word vectors: all its numbers are nearly 0")
    if file.latin1:
        print(f"note: {file.latin1} words of {path} are not UTF-8: read as Latin-1", file=sys.stderr)
    return _assemble(found, len(words), dimension, seed)


def _check_memory(rows: int, dimension: int) -> None:
    memory.check(
        rows * dimension * np.dtype(np.float32).itemsize,
        f"{rows:,} word vectors (embed.dimension: {dimension})",
    )


def _assemble(found: dict[int, Vector], words: int, dimension: int, seed: int) -> WordVectors:
    has_vector_V = np.zeros(words, bool)
    rows = sorted(found)
    has_vector_V[rows] = True
    vectors = np.array([found[row] for row in rows], np.float32).reshape(-1, dimension)
    spread = vectors.std() if rows else ppmi.SPREAD
    random = np.random.default_rng(seed)
    matrix_VD = random.normal(0, spread, (words, dimension)).astype(np.float32)
    matrix_VD[rows] = vectors
    if rows:
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
