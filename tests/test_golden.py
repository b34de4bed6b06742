"""Golden examples: a model whose titles would be read otherwise than in its training is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from networks import LABEL_NAMES, NETWORKS, SIZES, network, vocabulary
from titles.data import subwords as subwords_module
from titles.data.subwords import Subwords
from titles.models.parts import golden, saved
from titles.params import Text
from titles.prepare import text
from titles.prepare.text import words_of

LETTERS = Subwords(shortest=3, longest=4, buckets=997)
RULES = Text(
    strip_accents=True, digits="keep", drop_seller_noise=True, max_title_chars=1000, max_words=32
)


def model(text: Text = RULES, subwords: Subwords | None = LETTERS) -> saved.SavedModel:
    net = network("mlp", subwords=subwords)
    sizes = SIZES["mlp"] | {"dropout": 0.0}
    return saved.SavedModel("mlp", sizes, net, vocabulary(), LABEL_NAMES, text, saved_weights="int8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved.write(model(), tmp_path)
    return tmp_path


def examples(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    count, *found = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    assert count == len(found)
    return found


def test_examples_have_the_words_ids_and_buckets_of_their_titles(folder: Path) -> None:
    told = examples(folder)
    assert len(told) == len(golden.TITLES) + 2
    words, ids = vocabulary().words, vocabulary().ids()
    for example in told:
        assert [example["words"]] == words_of([example["title"]], RULES)
        assert example["ids"] == [ids.get(word, 1) for word in example["words"]]
        first = example["words"][:1]
        assert example["buckets"] == (LETTERS.of(first).buckets.tolist() if first else [])
    assert told[0]["words"][:2] == ["funda", "para"]
    assert told[-2]["words"] == words[2:10]
    assert told[-1]["words"] == words[-8:]
    # Their number and one example a line, all of it visible.
    lines = (folder / "golden.json").read_bytes().decode("ascii").splitlines()
    assert len(lines) == len(told) + 3
    saved.read(folder, NETWORKS)


def test_examples_reach_every_limit() -> None:
    longest = max(golden.TITLES, key=len)
    assert len(longest) > RULES.max_title_chars
    rows = words_of(golden.TITLES, RULES)
    assert max(map(len, rows)) == RULES.max_words
    assert [] in rows
    longer = RULES.model_copy(update={"max_title_chars": len(longest)})
    assert words_of([longest], RULES) != words_of([longest], longer)


# Characters and what they stand for; a rule can drop them or part words at them.
CHARACTERS = {
    "soft hyphen": "\u00ad",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "zero-width non-joiner": "\u200c",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "direction mark": "\u200e",
    "combining accents": "\u0301\u0303\u0327",
    "apostrophe": "'",
    "typographic apostrophe": "\u2019",
    "prime": "\u2032",
    "hyphen": "-",
    "underscore": "_",
    "slash": "/",
    "ampersand": "&",
    "decimal point": ".",
    "decimal comma": ",",
    "degree": "°",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "newline": "\n",
    "tab": "\t",
    "NUL": "\0",
    "trademark": "\u2122",
    "ordinals": "ºª",
    "superscripts": "²³",
    "subscript": "\u2082",
    "fractions": "½¼",
    "full-width": "\uff26\uff11",
    "ligature": "\ufb01",
    "digraph": "\u0133",
    "Arabic digits": "\u0663",
    "vowel signs": "\u093f\u0940\u094b",
    "Hebrew points": "\u05b8\u05b9\u05c1",
    "voiced mark": "\u3099",
    "Hangul letters": "\u1112\u1161\u11ab",
    "beyond the basic plane": "\U00020bb7",
    "mathematical letters": "\U0001d400",
    "circled digits": "\u2460",
    "Roman numeral": "\u2163",
    "keycap": "\u20e3",
    "dotted capital I": "\u0130",
    "dotless i": "\u0131",
    "ß": "ß",
    "final sigma": "ς",
    "Thai signs": "\u0e32",
    "ñ": "ñÑ",
    "ç": "çÇ",
    "accents": "éáíóúâãêü",
}


@pytest.mark.parametrize("kind", CHARACTERS)
def test_another_rule_for_a_kind_of_character_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def with_rule(instead: str) -> bool:
        """Whether it is noticed that these characters are read as `instead`."""
        table = dict.fromkeys(map(ord, CHARACTERS[kind]), instead)

        def read(titles: Sequence[str], text: Text) -> list[list[str]]:
            return words_of([title.translate(table) for title in titles], text)

        monkeypatch.setattr(golden, "words_of", read)
        try:
            saved.read(folder, NETWORKS)
        except ValueError as error:
            return "titles read otherwise" in str(error)
        return False

    # One of them can be the rule as it is.
    assert [with_rule(""), with_rule(" "), with_rule("q")].count(True) >= 2


# Together, every rule of prepare/text.py has an effect.
SETTINGS = [
    RULES,
    RULES.model_copy(update={"strip_accents": False}),
    RULES.model_copy(update={"digits": "zero"}),
    RULES.model_copy(update={"digits": "drop"}),
]
NOTHING = re.compile("(?!)")


def without_alternatives(pattern: str) -> dict[str, re.Pattern[str]]:
    """The pattern without each alternative of each of its groups, by what is taken away."""
    bounds: list[list[int]] = []  # of each open group, where its alternatives start
    found: dict[str, re.Pattern[str]] = {}
    for part in re.finditer(r"\\.|\[(?:\\.|[^\]])*\]|\((?:\?(?:<?[!=]|:))?|[|)]", pattern):
        if part[0].startswith("("):
            bounds.append([part.end()])
        elif part[0] in "|)":
            start, end = bounds[-1][-1], part.start()
            found[f"{start}: {pattern[start:end]}"[:60]] = re.compile(
                f"{pattern[:start]}(?!){pattern[end:]}"
            )
            bounds.pop() if part[0] == ")" else bounds[-1].append(part.end())
    return found


def other_rules() -> dict[str, tuple[str, Any]]:
    """Names of the module, each with a value that is another rule."""
    patterns = {name: value for name, value in vars(text).items() if isinstance(value, re.Pattern)}
    found: dict[str, tuple[str, Any]] = {name: (name, NOTHING) for name in patterns}
    for name in ("_SELLER_NOISE", "_ENTITY"):
        for told, pattern in without_alternatives(patterns[name].pattern).items():
            found[f"{name} without {told}"] = name, pattern
    for character in filter(text._INVISIBLE.match, map(chr, range(0x110000))):
        pattern = re.compile(f"(?!{character}){text._INVISIBLE.pattern}")
        found[f"U+{ord(character):04X} seen"] = "_INVISIBLE", pattern
    for character in sorted(text._SPACE_LIKE):
        found[f"U+{ord(character):04X} folded"] = "_SPACE_LIKE", text._SPACE_LIKE - {character}
    two_digits = re.compile(rf"(?!&#\d{{3}}){text._ENTITY.pattern}")
    found["entities of at most two digits"] = "_ENTITY", two_digits
    found["digits beside digits"] = "_DIGITS", frozenset()
    for value, told in ((0.0, "no fractions"), (0.5, "only fractions")):
        found[told] = "unicodedata.numeric", lambda *_, value=value: value
    return found


OTHER_RULES = other_rules()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = [tmp_path_factory.mktemp("rules") for _ in SETTINGS]
    for path, setting in zip(made, SETTINGS, strict=True):
        golden.write(path, setting, vocabulary(), None)
    return made


@pytest.mark.parametrize("rule", OTHER_RULES)
def test_a_rule_that_is_taken_away_is_noticed(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    name, value = OTHER_RULES[rule]
    monkeypatch.setattr(f"titles.prepare.text.{name}", value)
    noticed = []
    for path, setting in zip(folders, SETTINGS, strict=True):
        try:
            golden.check(path, setting, vocabulary(), None)
        except ValueError as error:
            noticed.append("titles read otherwise" in str(error))
    assert any(noticed)


@pytest.mark.parametrize(
    "change",
    [
        {"strip_accents": False},
        {"digits": "zero"},
        {"digits": "drop"},
        {"drop_seller_noise": False},
        {"max_title_chars": 999},
        {"max_words": 31},
        {"max_words": 33},
    ],
    ids=str,
)
def test_another_setting_of_the_tokeniser_is_noticed(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "model.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | {"text": described["text"] | change}), encoding="utf-8")
    with pytest.raises(ValueError, match="titles read otherwise than now"):
        saved.read(folder, NETWORKS)


def test_a_title_read_otherwise_is_told_with_both_readings_and_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(titles: Sequence[str], text: Text) -> list[list[str]]:
        return [[word.removesuffix("a") for word in row] for row in words_of(titles, text)]

    monkeypatch.setattr(golden, "words_of", read)
    with pytest.raises(ValueError, match="titles read otherwise") as caught:
        saved.read(folder, NETWORKS)
    message = str(caught.value)
    assert "\n" not in message
    first = golden.TITLES[0]
    told = (
        str(folder),
        repr(first),
        "'funda', 'para'",
        "'fund', 'par'",
        "dvc repro",
        "version of titles",
    )
    for part in told:
        assert part in message


def test_another_hash_of_ngrams_is_noticed_where_a_network_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, subwords in (("letters", LETTERS), ("words", None)):
        (tmp_path / name).mkdir()
        saved.write(model(subwords=subwords), tmp_path / name)
    plain = subwords_module._hashes
    monkeypatch.setattr(subwords_module, "_hashes", lambda text, size: plain(text, size) ^ np.uint32(8))
    saved.read(tmp_path / "words", NETWORKS)
    with pytest.raises(ValueError, match=r"of 'Funda.*the buckets were \[\d.* and are \[\d"):
        saved.read(tmp_path / "letters", NETWORKS)


def test_other_ids_of_words_are_noticed(folder: Path) -> None:
    path = folder / "vocabulary.tsv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"vocabulary\.tsv is damaged, or of .* the ids were .* and are"
    ):
        saved.read(folder, NETWORKS)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "3", "null", "[3]", "[{}]", '[{"title": 3}]', '[{"title": "a"}]', '["a"]'),
        *("[" * 100_000, '{"title": "a"}', "\ufeff[]", '[{"title": null}]', '[{"title": "a\\ud800"}]'),
        *("[0]", "[1, 3]", '[1, {"title": "a"}]', '[1, "a"]', '[1, {"title": null}]', "[true]"),
        '[1, {"title": "a\\ud800"}]',
        '[1, {"title": "a", "words": ["a"], "ids": [1], "buckets": [], "more": 1}]',
    ],
    ids=lambda content: content[:20],
)
def test_examples_that_cannot_be_read_are_damaged(folder: Path, content: str) -> None:
    (folder / "golden.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"golden\.json is damaged") as caught:
        saved.read(folder, NETWORKS)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kept", [slice(0, 2), slice(0, -1), slice(1, None)])
def test_a_list_that_was_cut_is_damaged(folder: Path, kept: slice) -> None:
    path = folder / "golden.json"
    path.write_text(json.dumps(json.loads(path.read_bytes())[kept]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"golden\.json is damaged: .* examples of "):
        saved.read(folder, NETWORKS)


def test_examples_of_a_newer_list_are_checked_as_they_are(folder: Path) -> None:
    """Titles are those of the file: versions can have others."""
    told = examples(folder)[:3]
    (folder / "golden.json").write_text(json.dumps([3, *told]), encoding="utf-8")
    saved.read(folder, NETWORKS)
    told[1]["words"].append("more")
    (folder / "golden.json").write_text(json.dumps([3, *told]), encoding="utf-8")
    with pytest.raises(ValueError, match="titles read otherwise"):
        saved.read(folder, NETWORKS)


def test_any_rules_and_vocabulary_have_examples(tmp_path: Path) -> None:
    for number, rules in enumerate(
        [
            RULES.model_copy(
                update={"strip_accents": False, "digits": "drop", "drop_seller_noise": False}
            ),
            RULES.model_copy(update={"max_title_chars": 1, "max_words": 1}),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        saved.write(replace(model(), text=rules), tmp_path / str(number))
        saved.read(tmp_path / str(number), NETWORKS)
