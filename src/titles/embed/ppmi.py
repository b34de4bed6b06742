"""Word vectors by counting: positive pointwise mutual information (PPMI) of words that stand near each
other, and its leading eigenvectors.

Bullinaria and Levy (2007) on PPMI; Levy and Goldberg (2014) on its relation to word2vec; Levy, Goldberg
and Dagan (2015) on weights of distances, contexts and eigenvalues.

Counts are integers, and one thread makes a row of the matrix in a fixed order: vectors do not depend on
the number of threads.

Legend: N titles, V words of the vocabulary, P tokens, T tokens with a PAD around each title, S entries
of the matrix, L levels, D dimensions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data import memory
from titles.data.compiled import compiled
from titles.data.contract import PAD, UNK
from titles.data.encoded import EncodedTitles
from titles.embed.spectral import SPARE_COLUMNS, Rows, eigenvectors, in_chunks
from titles.params import Embed

# Entries of the matrix, 8 bytes each.
_MOST_ENTRIES = 1 << 27
_ROUNDING = 1e-9  # a PMI below is 0
_LEVELS = 63  # powers of 2 that a count can reach
_CHUNK = 1 << 20  # tokens
# Root mean square of the numbers of all vectors: word2vec's have 0.3 on titles, for which the learning
# rates of the networks were chosen.
SPREAD = 0.3
_Ints = NDArray[np.integer[Any]]
_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Corpus:
    """Titles in one row, and the places of each word.

    tokens_T: ids, with PAD before, between and after titles. places_P: places in tokens_T by word; those
    of a word end at end_V. weights_V: sum of a word's counts with all words.
    """

    tokens_T: NDArray[np.int32]
    places_P: _Ints
    end_V: NDArray[np.int64]
    weights_V: NDArray[np.int64]


def train(
    titles: EncodedTitles, words: int, settings: Embed, seed: int, most_entries: int = _MOST_ENTRIES
) -> dict[int, NDArray[np.float32]]:
    """Vectors of the words that some other word stands near; the unknown word is context only. If there
    is none, a warning says so.

    A pair at distance 1 counts `window`, one less for each word further away, as word2vec reads pairs in
    the mean. Where more than `most_entries` entries are positive, those with a count below a power of 2
    are left out: the smallest one that leaves so many.

    Raises:
        ValueError: ids are beyond the vocabulary, or the memory is too small.
    """
    tokens = len(titles.word_ids)
    largest = min(most_entries, 2 * settings.window * tokens, words**2)
    columns = min(settings.dimension + SPARE_COLUMNS, words)
    memory.check(
        12 * tokens + 4 * len(titles) + 8 * largest + words * (8 * _LEVELS + 12 * columns),
        f"counts of {tokens:,} words of titles and {words:,} word vectors "
        f"(embed.dimension: {settings.dimension})",
    )
    if titles.word_ids.max(initial=0) >= words or titles.lengths.min(initial=0) < 0:
        raise ValueError("data/prepared/train does not fit the vocabulary: run `dvc repro`")
    with tqdm(
        total=4 * tokens, unit=" words", unit_scale=True, desc="embed (ppmi, counts)", disable=None
    ) as bar:
        matrix = _associations(
            _lay_out(titles, words, settings.window, bar), settings, most_entries, bar
        )
    has_vector_V = np.diff(matrix.end_V, prepend=np.int64(0)) > 0
    has_vector_V[[PAD, UNK]] = False
    found = np.flatnonzero(has_vector_V)
    if not len(found):
        print(
            "warning: no two words of train stand near each other more often than by chance: no word "
            "has a vector, and the networks start from random ones",
            file=sys.stderr,
        )
        return {}
    vectors_VD = scaled(eigenvectors(matrix, settings.dimension, seed, settings.workers)[found])
    return dict(zip(found.tolist(), vectors_VD, strict=True))


def scaled(vectors_VD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors with the root mean square `SPREAD`; all 0 stay so."""
    size = np.sqrt(np.square(vectors_VD, dtype=np.float64).mean())
    return vectors_VD * np.float32(SPREAD / size) if size else vectors_VD


