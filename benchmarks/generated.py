"""Random titles for speed measurements, with word frequencies and lengths like those of listings.

Dimensions: N titles, V words of the vocabulary, W tokens of all titles together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from titles.data.contract import SPECIAL_WORDS
from titles.data.encoded import EncodedTitles

WORDS = 50_000
CATEGORIES = 632
# A title's category is that of its rarest word among this many of the most frequent ones. Nearly every
# title has such a word, and each occurs often enough to be learnt.
_LABEL_WORDS = 1_000
_SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeiou"]


@dataclass(frozen=True)
class Generated:
    """Titles, encoded and as text.

    clean: tokens of `titles.prepare.text`, joined by spaces. raw: as a seller might write them.
    """

    titles: EncodedTitles
    clean: list[str]
    raw: list[str]


def vocabulary() -> list[str]:
    """All words by id, special tokens first; frequent words are short."""
    return [*SPECIAL_WORDS, *(_spell(number) for number in range(WORDS - len(SPECIAL_WORDS)))]


def _spell(number: int) -> str:
    number += len(_SYLLABLES)  # at least two syllables
    letters = ""
    while number:
        number, syllable = divmod(number, len(_SYLLABLES))
        letters = _SYLLABLES[syllable] + letters
    return letters


def generate(count: int, seed: int) -> Generated:
    """Titles of 3 to 14 words, 7.5 on average, with words drawn from Zipf's law."""
    draw = np.random.default_rng(seed)
    lengths_N = 3 + draw.binomial(11, 4.5 / 11, count)
    ends_N = np.cumsum(lengths_N)
    first = len(SPECIAL_WORDS)
    share_V = 1 / np.arange(1, WORDS - first + 1)
    ids_W = draw.choice(WORDS - first, size=ends_N[-1], p=share_V / share_V.sum()) + first
    titles = encoded(ids_W, ends_N, _categories(ids_W, ends_N - lengths_N))
    words = vocabulary()
    # One word in ten ends in an accented letter, so that normalisation has characters beyond ASCII.
    accented = str.maketrans("aeiou", "áéíóú")
    written = [
        (word[:-1] + word[-1].translate(accented) if number % 10 == 0 else word).capitalize()
        for number, word in enumerate(words)
    ]
    rows = titles.lists(np.arange(count))
    return Generated(
        titles,
        [" ".join([words[number] for number in row]) for row in rows],
        [" ".join([written[number] for number in row]) for row in rows],
    )


def encoded(
    ids_W: NDArray[np.int64], ends_N: NDArray[np.int64], labels_N: NDArray[np.int32]
) -> EncodedTitles:
    """Encoded titles in which only tokens and categories matter."""
    nothing_N = np.zeros(len(ends_N), np.uint8)
    return EncodedTitles(
        word_ids=ids_W.astype(np.int32),
        ends=ends_N.astype(np.int64),
        labels=labels_N,
        languages=nothing_N,
        qualities=nothing_N,
        keys=np.arange(len(ends_N), dtype=np.uint64),
        files=nothing_N.astype(np.uint32),
        lines=np.arange(len(ends_N), dtype=np.int64),
        unknown_words=[],
        file_names=[""],
    )


def _categories(ids_W: NDArray[np.int64], starts_N: NDArray[np.int64]) -> NDArray[np.int32]:
    # The same for every seed, so that what is learnt with one seed holds for another.
    category_V = np.random.default_rng(0).integers(CATEGORIES, size=WORDS)
    label_W = np.where(ids_W < _LABEL_WORDS, ids_W, 0)
    return category_V[np.maximum.reduceat(label_W, starts_N)].astype(np.int32)
