import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titles.params import Text
from titles.prepare.text import normalise, tokenise

few = settings(max_examples=60, deadline=None, derandomize=True)

PIECES = (
    *" \n\r\t.,_-²ñÉΣİŒ",
    "\u2028", "\x1c",
    "\x85", "\u00a0", "e\u0301", "\u0301", "カ\u3099", "ﬁ", "2.5", "1,", ",3", "\u0663.\u0665", "...",
    "½", "①", "™", "\u00ad", "\u200b", "&amp;", "&#10;", "\u093f", "\U00011133", "İ",
    "12x sem juros", "Frete Grátis", "SUPER OFERTA", " sin interés", "teléfono", "ΟΔΟΣ",
)  # fmt: skip


def is_mark(character):
    return unicodedata.category(character) in ("Mn", "Mc")


any_title = st.lists(st.sampled_from(PIECES) | st.integers(0, 0x30FF).map(chr), max_size=8).map("".join)
any_settings = st.builds(
    Text,
    strip_accents=st.booleans(),
    digits=st.sampled_from(["keep", "zero", "drop"]),
    drop_seller_noise=st.booleans(),
    max_title_chars=st.just(1000),
    max_words=st.integers(1, 9),
)


@few
@given(st.lists(any_title, max_size=6), any_settings)
def test_a_title_has_the_same_words_alone_and_among_others(titles, chosen):
    assert tokenise(titles, chosen) == [tokenise([title], chosen)[0] for title in titles]


@few
@given(any_title, any_settings)
def test_a_word_is_letters_and_digits_with_points_only_inside(title, chosen):
    (words,) = tokenise([title], chosen)
    assert len(words) <= chosen.max_words
    for word in words:
        assert word[0].isalnum()
        assert word[-1] != "."
        parts = ["".join(c for c in part if not is_mark(c)) for part in word.split(".")]
        assert all(part.isalnum() for part in parts)
        assert word == word.lower()


@few
@given(
    any_title, any_settings.map(lambda chosen: chosen.model_copy(update={"drop_seller_noise": False}))
)
def test_words_are_read_as_themselves(title, chosen):
    (words,) = tokenise([title], chosen)
    assert tokenise([" ".join(words)], chosen) == [words]


@pytest.mark.parametrize(
    ("title", "words"),
    [
        pytest.param(
            "Celular SAMSUNG-S10+ (128GB)", "celular samsung s10 128gb", id="punctuation parts"
        ),
        pytest.param("Teléfono Câmera Ñandú ação", "telefono camera nandu acao", id="accents go"),
        pytest.param("cafe\u0301 ﬁlme \uff21\uff22 m²", "cafe filme ab m2", id="look-alikes fold"),
        pytest.param("2.5 2,5 .5 5. 1.000,50", "2.5 2.5 5 5 1.000.50", id="decimal points stay inside"),
        pytest.param("a.b a_b c,d", "a b a b c d", id="other points part"),
        pytest.param("uno\ndos\r\ntres", "uno dos tres", id="newline inside a title"),
        pytest.param("uno\x00dos", "uno dos", id="NUL inside a title"),
        pytest.param("カ\u3099ス й", "ガス и", id="marks of other scripts are no accents"),
        pytest.param("a b c d e f g h i", "a b c d e f g", id="cut from the front"),
        pytest.param("¡¡!! ... —", "", id="no words"),
        pytest.param('2½" ¾ x⅓', "2 1 2 3 4 x1 3", id="fractions are numbers of their own"),
        pytest.param("10¹² m²5 H₂O x①", "10 12 m2 5 h2o x1", id="raised and lowered digits"),
        pytest.param("Duo™ Pro® Max℠\u3164Ⓡ", "duo pro max", id="trade marks"),
        pytest.param("ta\u00adza pla\u2060to va\u200bso\ufeff", "taza plato vaso", id="invisible"),
        pytest.param("A &amp;quot; B&quot;c&#243;d&#10;e R&D;", "a b cod e r d", id="entities"),
        pytest.param("मोबाइल फ़ोन ५ जी", "मोबाइल फ़ोन ५ जी", id="vowels of Devanagari"),
        pytest.param("הַסֵּפֶר كِتَابٌ", "הַסֵּפֶר كِتَابٌ", id="points of Hebrew and Arabic"),
        pytest.param("1️⃣ ❤️ 👩‍👩‍👧 uno", "1 uno", id="emoji"),
    ],
)
def test_titles_become_words(text_settings, title, words):
    assert tokenise([title], text_settings) == [words.split()]


