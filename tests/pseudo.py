"""A language without Latin letters: words that are left on a page are not of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html.parser import HTMLParser

from titles.texts import Texts, texts

WORD = re.compile(r"[A-Za-z]{2,}")
# Attributes that people read or hear.
_READ = {"aria-label", "alt", "title", "placeholder"}


class Pseudo(Texts):
    """The English texts with all letters replaced, except those of fields; remembers which were used."""

    used: set[str]

    def unfilled(self, key: str) -> str:
        self.used.add(key)
        return super().unfilled(key)


def pseudo() -> Pseudo:
    english = texts("en").sections
    made = Pseudo(
        "en",
        {
            section: {name: _replaced(text) for name, text in found.items()}
            for section, found in english.items()
        },
    )
    made.used = set()
    return made


def _replaced(text: str) -> str:
    parts = re.split(r"(\{\w+\})", text)
    return "".join(part if part.startswith("{") else re.sub(r"[A-Za-z]", "ж", part) for part in parts)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.told: list[str] = []
        self._skipped = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped += tag in ("style", "script")
        self.told += [value or "" for name, value in attrs if name in _READ]

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.told.append(data)


def visible(html: str) -> list[str]:
    """All texts of a page, those of charts and for screen readers included."""
    return _Page(html).told


def foreign(told: Iterable[str], known: Iterable[str]) -> set[str]:
    """The words in texts that are not among those of `known`."""
    allowed = {word for text in known for word in WORD.findall(text)}
    return {word for text in told for word in WORD.findall(text)} - allowed
