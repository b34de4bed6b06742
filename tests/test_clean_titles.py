"""Compiled code reads titles as `text` and `identity` do."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titles.models.registry import load_params
from titles.params import Text
from titles.prepare import blake2, clean_titles, text
from titles.prepare.clean_titles import Encoded, read
from titles.prepare.reading import tokenise_chunk

LATIN = st.characters(codec="latin-1", exclude_characters="\n")
PHRASE = st.from_regex(re.compile(text._SELLER_NOISE.pattern, re.ASCII), fullmatch=True)
WORD = st.sampled_from(
    [
        *("x", "12", "1", "3,", ".5", "2.5", "1,5", "10x", "em", "até", "ate", "c", "nf", "n", "f", "e"),
        *(
            "com",
            "sem",
            "sin",
            "oferta",
            "mercado",
            "pago",
            "promoção",
            "²",
            "½",
            "º",
            "ª",
            "µ",
            "ß",
            "Æ",
        ),
        *(
            "&amp;",
            "&#225;",
            "TELÉFONO",
            "tele\u0301fono",
            "世界",
            "\u200b",
            "\xad",
            "™",
            "ﬁ",
            "İ",
            "Σας",
        ),
        *("_", "-", "/", '24"', "\x1c", "\x85", "\xa0", "\n"),
    ]
)
TITLE = st.one_of(
    st.text(LATIN, max_size=30),
    st.text(max_size=12),
    st.lists(st.one_of(WORD, PHRASE), max_size=9).map(" ".join),
    st.lists(st.one_of(WORD, st.text(LATIN, max_size=3)), max_size=9).map("".join),
)
SETTINGS = st.builds(
    Text,
    strip_accents=st.booleans(),
    digits=st.sampled_from(["keep", "zero", "drop"]),
    drop_seller_noise=st.booleans(),
    max_title_chars=st.just(1000),
    max_words=st.sampled_from([1, 2, 3, 32]),
)


def assert_same(titles: list[str], settings: Text) -> None:
    careful = tokenise_chunk(titles, settings)
    words, word_ids_W, lengths_N, keys_N = read(Encoded.of(titles), settings)
    assert words == careful.words
    assert word_ids_W.tolist() == careful.word_ids_W.tolist()
    assert lengths_N.tolist() == careful.lengths_N.tolist()
    assert keys_N.tolist() == careful.keys_N.tolist()
    assert [a.dtype for a in (word_ids_W, lengths_N, keys_N)] == [a.dtype for a in careful[1:]]


@given(st.lists(TITLE, max_size=6), SETTINGS)
def test_any_titles_are_read_as_the_definition_reads_them(titles: list[str], settings: Text) -> None:
    assert_same(titles, settings)


@pytest.mark.parametrize("digits", ["keep", "zero", "drop"])
@pytest.mark.parametrize("accents", [True, False])
def test_each_character_is_read_alike_beside_letters_digits_and_points(
    digits: str, accents: bool
) -> None:
    settings = load_params().prepare.text.model_copy(update={"digits": digits, "strip_accents": accents})
    sides = ["", "a", "1", " ", ".", "é"]
    for character in map(chr, range(0x180)):
        assert_same([f"{a}{character}{b}" for a in sides for b in sides], settings)


def test_each_phrase_of_sellers_has_one_of_the_words_by_which_it_is_found() -> None:
    settings = load_params().prepare.text.model_copy(update={"drop_seller_noise": False})

    @given(PHRASE)
    def check(phrase: str) -> None:
        assert any(map(clean_titles.has_noise, text.tokenise([phrase], settings)[0])), phrase

    check()


def test_more_words_than_the_first_table_holds_are_told_apart() -> None:
    titles = [" ".join(f"{(7 * n + k) % 90_001:x}" for k in range(5)) for n in range(30_000)]
    assert_same(titles, load_params().prepare.text)


@given(st.lists(st.integers(0, 400)))
def test_digests_are_those_of_hashlib(sizes: list[int]) -> None:
    texts = [bytes((31 * n + 7 * k) % 256 for k in range(size)) for n, size in enumerate(sizes)]
    found = np.empty(len(texts), np.uint64)
    ends = np.cumsum([len(each) for each in texts], dtype=np.int64)
    blake2.digests(np.frombuffer(b"".join(texts), np.uint8), ends, found)
    digests = [hashlib.blake2b(each, digest_size=8).digest() if each else bytes(8) for each in texts]
    assert found.tolist() == [int.from_bytes(digest, "little") for digest in digests]
