"""Markdown documents, taken apart into what can be compared and run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent


@dataclass
class Section:
    """A heading and what follows it, up to the next heading of any level.

    shape: the kinds of its blocks in order, with levels of headings and cells of tables.
    blocks: the language and content of each code block.
    texts: the text of each paragraph, item and cell, without inline code.
    code: inline code.
    links: targets of links and images.
    """

    title: str = ""
    shape: list[str] = field(default_factory=list)
    blocks: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """The lines of its bash blocks, without comments."""
        return [line for language, text in self.blocks if language == "bash" for line in commands(text)]

    @property
    def figures(self) -> list[str]:
        """All numbers as they are written, those of code blocks included."""
        texts = [*self.texts, *(content for _, content in self.blocks)]
        return [figure for text in texts for figure in re.findall(r"\d+(?:[.,]\d+)*", text)]

    @property
    def anchor(self) -> str:
        """The name that GitHub gives the heading in addresses."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")


def commands(block: str) -> list[str]:
    lines = (re.sub(r"(^|\s+)#\s.*", "", line) for line in block.splitlines())
    return [line for line in lines if line]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def sections(text: str) -> list[Section]:
    """The sections of a document; the first is what stands before all headings."""
    found = [Section()]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            found.append(Section(title=tokens[number + 1].content))
        if token.type == "fence":
            found[-1].blocks.append((token.info, token.content))
        if token.type == "inline":
            _inline(found[-1], token)
        elif token.nesting >= 0:
            found[-1].shape.append(f"{token.type} {token.tag}")
    return found


def _inline(section: Section, token: Token) -> None:
    section.texts.append("")
    for child in token.children or []:
        if child.type == "code_inline":
            section.code.append(child.content)
        for attribute in ("href", "src"):
            if attribute in child.attrs:
                section.links.append(str(child.attrs[attribute]))
        section.texts[-1] += child.content if child.type in ("text", "image") else " "
