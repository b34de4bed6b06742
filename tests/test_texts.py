"""Each language has all texts, and the user's is chosen."""

import ast
import re
from string import Formatter

import pytest

from small_project import ROOT
from titles.data.contract import LANGUAGES as LISTED_LANGUAGES
from titles.data.contract import QUALITIES, SPLITS
from titles.prepare import drift
from titles.prepare.drift import Profile
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
    sources = [path for ending in ("py", "html", "md") for path in (ROOT / "src").rglob(f"*.{ending}")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    # Keys of which a part is a variable; another test holds the names to those that the code has.
    built = (*(f"{section}." for section in names()), "words.and", "words.or")
    assert [key for key in ENGLISH if f'"{key}"' not in code and not key.startswith(built)] == []


def names() -> dict[str, set[str]]:
    """The names that files can have, by the section with their texts."""
    profile = Profile(
        rows=9,
        categories={"A": 1.0},
        languages={"spanish": 1.0},
        unknown_words=0.1,
        title_words=dict.fromkeys(("p05", "p25", "p50", "p75", "p95"), 1),
        rejected=0.0,
    )
    return {
        "splits": set(SPLITS),
        "languages": set(LISTED_LANGUAGES),
        "qualities": set(QUALITIES),
        "rejected": rejections(),
        "set_aside": reasons("prepare/corrections.py"),
        "drift": set(drift.compare(profile, profile)),
    }


def reasons(file: str) -> set[str]:
    """The names that are assigned to `reason`, returned as one, or given to what takes one."""
    tree = ast.parse((ROOT / "src/titles" / file).read_text(encoding="utf-8"))
    takers = {"Broken", "_broken", "Rejected", "reject", "set_aside", "add_rows"}
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("reason", "LINE_TOO_LONG"):
            found.append(node.value)
        if isinstance(node, ast.FunctionDef) and node.name == "reason_of":
            found += [each for each in ast.walk(node) if isinstance(each, ast.Return)]
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in takers:
            found += node.args
    constants = [each for part in found for each in ast.walk(part) if isinstance(each, ast.Constant)]
    values = [each.value for each in constants if isinstance(each.value, str)]
    return {value for value in values if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", value)}


def rejections() -> set[str]:
    files = [*(ROOT / "src/titles/listings").glob("*.py"), *(ROOT / "src/titles/prepare").glob("*.py")]
    read = [path for path in files if path.name not in ("corrections.py", "drift.py")]
    found = set().union(*(reasons(path.relative_to(ROOT / "src/titles").as_posix()) for path in read))
    # Rows that are counted and not listed, and titles that were corrected and are in no split.
    return found | {"other_language", "not_used"}


@pytest.mark.parametrize("section", names())
def test_each_name_that_a_file_can_have_has_a_text_of_its_own(section: str) -> None:
    found = texts("en").sections[section]
    assert set(found) == names()[section]
    for language in LANGUAGES:
        say = texts(language)
        told = [say.named(section, name) for name in found]
        assert len(set(told)) == len(told), language
    assert texts("es").named(section, "a_new_name") == "a new name"


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
