"""Each language has all texts, and the user's is chosen."""

import re
from string import Formatter

import pytest

from small_project import ROOT
from titles.texts import LANGUAGES, Texts, chosen, texts


def flat(say: Texts) -> dict[str, str]:
    return {
        f"{section}.{name}": text for section, of in say.sections.items() for name, text in of.items()
    }


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


ENGLISH = flat(texts("en"))


def test_each_language_is_a_file() -> None:
    found = {path.stem for path in (ROOT / "src/titles/texts").glob("*.toml")}
    assert found == set(LANGUAGES)


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_a_translation_has_the_same_texts_with_the_same_fields(language: str) -> None:
    found = flat(texts(language))
    assert list(found) == list(ENGLISH)
    for key, text in found.items():
        assert fields(text) == fields(ENGLISH[key]), key
        assert text.strip(), key
        assert re.findall(r"[+-]\d\.\d|--at-least|CNN", text) == re.findall(
            r"[+-]\d\.\d|--at-least|CNN", ENGLISH[key]
        ), key
        # A sentence that was forgotten stands there in English.
        assert text != ENGLISH[key] or " " not in re.sub(r"\{\w+\}", "", text).strip(), key


def test_each_text_is_used() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.html")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    built = ("languages.", "words.and", "words.or")  # of which a part is a variable
    assert [key for key in ENGLISH if key not in code and not key.startswith(built)] == []


def test_fields_are_filled_in_as_they_are() -> None:
    say = texts("en")
    assert say("explain.threshold", threshold="{x} <b>") == "from {x} <b>"
    assert [say.listed(list("abc")[:n], "or") for n in range(4)] == ["", "a", "a or b", "a, b or c"]
    assert texts("pt").listed(["a", "b"], "and") == "a e b"


@pytest.mark.parametrize(
    ("preferred", "environment", "language"),
    [
        (None, {}, "en"),
        (None, {"LANG": "es_AR.UTF-8"}, "es"),
        (None, {"LANG": "es_AR.UTF-8", "LC_MESSAGES": "pt_BR"}, "pt"),
        (None, {"LANG": "es_AR.UTF-8", "LC_MESSAGES": "pt_BR", "LC_ALL": "C.UTF-8"}, "en"),
        (None, {"LANG": "", "LC_ALL": "", "LC_MESSAGES": "es"}, "es"),
        (None, {"LANG": "est_EE"}, "en"),
        (None, {"LANG": "es@euro"}, "es"),
        ("pt-BR", {"LANG": "es"}, "pt"),
        ("ES", {}, "es"),
        ("de-DE", {"LANG": "es"}, "en"),
        ("", {"LANG": "es"}, "en"),
        ("pt-BR", {"TITLES_LANG": "es"}, "es"),
        (None, {"TITLES_LANG": "pt_BR.UTF-8", "LC_ALL": "C"}, "pt"),
        (None, {"TITLES_LANG": "", "LANG": "es"}, "es"),
    ],
)
def test_the_language_is_the_users(
    preferred: str | None, environment: dict[str, str], language: str
) -> None:
    assert chosen(preferred, environment) == language


@pytest.mark.parametrize("wanted", ["de", "spanish", "\x1b[2J", "."])
def test_another_language_is_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="expected one of en, es, pt"):
        chosen(None, {"TITLES_LANG": wanted})
