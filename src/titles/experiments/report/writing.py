"""The templates of the pages, and the texts of a language in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from titles.texts import Texts

_CODE = re.compile(r"`([^`]+)`")
# All characters with a meaning somewhere in CommonMark or in GitHub's tables.
_MARKS = re.compile(r"([\\`*_~<>&|\[\]$])")


def html_templates(say: Texts) -> Environment:
    """Templates of HTML: all values are escaped. In them, `say` gives a text of the language with its
    fields escaped, and `language` is its tag."""

    def told(key: str, **fields: object) -> Markup:
        text = _CODE.sub(r"<code>\1</code>", str(escape(say.unfilled(key))))
        return _tied(Markup(text)).format(**fields)  # noqa: S704, ours and escaped

    made = _templates(told, say, autoescape=True)
    made.filters |= {"breakable": _breakable, "tied": _tied}
    return made


def markdown_templates(say: Texts) -> Environment:
    """Templates of Markdown, as for HTML."""

    def told(key: str, **fields: object) -> Markup:
        escaped = {name: _markdown_escaped(value) for name, value in fields.items()}
        return Markup(say(key, **escaped))  # noqa: S704, ours, with fields escaped

    return _templates(told, say, finalize=_markdown_escaped)


def _templates(told: Callable[..., Markup], say: Texts, **options: Any) -> Environment:
    made = Environment(  # noqa: S701, in `options`
        loader=PackageLoader("titles.experiments.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        **options,
    )
    made.globals |= {"say": told, "language": say.language}
    made.filters |= {"count": "{:,}".format}
    return made


def _tied(text: str) -> Markup:
    """HTML of a text whose per cent signs stay with their numbers."""
    return escape(text).replace(" %", Markup("&nbsp;%"))


def _breakable(name: str) -> Markup:
    """HTML of a name with a possible line break after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _markdown_escaped(value: object) -> str:
    text = str(value)
    return text if isinstance(value, Markup) else _MARKS.sub(r"\\\1", " ".join(text.split()))
