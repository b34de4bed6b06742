"""Word vectors by counting, beside the formulas written for dense matrices."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from processors import digest, of_ppmi, zipf
from test_vectors import embed
from titles.data import memory
from titles.data.contract import PAD, UNK
from titles.data.vocabulary import Vocabulary
from titles.embed import ppmi, spectral
from titles.embed.spectral import Rows, eigenvectors, in_chunks, symmetric_eigen
from titles.embed.vectors import train


def counts(titles, words, window):
    """Counts of all pairs, by their definition."""
    found_VV = np.zeros((words, words), np.int64)
    for title in titles.lists(np.arange(len(titles))):
        for place, word in enumerate(title):
            for other in range(len(title)):
                if 0 < abs(place - other) <= window:
                    found_VV[word, title[other]] += window + 1 - abs(place - other)
    return found_VV


def pmi(counts_VV):
    """The mean of the PMI with either word as context, contexts to the power 3/4."""
    joint_VV = counts_VV / counts_VV.sum()
    word_V = joint_VV.sum(axis=1)
    context_V = word_V**0.75 / (word_V**0.75).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        one_VV = np.log(joint_VV / np.outer(word_V, context_V))
        return np.nan_to_num((one_VV + one_VV.T) / 2, nan=0, neginf=0)


def positive(titles, words, monkeypatch, settings=None, **limits):
    """The matrix of which `train` takes the eigenvectors, dense."""
    matrices = []

    def noted(matrix, *given):
        matrices.append(matrix)
        return eigenvectors(matrix, *given)

    monkeypatch.setattr(ppmi, "eigenvectors", noted)
    ppmi.train(titles, words, settings or embed(method="ppmi"), 1, **limits)
    return dense(matrices[0])


def dense(matrix):
    words = len(matrix.end_V)
    found_VV = np.zeros((words, words))
    sizes_V = np.diff(matrix.end_V, prepend=0)
    rows_S = np.repeat(np.arange(words), sizes_V)
    np.add.at(found_VV, (rows_S, matrix.columns_S), matrix.values_S)
    return found_VV


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_the_matrix_is_the_positive_part_of_pmi(monkeypatch, window):
    titles = zipf(700, 90)
    found_VV = positive(titles, 90, monkeypatch, embed(method="ppmi", window=window))
    expected_VV = np.maximum(0, pmi(counts(titles, 90, window)))
    assert (expected_VV > 0).sum() > 500
    np.testing.assert_allclose(found_VV, expected_VV, atol=1e-5)
    assert np.array_equal(found_VV, found_VV.T)


def test_titles_end_and_unknown_words_are_one_context(encode, monkeypatch):
    apart = encode([[2], [3], [], [4, -1], [-2, 4], [5, 4]], unknown_words=["x", "y"])
    found_VV = positive(apart, 6, monkeypatch)
    assert not found_VV[2].any()
    assert not found_VV[3].any()
    assert found_VV[UNK, 4] > 0
    assert set(ppmi.train(apart, 6, embed(method="ppmi"), 1)) == {4, 5}
    vectors = train(
        apart, Vocabulary(["<pad>", "<unk>", *"abcd"], [0, 2, 1, 1, 3, 1]), embed(method="ppmi"), 1
    )
    assert vectors.has_vector_V.tolist() == [False, False, False, False, True, True]
    assert np.isfinite(vectors.matrix_VD).all()
    assert vectors.matrix_VD[2].any()


@pytest.mark.parametrize("most", [3_000, 1_500, 200, 40])
def test_rare_pairs_are_left_out_where_there_are_too_many(monkeypatch, most):
    titles = zipf(900, 90)
    all_VV = positive(titles, 90, monkeypatch)
    found_VV = positive(titles, 90, monkeypatch, most_entries=most)
    counts_VV = counts(titles, 90, 2)
    sizes = {level: ((counts_VV >= 1 << level) & (all_VV > 0)).sum() for level in range(20)}
    level = min(level for level, size in sizes.items() if size <= most)
    assert level > 0
    assert np.array_equal(found_VV, np.where(counts_VV >= 1 << level, all_VV, 0))


@pytest.mark.parametrize("rows", [[], [[]], [[2], [3], [4]], [[2, 2]], [[-1, -2], [2]]])
def test_without_neighbours_no_word_has_a_vector(encode, capsys, rows):
    titles = encode(rows, unknown_words=["x", "y"])
    words = Vocabulary(["<pad>", "<unk>", *"abcd"], [0, 2, 1, 1, 3, 1])
    vectors = train(titles, words, embed(method="ppmi"), 1)
    assert capsys.readouterr().err.startswith("warning: no two words of train stand near each other")
    assert not vectors.has_vector_V.any()
    assert vectors.matrix_VD[2:].any(axis=1).all()


@pytest.mark.parametrize("dimension", [1, 40, 300])
def test_a_vocabulary_smaller_than_the_dimension_has_vectors(dimension):
    found = ppmi.train(zipf(300, 12), 12, embed(method="ppmi", dimension=dimension), 1)
    assert len(found) == 10
    matrix = np.stack(list(found.values()))
    assert matrix.shape == (10, dimension)
    assert np.isfinite(matrix).all()
    assert np.sqrt(np.square(matrix).mean()) == pytest.approx(0.3)


@pytest.mark.parametrize("word", [6, 2**31 - 1])
def test_ids_beyond_the_vocabulary_are_refused(encode, word):
    with pytest.raises(ValueError, match="does not fit the vocabulary"):
        ppmi.train(encode([[2, 3], [word, 3]]), 6, embed(method="ppmi"), 1)


def test_memory_that_is_not_there_is_refused_before_the_work(encode, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 10)
    with pytest.raises(ValueError, match=r"embed\.dimension: 3.* GiB"):
        ppmi.train(encode([[2, 3]]), 6, embed(method="ppmi"), 1)


def test_words_of_one_topic_get_vectors_alike(encode):
    random = np.random.default_rng(4)
    rows = [(random.integers(0, 20, 6) + 2 + 20 * (n % 4)).tolist() for n in range(4_000)]
    found = ppmi.train(encode(rows), 82, embed(method="ppmi", dimension=8, window=5), 1)
    unit = np.stack([found[word] / np.linalg.norm(found[word]) for word in range(2, 82)])
    alike = unit @ unit.T
    same = np.arange(80)[:, None] // 20 == np.arange(80) // 20
    assert alike[same].min() > 0.5 > 0.3 > alike[~same].max()


# -- Bytes


def test_any_number_of_workers_gives_the_same_bytes(monkeypatch):
    monkeypatch.setattr(ppmi, "_CHUNK", 1 << 9)
    monkeypatch.setattr(spectral, "_ENTRIES", 1 << 9)
    titles = zipf(3_000, 4_000)
    found = {
        digest(
            *ppmi.train(titles, 4_000, embed(method="ppmi", dimension=20, workers=workers), 1).values()
        )
        for workers in (1, 2, 3, 7)
    }
    assert len(found) == 1


def test_the_sizes_of_chunks_change_nothing(monkeypatch):
    before = of_ppmi()
    monkeypatch.setattr(ppmi, "_CHUNK", 77)
    monkeypatch.setattr(spectral, "_ENTRIES", 99)
    assert of_ppmi() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
        {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    ],
    ids=str,
)
def test_code_for_other_processors_gives_the_same_bytes(settings):
    ran = subprocess.run(
        [sys.executable, "-c", "import titles, processors as p; print(p.of_ppmi())"],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
        | settings,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == [of_ppmi()]


# -- Eigenvectors


def sparse(dense_VV):
    rows, columns = np.nonzero(dense_VV)
    ends = np.cumsum(np.bincount(rows, minlength=len(dense_VV)))
    return Rows(ends, columns.astype(np.int32), dense_VV[rows, columns].astype(np.float32))


@pytest.mark.parametrize("size", [1, 2, 5, 40, 130])
def test_rotations_find_all_eigenvalues(size):
    random = np.random.default_rng(size)
    matrix = random.normal(size=(size, size))
    matrix += matrix.T
    values, axes = symmetric_eigen(matrix)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(matrix), atol=1e-10)
    np.testing.assert_allclose(axes * values @ axes.T, matrix, atol=1e-10)
    np.testing.assert_allclose(axes.T @ axes, np.eye(size), atol=1e-12)


def test_eigenvectors_are_those_of_numpy():
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 300)))
    values = 100 * 0.7 ** np.arange(300) * (-1) ** np.arange(300)
    found = eigenvectors(sparse(axes * values @ axes.T), 6, 1, 2)
    expected = axes[:, :6] * np.sqrt(np.abs(values[:6]))
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3)


def test_columns_beyond_the_rank_are_zero():
    base = np.random.default_rng(1).normal(size=(50, 3))
    found = eigenvectors(sparse(base @ base.T), 8, 1, 1)
    np.testing.assert_allclose(found @ found.T, base @ base.T, atol=1e-3)
    assert np.abs(found[:, 3:]).max() < 0.02


# -- Interrupts


def test_an_error_ends_the_work_after_the_chunks_that_run():
    began = []

    def work(first, last):
        began.append(first)
        time.sleep(0.01)
        if first == 3:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_chunks(work, range(1_000), 2)
    assert len(began) < 100


def test_an_interrupt_ends_the_work():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("handlers of signals only run in the main thread")
    began = []

    def work(first, last):
        began.append(first)
        time.sleep(0.01)
        if first == 3:
            os.kill(os.getpid(), signal.SIGINT)

    gc.disable()  # Hypothesis is called by the collector, and an interrupt would be lost there
    try:
        with pytest.raises(KeyboardInterrupt):
            in_chunks(work, range(1_000), 2)
    finally:
        gc.enable()
    assert len(began) < 100


def test_padding_is_no_word(encode):
    assert PAD not in ppmi.train(encode([[2, 3], [3, 4, 2]]), 6, embed(method="ppmi"), 1)
