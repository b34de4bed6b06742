"""Texts of pages and explanations in several languages.

Each language is a TOML file beside this one: sections by page, texts by name. English has all texts; a
test holds the others to the same names and the same {fields}. Backticks in a text mark code. Figures are
written as in params.yaml and on a terminal, 1,234.5, in all languages, so that they can be compared and
copied. No stage depends on this folder, so that a better translation trains nothing again.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

LANG = "TITLES_LANG"
ENGLISH = "en"
# What each language calls itself.
LANGUAGES = {ENGLISH: "English", "es": "Español", "pt": "Português"}
# The first that is set decides, as for other programs.
_LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


class Texts(NamedTuple):
    """The texts of one language, by section and name."""

    language: str
    sections: Mapping[str, Mapping[str, str]]

    def __call__(self, key: str, **fields: object) -> str:
        """The text `section.name` with its fields filled in, as plain text: a page has to escape it."""
        return self.unfilled(key).format(**fields)

    def unfilled(self, key: str) -> str:
        """The text `section.name` with its {fields}."""
        section, name = key.split(".")
        return self.sections[section][name]

    def named(self, section: str, name: str) -> str:
        """The text of a name that a file has, such as a reason for a rejected row; of a name that the
        section lacks, which another version may have written, the name itself in words."""
        return self.sections[section].get(name, name.replace("_", " "))

    def listed(self, parts: Sequence[str], joint: Literal["and", "or"]) -> str:
        """The parts as in a sentence: with commas, and the joint before the last."""
        if len(parts) < 2:
            return "".join(parts)
        return self(f"words.{joint}", first=", ".join(parts[:-1]), last=parts[-1])


@cache
def texts(language: str) -> Texts:
    """The texts of one of LANGUAGES."""
    return Texts(language, tomllib.loads((files(__name__) / f"{language}.toml").read_text("utf-8")))


def chosen(preferred: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The language to write in: TITLES_LANG, else the preferred one or that of the locale, else English.

    Args:
        preferred: a language tag such as pt-BR, which a browser names, instead of the locale's.
        environment: of the process, by default.

    Raises:
        ValueError: TITLES_LANG names another language.
    """
    variables: Mapping[str, Any] = os.environ if environment is None else environment
    if wanted := variables.get(LANG):
        if language := _known(wanted):
            return language
        raise ValueError(f"{LANG} is {wanted[:80]!r}: expected one of {', '.join(LANGUAGES)}")
    if preferred is None:
        preferred = next(filter(None, map(variables.get, _LOCALE)), "")
    return _known(preferred) or ENGLISH


def _known(tag: str) -> str | None:
    """The language of a tag such as es, pt-BR or es_AR.UTF-8."""
    language = re.split(r"[-_.@]", tag.lower())[0]
    return language if language in LANGUAGES else None
