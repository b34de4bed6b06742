"""Explanations as coloured text for a terminal, or as an HTML page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from titles.data.contract import atomic_file

if TYPE_CHECKING:  # loads torch
    from titles.predict.explain import Category, Explanation

_FULL = 2.0  # nats; effects of at least this size, either way, have the full colour

_WORDS = "Words: by how much ln p of the category falls when the word is left out (occlusion)."
_WINDOWS = "Windows of the CNN: what they add to the category's logit (gradient x activation)."
_UNKNOWN = "* not in the vocabulary"

# For the HTML of `words_html`.
WORD_STYLE = """\
.word { display: inline-block; padding: 0 .4rem; margin: .1rem; border-radius: .3rem; color: #111 }
.word small { color: #555 }"""


def show(explanation: Explanation) -> None:
    """Print an explanation, in colour on a terminal unless NO_COLOR is set."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    soft = not console.is_terminal  # do not wrap what goes to a file
    marked = _marked(explanation)
    for category in explanation.categories:
        console.print(
            Text.assemble((category.name, "bold"), f" {category.probability:.1%}"), soft_wrap=soft
        )
        line = Text("  words   ")
        for word, effect in zip(marked, category.effects, strict=True):
            line.append(f" {word}\u00a0{effect:+.2f} ", _style(effect))
        console.print(line, soft_wrap=soft)
        if category.windows:
            told = "  ".join(
                f"{window.words!r} {window.contribution:+.2f}" for window in category.windows
            )
            console.print(Text(f"  windows  {told}"), soft_wrap=soft)
    console.print(Text("\n".join(_legend(explanation)), "dim"), soft_wrap=soft)


def write_html(explanation: Explanation, file: Path) -> None:
    """Write a self-contained page, atomically.

    Raises:
        ValueError: the file cannot be written.
    """
    # Bytes that are not UTF-8 were read as lone surrogates, which do not encode.
    title = escape(explanation.title.encode("utf-8", "backslashreplace").decode())
    rows = "\n".join(
        f"<h2>{escape(each.name)} {each.probability:.1%}</h2>\n{words_html(explanation, each)}"
        for each in explanation.categories
    )
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem; overflow-wrap: anywhere }}
h2 {{ font-size: 1rem; margin-bottom: .3rem; overflow-wrap: anywhere }}
{WORD_STYLE}
footer {{ color: #555 }}
</style>
<h1>{title}</h1>
{rows}
<footer>{legend_html(explanation)}</footer>
</html>
"""
    with atomic_file(file) as partial:
        partial.write_text(page, encoding="utf-8")


def words_html(explanation: Explanation, category: Category) -> str:
    """Words coloured by their effect on the category, and the CNN's windows; needs `WORD_STYLE`."""
    words = "".join(
        f'<span class="word" style="background:{_colour(effect)}">{escape(word)} '
        f"<small>{effect:+.2f}</small></span>"
        for word, effect in zip(_marked(explanation), category.effects, strict=True)
    )
    windows = ", ".join(
        f"{escape(window.words)} {window.contribution:+.2f}" for window in category.windows
    )
    told = f"\n<p>Windows: {windows}</p>" if windows else ""
    return f"<p>{words}</p>{told}"


def legend_html(explanation: Explanation) -> str:
    """The meaning of the numbers of `words_html`."""
    return "<br>".join(escape(line) for line in _legend(explanation))


def _marked(explanation: Explanation) -> list[str]:
    words = zip(explanation.words, explanation.known, strict=True)
    return [word if known else f"{word}*" for word, known in words]


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