def _lay_out(titles: EncodedTitles, words: int, window: int, bar: Any) -> _Corpus:
    count, tokens = len(titles), len(titles.word_ids)
    tokens_T = np.full(tokens + count + 1, PAD, np.int32)
    counts_V, weights_V = np.zeros((2, words), np.int64)
    # By number of neighbours on one side: the sum of their counts.
    near = np.concatenate([[0], np.cumsum(np.arange(window, 0, -1))])
    in_chunks(
        lambda first, last: _separate(
            titles.word_ids, titles.ends, near, tokens_T, counts_V, weights_V, first, last
        ),
        [*range(0, count, max(1, count * _CHUNK // max(1, tokens))), count],
        threads=1,
        done=lambda first, last: bar.update((last - first) * tokens / count),
    )
    end_V = np.cumsum(counts_V)
    places_P: _Ints = np.empty(tokens, np.uint32 if len(tokens_T) < 1 << 32 else np.int64)
    next_V = end_V - counts_V
    in_chunks(
        lambda first, last: _sort_places(tokens_T, next_V, places_P, first, last),
        [*range(0, len(tokens_T), _CHUNK), len(tokens_T)],
        threads=1,
        done=lambda first, last: bar.update((last - first) * tokens / len(tokens_T)),
    )
    return _Corpus(tokens_T, places_P, end_V, weights_V)


def _associations(corpus: _Corpus, settings: Embed, most_entries: int, bar: Any) -> Rows:
    end_V = corpus.end_V
    # Context words count by their weight to the power 3/4: otherwise PMI favours rare ones.
    root_V = np.sqrt(corpus.weights_V)
    smooth = np.log(max(1.0, (root_V * np.sqrt(root_V)).sum()))
    log_V = np.log(np.maximum(1, corpus.weights_V))  # words without neighbours have no entry
    # PMI is the logarithm of a pair's count less the shares of both words: the mean of the PMI with
    # either word as context, which keeps the matrix symmetric.
    share_V = (log_V + 0.75 * log_V - smooth) / 2
    levels_VL = np.zeros((len(end_V), _LEVELS), np.int64)
    columns_S, values_S = np.empty(0, np.int32), np.empty(0, np.float32)
    steps = np.arange(_CHUNK, max(1, end_V[-1]), _CHUNK)
    bounds = np.unique([0, *np.searchsorted(end_V, steps), len(end_V)]).tolist()

    def tell(first: int, last: int) -> None:
        bar.update(int(end_V[last - 1] - (end_V[first - 1] if first else 0)))

    def read(least: int, stop_V: NDArray[np.int64]) -> None:
        found = (corpus.tokens_T, corpus.places_P, end_V, share_V, settings.window)
        written = (least, levels_VL, stop_V, columns_S, values_S)
        in_chunks(
            lambda first, last: _read_rows(*found, *written, first, last), bounds, settings.workers, tell
        )

    read(0, end_V)
    above_VL = levels_VL[:, ::-1].cumsum(axis=1)[:, ::-1]  # entries of a level or a higher one
    level = int(np.argmax(np.append(above_VL.sum(axis=0), 0) <= most_entries))
    stop_V = np.cumsum(above_VL[:, level]) if level < _LEVELS else np.zeros_like(end_V)
    columns_S, values_S = np.empty(stop_V[-1], np.int32), np.empty(stop_V[-1], np.float32)
    read(1 << level, stop_V)
    return Rows(stop_V, columns_S, values_S)


@compiled
def _separate(
    ids_P: _Ints,
    end_N: _Ints,
    near: _Ints,
    tokens_T: _Ints,
    counts_V: _Ints,
    weights_V: _Ints,
    first: int,
    last: int,
) -> None:
    """Copy the titles `first` to `last`, and add what their words count."""
    window = len(near) - 1
    for title in range(first, last):
        start = end_N[title - 1] if title > 0 else 0
        for place in range(start, end_N[title]):
            word = ids_P[place]
            if word < 0:  # one of unknown_words
                word = UNK
            tokens_T[place + title + 1] = word
            counts_V[word] += 1
            before, after = place - start, end_N[title] - 1 - place
            weights_V[word] += near[min(before, window)] + near[min(after, window)]


@compiled
def _sort_places(tokens_T: _Ints, next_V: _Ints, places_P: _Ints, first: int, last: int) -> None:
    """Write the places `first` to `last` where the next place of their word belongs."""
    for place in range(first, last):
        word = tokens_T[place]
        if word != PAD:
            places_P[next_V[word]] = place
            next_V[word] += 1


@compiled
def _read_rows(
    tokens_T: _Ints,
    places_P: _Ints,
    end_V: _Ints,
    share_V: _Floats,
    window: int,
    least: int,
    levels_VL: _Ints,
    stop_V: _Ints,
    columns_S: _Ints,
    values_S: _Floats,
    first: int,
    last: int,
) -> None:
    """Count the pairs of words `first` to `last`, and keep the PMI of those where it is positive.

    Args:
        least: 0 to add the number of entries to levels_VL, by the power of 2 of their count; otherwise
            entries with so large a count are written, those of a word up to stop_V.
    """
    sums_V = np.zeros(len(end_V), np.int64)
    seen_V = np.empty(len(end_V), np.int32)
    out = stop_V[first - 1] if first > 0 else 0
    for word in range(first, last):
        seen = 0
        for number in range(end_V[word - 1] if word > 0 else 0, end_V[word]):
            for step in (-1, 1):
                place = np.int64(places_P[number])
                for weight in range(window, 0, -1):
                    place += step
                    other = tokens_T[place]
                    if other == PAD:
                        break
                    if sums_V[other] == 0:
                        seen_V[seen] = other
                        seen += 1
                    sums_V[other] += weight
        for number in range(seen):
            other = seen_V[number]
            count = sums_V[other]
            sums_V[other] = 0
            value = np.log(np.float64(count)) - share_V[word] - share_V[other]
            if value < _ROUNDING:
                continue
            if least == 0:
                level = 0
                while count > 1:
                    count >>= 1
                    level += 1
                levels_VL[word, level] += 1
            elif count >= least:
                columns_S[out] = other
                values_S[out] = value
                out += 1
