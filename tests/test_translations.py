"""The Spanish documents say what the English ones say, as far as a program can tell."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from posixpath import normpath

import pytest

from documents import ROOT, Section, commands, read, sections

PAIRS = [
    ("README.md", "README.es.md"),
    ("docs/experiments.md", "docs/experimentos.md"),
    ("docs/course.md", "docs/curso.md"),
]
DOCUMENTS = [document for pair in PAIRS for document in pair]


def _skeleton(language: str, content: str) -> list[str]:
    """What is the same in all languages of a code block: commands, arrows between nodes, or paths."""
    if language == "bash":
        return commands(content)
    if language == "mermaid":
        return re.sub(r"\[\(.*?\)\]", "", content).splitlines()
    return re.findall(r"\w+(?:[./]\w*)+", content)


def _parts(section: Section) -> dict[str, list[str]]:
    return {
        "blocks": section.shape,
        "languages of code": [language for language, _ in section.blocks],
        "code": [line for block in section.blocks for line in _skeleton(*block)],
        "figures": section.figures,
        "inline code": sorted(section.code),  # its order in a sentence is that of the language
    }


def differences(english: str, spanish: str) -> list[str]:
    ours, theirs = sections(english), sections(spanish)
    if len(ours) != len(theirs):
        return [f"sections: {[s.title for s in ours]}, {[s.title for s in theirs]}"]
    return [
        f"{one.title} / {other.title}: {part}: {_parts(one)[part]}, {_parts(other)[part]}"
        for one, other in zip(ours, theirs, strict=True)
        for part in _parts(one)
        if _parts(one)[part] != _parts(other)[part]
    ]


def _target(document: str, link: str) -> tuple[str, int | None]:
    """The file that a link leads to, by its English name, and the number of the heading there."""
    path, _, anchor = link.partition("#")
    file = normpath(PurePosixPath(document).parent / path) if path else document
    assert (ROOT / file).exists(), f"{document} links to {link}"
    place = None
    if anchor:
        anchors = [section.anchor for section in sections(read(file))]
        assert anchor in anchors, f"{document} links to {link}; there are {anchors}"
        place = anchors.index(anchor)
    return {spanish: english for english, spanish in PAIRS}.get(file, file), place


def _targets(document: str) -> list[tuple[str, int | None]]:
    """Of all relative links of a document."""
    links = [link for section in sections(read(document)) for link in section.links]
    return [_target(document, link) for link in links if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize(("english", "spanish"), PAIRS)
def test_a_translation_has_the_same_blocks_commands_and_figures(english: str, spanish: str) -> None:
    assert differences(read(english), read(spanish)) == []


@pytest.mark.parametrize(("english", "spanish"), PAIRS)
def test_the_links_of_a_translation_lead_to_the_same_places(english: str, spanish: str) -> None:
    assert _targets(spanish) == _targets(english)


@pytest.mark.parametrize(("english", "spanish"), PAIRS)
def test_a_translation_links_to_spanish_where_there_is_some(english: str, spanish: str) -> None:
    translated = {english for english, _ in PAIRS} - {english}
    links = [link for section in sections(read(spanish)) for link in section.links]
    folder = PurePosixPath(spanish).parent
    assert not translated & {normpath(folder / link) for link in links}


@pytest.mark.parametrize(("english", "spanish"), PAIRS)
def test_each_language_begins_with_a_link_to_the_other(english: str, spanish: str) -> None:
    for document, other in ((english, spanish), (spanish, english)):
        assert read(document).splitlines()[2].endswith(f"]({PurePosixPath(other).name})")


@pytest.mark.parametrize(
    ("document", "before", "after", "part"),
    [
        ("README.es.md", "cnn.epochs=5", "cnn.epochs=6", "code"),
        ("README.es.md", "\ntitles verify five ", "\n# titles verify five ", "code"),
        ("README.es.md", "embed --> vectors", "prepare --> vectors", "code"),
        ("README.es.md", "stages/train_cnn.py", "stages/train.py", "code"),
        ("README.es.md", "```mermaid", "```", "languages of code"),
        ("README.es.md", r"\*\*0\.\d+\*\*", "**0.5**", "figures"),
        ("README.es.md", "5,777 títulos", "5,775 títulos", "figures"),
        ("README.es.md", r"\| tickets .*\n", "", "blocks"),
        ("README.es.md", "## Predecir", "### Predecir", "blocks"),
        ("README.es.md", "## Predecir\n", "", "sections"),
        ("README.es.md", "`--at-least P`", "`--at-most P`", "inline code"),
        ("docs/experimentos.md", r"\[512,256\]", "[512,128]", "code"),
        ("docs/experimentos.md", "95 %", "90 %", "figures"),
        ("docs/curso.md", "4.512", "4.521", "figures"),
        ("docs/curso.md", r"\| mlp-2 .*\n", "", "blocks"),
    ],
)
def test_a_change_on_one_side_is_noticed(document: str, before: str, after: str, part: str) -> None:
    (english,) = [english for english, spanish in PAIRS if spanish == document]
    text = read(document)
    changed, count = re.subn(before, after, text, count=1)
    assert count
    found = differences(read(english), changed)
    assert any(f"{part}: " in difference for difference in found)
