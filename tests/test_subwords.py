import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titles.data.contract import SPECIAL_WORDS
from titles.data.subwords import Subwords, VocabularySubwords

letters = st.characters(exclude_categories=["Cs"])
words_ = st.lists(st.text(letters, max_size=9), max_size=8)
sizes = st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 50)).map(
    lambda drawn: Subwords(drawn[0], drawn[0] + drawn[1], drawn[2])
)


def naive_bucket(gram, buckets):
    """FNV-1a over code points, then the high bits folded in once."""
    number = 2166136261
    for letter in gram:
        number = (number ^ ord(letter)) * 16777619 % 2**32
    return (number ^ number >> 15) % buckets


def naive_grams(word, settings):
    marked = f"<{word}>" if word else ""
    return [
        marked[start : start + size]
        for size in range(settings.shortest, settings.longest + 1)
        for start in range(len(marked) - size + 1)
    ]


def by_word(found, ends_W):
    return [part.tolist() for part in np.split(found, ends_W[:-1])] if len(ends_W) else []


@given(words_, sizes)
def test_the_n_grams_of_each_word_are_those_that_a_slow_loop_finds(words, settings):
    found, ends_W = settings.of(words)
    expected = [[naive_bucket(g, settings.buckets) for g in naive_grams(w, settings)] for w in words]
    assert by_word(found, ends_W) == expected
    assert ends_W.tolist() == np.cumsum([len(grams) for grams in expected]).tolist()
    assert found.dtype == np.int32


@given(words_, sizes)
def test_buckets_are_in_range(words, settings):
    found, _ = settings.of(words)
    assert ((found >= 0) & (found < settings.buckets)).all()


@given(words_, st.text(letters, min_size=1, max_size=9), words_, sizes)
def test_a_word_has_the_same_n_grams_in_any_company(before, word, after, settings):
    alone, _ = settings.of([word])
    assert by_word(*settings.of([*before, word, *after]))[len(before)] == alone.tolist()


def test_marks_tell_a_prefix_and_a_suffix_from_letters_within_a_word():
    of_three = Subwords(3, 3, 1_000_003)
    ends, starts, within = (by_word(*of_three.of([word]))[0] for word in ("xxsa", "saxx", "xsax"))
    bucket = {gram: naive_bucket(gram, 1_000_003) for gram in ("sa>", "<sa", "sax", "xsa")}
    assert len(set(bucket.values())) == 4
    assert [bucket["sa>"] in grams for grams in (ends, starts, within)] == [True, False, False]
    assert [bucket["<sa"] in grams for grams in (ends, starts, within)] == [False, True, False]
    assert [bucket["sax"] in grams for grams in (ends, starts, within)] == [False, True, True]


def test_an_empty_word_and_one_shorter_than_the_shortest_have_none():
    words = ["", "a", "ab", "", "abc", ""]
    _, ends_W = Subwords(4, 5, 37).of(words)
    # "<ab>" is just long enough for one of four; "<abc>" has two of four and one of five.
    assert np.diff(ends_W, prepend=0).tolist() == [0, 0, 1, 0, 3, 0]
    found, ends_W = Subwords(1, 2, 37).of([""])
    assert (len(found), ends_W.tolist()) == (0, [0])


def test_no_words_have_no_n_grams():
    found, ends_W = Subwords(3, 6, 37).of([])
    assert len(found) == len(ends_W) == 0


def test_a_letter_beyond_16_bits_is_one_letter():
    found, _ = Subwords(3, 3, 37).of(["😀"])
    assert found.tolist() == [naive_bucket("<😀>", 37)]


def test_different_n_grams_spread_over_all_buckets():
    words = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
    found, _ = Subwords(4, 4, 16).of(words)
    rows = np.bincount(found, minlength=16)
    # 100 n-grams: a fair spread leaves no bucket empty and none with three times its share.
    assert rows.min() > 0
    assert rows.max() < 3 * 100 / 16


VOCABULARY = [*SPECIAL_WORDS, "mesa", "ñandú", "a", "128gb"]


def test_special_words_are_names_and_have_no_n_grams():
    settings = Subwords(3, 5, 41)
    vocabulary = VocabularySubwords(settings, VOCABULARY)
    assert vocabulary.vocabulary == len(VOCABULARY)
    assert by_word(*vocabulary.ngrams) == [[], [], *by_word(*settings.of(VOCABULARY[2:]))]


@given(words_, st.data())
def test_n_grams_of_some_words_are_found_among_those_of_all(words, data):
    all_ = Subwords(3, 5, 41).of(words)
    chosen = data.draw(st.lists(st.sampled_from(range(len(words))))) if words else []
    found = all_.of(np.array(chosen, np.int64))
    assert by_word(*found) == [by_word(*all_)[place] for place in chosen]


@given(words_, words_)
def test_n_grams_of_two_lists_are_those_of_one(words, others):
    settings = Subwords(3, 5, 41)
    joined = settings.of(words).followed_by(settings.of(others))
    assert by_word(*joined) == by_word(*settings.of(words + others))


@pytest.mark.parametrize(
    "changes",
    [
        {"shortest": 0},
        {"shortest": 6},
        {"longest": 33},
        {"longest": 3_000_000_000},
        {"shortest": -1_000_000_000},
        {"buckets": 0},
        {"buckets": 2**33},
        {"shortest": True},
    ],
)
def test_what_would_cost_all_memory_or_means_nothing_is_refused(changes):
    with pytest.raises(ValueError, match="out of range"):
        Subwords(**({"shortest": 3, "longest": 5, "buckets": 7} | changes))


def test_words_in_several_slabs_are_those_of_one(monkeypatch):
    words = ["mesa", "", "de", "roble", "a", "sofa"]
    whole = Subwords(3, 4, 97).of(words)
    monkeypatch.setattr("titles.data.subwords._SLAB_WORDS", 2)
    for some, all_ in zip(Subwords(3, 4, 97).of(words), whole, strict=True):
        assert (some == all_).all()
