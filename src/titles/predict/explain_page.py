"""Explanations as coloured text for a terminal, or as an HTML page."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titles.data import console
from titles.data.files import atomic_file
from titles.data.messages import printable

if TYPE_CHECKING:  # loads torch
    from titles.predict.explain import Category, Explanation

_FULL = 2.0  # nats; effects of at least this size, either way, have the full colour

_WORDS = "Words: by how much ln p of the category falls when the word is left out (occlusion)."
_WINDOWS = "Windows of the CNN: what they add to the category's logit (gradient x activation)."
_UNKNOWN = "* not in the vocabulary"


def show(explanation: Explanation) -> None:
    """Print an explanation, in colour on a terminal unless NO_COLOR is set."""
    from rich.text import Text

    terminal = console.console()
    soft = not terminal.is_terminal  # do not wrap what goes to a file
    for category in explanation.categories:
        heading = Text.assemble((printable(category.name), "bold"), f" {category.probability:.1%}")
        terminal.print(heading, soft_wrap=soft)
        line = Text("  words   ")
        for word, effect in _marked(explanation, category):
            line.append(f" {printable(word)}\u00a0{effect:+.2f} ", _style(effect))
        terminal.print(line, soft_wrap=soft)
        if category.windows:
            windows = (f"{window.words!r} {window.contribution:+.2f}" for window in category.windows)
            terminal.print(Text(f"  windows  {'  '.join(windows)}"), soft_wrap=soft)
    terminal.print(Text("\n".join(_legend(explanation)), "dim"), soft_wrap=soft)


def write_html(explanation: Explanation, file: Path) -> None:
    """Write a self-contained page, atomically.

    Raises:
        ValueError: the file cannot be written.
    """
    # Bytes that are not UTF-8 were read as lone surrogates, which do not encode.
    title = explanation.title.encode("utf-8", "backslashreplace").decode()
    with atomic_file(file) as partial:
        partial.write_text(macros().page(explanation, title), encoding="utf-8")


@cache
def macros() -> Any:
    """The macros of the template, which return escaped HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("titles.predict"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(str(value))),  # noqa: S704
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "marked": _marked,
        "colour": _colour,
        "legend": _legend,
        "percent": "{:.1%}".format,
        "signed": "{:+.2f}".format,
    }
    return environment.get_template("explanation.html").module


def _marked(explanation: Explanation, category: Category) -> list[tuple[str, float]]:
    """Words, with a star if they are unknown, and their effects."""
    words = zip(explanation.words, explanation.known, category.effects, strict=True)
    return [(word if known else f"{word}*", effect) for word, known, effect in words]


def _legend(explanation: Explanation) -> list[str]:
    windows = any(category.windows for category in explanation.categories)
    return [_WORDS, *[_WINDOWS] * windows, *[_UNKNOWN] * (not all(explanation.known))]


def _style(effect: float) -> str:
    if abs(effect) < _FULL / 20:
        return ""
    return f"{'green' if effect > 0 else 'red'}{' bold' if abs(effect) >= _FULL / 2 else ''}"


def _colour(effect: float) -> str:
    """Green for a category, red against it; the darker, the larger the effect."""
    strength = min(abs(effect) / _FULL, 1)
    return f"hsl({140 if effect > 0 else 5} 70% {97 - 32 * strength:.0f}%)"
