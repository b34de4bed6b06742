import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_text import any_title
from titles.prepare.identity import title_keys

few = settings(max_examples=60, deadline=None, derandomize=True)


def same(one, other):
    found = title_keys([one, other])
    return found[0] == found[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Teléfono ÑANDÚ", "telefono nandu", id="accents and case"),
        pytest.param("cafe\u0301", "café", id="composed or not"),
        pytest.param("Funda - (roja)!", " funda  roja", id="punctuation and spaces"),
        pytest.param("a_b", "a b", id="underscore"),
        pytest.param("tele\u00adfono\u200b", "telefono", id="invisible characters"),
        pytest.param("İSTANBUL Straße ﬁn", "istanbul STRASSE fin", id="folded letters"),
        pytest.param("uno\ndos\u2028tres\x00", "uno dos tres", id="line ends"),
        pytest.param("हिन्दी!", "हिन्दी", id="Devanagari"),
        pytest.param("❤️ 日本・語", "日本 語", id="symbols beyond ASCII"),
    ],
)
def test_case_accents_punctuation_and_spaces_make_no_other_title(one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("uno dos", "dos uno"),
        ("uno dos", "unodos"),
        ("uno", "uno uno"),
        ("galaxy s10", "galaxy s20"),
        ("funda envio gratis", "funda"),
        ("की", "कु"),
        ("mesa 10²", "mesa 102"),
        ("caño 12½", "caño 121 2"),
        ("①0", "10"),
        ("", "a"),
    ],
)
def test_words_their_order_digits_and_noise_make_another_title(one, other):
    assert not same(one, other)


@few
@given(st.lists(any_title, max_size=6))
def test_a_title_has_the_same_key_alone_and_among_others(titles):
    assert title_keys(titles).tolist() == [title_keys([title])[0] for title in titles]


@few
@given(any_title)
def test_a_key_is_zero_without_letters_and_digits_only(title):
    has_letters = any(c.isalnum() for c in unicodedata.normalize("NFD", title))
    assert (title_keys([title])[0] != 0) >= has_letters


def test_keys_are_the_same_on_every_machine_and_in_every_version():
    """A change here moves titles between the splits of every project: no version may make one."""
    titles = ["Teléfono Celular 128GB", "ñandú", "हिन्दी", "!!!", ""]
    assert title_keys(titles).tolist() == [
        0x7B78D824D7602A03,
        0x3348692C4FF8C94E,
        0xA23D2D32B73A1F22,
        0,
        0,
    ]


def test_different_titles_have_different_keys():
    titles = {f"{a} {b}" for a in range(200) for b in range(200)}
    assert len(set(title_keys(list(titles)).tolist())) == len(titles)
