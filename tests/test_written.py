"""Words as they were written stand for the tokens that were read."""

import pytest
from hypothesis import given

from test_text import any_settings, any_title, few
from titles.models.parts.golden import TITLES
from titles.params import Text
from titles.predict.written import written
from titles.prepare.text import words_of

RULES = Text(
    strip_accents=True, digits="keep", drop_seller_noise=True, max_title_chars=1000, max_words=32
)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Funda Para Celular SAMSUNG-S10+ (128GB)", "Funda|Para|Celular|SAMSUNG|S10|128GB"),
        ("Ação cafe\u0301 ÑANDÚ", "Ação|cafe\u0301|ÑANDÚ"),
        ("Tv 55'' 2,5 .5 1.000,50 12,5cm", "Tv|55|2,5|5|1.000,50|12,5cm"),
        ("Oferta! Silla ENVÍO GRATIS 12x sin interés Roja", "Silla|Roja"),
        ("J7 J7 j7", "J7|J7|j7"),
        ("envio gratis envio x", "envio|x"),
        ("Envío gratuitos", "Envío|gratuitos"),
        ("Caf&eacute; R&B", "Caf&eacute;|R|B"),
        ("co\u00adche bici\u200dcleta", "co\u00adche|bici\u200dcleta"),
        ("Lego™City 10²kg", "Lego|City|10|²kg"),
        ("uno\ndos\r\ntres", "uno|dos|tres"),
        ("\ufb01lme Straße İstanbul", "\ufb01lme|Straße|İstanbul"),
        ("?", ""),
        ("", ""),
    ],
)
def test_words_stand_as_in_the_title(title: str, expected: str) -> None:
    assert written(title, RULES) == [word for word in expected.split("|") if word]


def test_settings_are_those_of_the_model() -> None:
    def under(**changes: object) -> list[str]:
        return written("Galaxy S10 a1b Oferta", RULES.model_copy(update=changes))

    assert under(digits="zero") == ["Galaxy", "S10", "a1b"]
    assert under(digits="drop") == ["Galaxy", "S", "a", "b"]
    assert under(drop_seller_noise=False) == ["Galaxy", "S10", "a1b", "Oferta"]
    assert under(max_words=2) == ["Galaxy", "S10"]
    assert under(max_title_chars=9) == ["Galaxy", "S1"]


def test_a_very_long_title_is_shown_as_it_was_read() -> None:
    title = "Ação " * 150
    assert written(title, RULES.model_copy(update={"max_words": 3})) == ["acao"] * 3


@pytest.mark.parametrize("title", TITLES)
def test_what_stands_for_a_token_is_read_as_it(title: str) -> None:
    """Also of the titles that show each rule. A character such as ½ is two tokens."""
    for token, found in zip(words_of([title], RULES)[0], written(title, RULES), strict=True):
        assert token in words_of([found], RULES)[0]


@few
@given(any_title, any_settings)
def test_each_token_has_a_part_of_the_title_in_order(title: str, chosen: Text) -> None:
    (tokens,) = words_of([title], chosen)
    found = written(title, chosen)
    assert len(found) == len(tokens)
    assert all(found)
    assert all(part in title or part == token for part, token in zip(found, tokens, strict=True))