def test_accents_can_stay(text_settings):
    kept = text_settings.model_copy(update={"strip_accents": False})
    assert tokenise(["Ñandú AÇÃO cafe\u0301"], kept) == [["ñandú", "ação", "café"]]
    # No letter has both: the mark stays beside its letter, and does not part the word.
    assert [len(words) for words in tokenise(["İstanbul", "x\u0301y", "हिन्दी"], kept)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("digits", "words"),
    [("keep", "2.5mm x 128gb 7"), ("zero", "0.0mm x 000gb 0"), ("drop", "mm x gb")],
)
def test_digits_are_kept_zeroed_or_dropped_with_the_points_between_them(text_settings, digits, words):
    chosen = text_settings.model_copy(update={"digits": digits})
    assert tokenise(["2,5mm x 128GB 7"], chosen) == [words.split()]


@pytest.mark.parametrize("strip_accents", [True, False], ids=["without accents", "with accents"])
@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Funda ENVÍO GRATIS roja", "funda roja"),
        ("Capa - Frete Grátis!!! vermelha", "capa vermelha"),
        ("Tv 12x sem juros", "tv"),
        ("Tv em até 10x sem juros", "tv"),
        ("Tv 3 cuotas sin interés fijas", "tv fijas"),
        ("MercadoPago silla Mercado Livre", "silla"),
        ("Super Promoção mesa Oferta", "mesa"),
        ("Mesa com NF-e", "mesa"),
        # Near misses: parts of words, of numbers and of names are no noise.
        ("Ofertasso gratis box-frete promotor", "ofertasso gratis box frete promotor"),
        ("Tv 1.12x sem juros 99,90 parcelas", "tv 1.12x 99.90 parcelas"),
        ("Placa 16x 2 x 4", "placa 16x 2 x 4"),
    ],
)
def test_what_sellers_add_to_any_product_is_left_out(text_settings, title, words, strip_accents):
    chosen = text_settings.model_copy(update={"drop_seller_noise": True, "strip_accents": strip_accents})
    assert tokenise([title], chosen) == [words.split()]


def test_no_titles_have_no_words(text_settings):
    assert tokenise([], text_settings) == []


def test_seller_noise_is_never_found_across_two_titles(text_settings):
    chosen = text_settings.model_copy(update={"drop_seller_noise": True})
    assert tokenise(["bolsa frete", "gratis bolsa"], chosen) == [["bolsa", "frete"], ["gratis", "bolsa"]]


def test_normalising_a_word_gives_the_word_that_tokenising_gives(text_settings):
    assert normalise("Teléfono", text_settings).strip() == "telefono"


def test_the_table_of_the_documentation_is_true(text_settings):
    chosen = text_settings.model_copy(update={"drop_seller_noise": True, "max_words": 32})
    rows = {"Teléfono ação": "telefono acao", "128GB": "128gb", "Envío gratis 12x sem juros": ""}
    rows |= {"\uff21\uff22 \ufb01n m² H₂O": "ab fin m2 h2o", '2½" 10²': "2 1 2 10 2"}
    rows |= {"LEGO™ Pro®": "lego pro"}
    page = (Path(__file__).parent.parent / "docs/data.md").read_text(encoding="utf-8")
    for title, words in rows.items():
        assert tokenise([title], chosen) == [words.split()]
        assert all(f"`{part}`" in page for part in re.findall(r"Envío gratis|12x sem juros|\S+", title))
