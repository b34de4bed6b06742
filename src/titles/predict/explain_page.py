"""An explanation to look at: coloured text for a terminal, or a page of its own."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from titles.data.contract import atomic_file

if TYPE_CHECKING:  # loads torch
    from titles.predict.explain import Category, Explanation

# A word that changes a probability by this factor or more, either way, has the full colour.
_FULL = 2.0  # nats

_WORDS = "Words: by how much ln p of the category falls when the word is left out (occlusion)."
_WINDOWS = "Windows of the CNN: what they add to the category's logit (gradient x activation)."
_UNKNOWN = "* not in the vocabulary"

# Of what `words_html` makes.
WORD_STYLE = """\
.word { display: inline-block; padding: 0 .4rem; margin: .1rem; border-radius: .3rem; color: #111 }
.word small { color: #555 }"""


def show(explanation: Explanation) -> None:
    """Print, in colour on a terminal unless NO_COLOR is set."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    soft = not console.is_terminal  # what goes to a file is not wrapped
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
    """Write a page that needs nothing else; it appears when it is whole.

    Raises:
        ValueError: the place cannot be written to.
    """
    # Lone surrogates, which are what bytes that are no UTF-8 were read as, do not encode.
    title = escape(explanation.title.encode("utf-8", "backslashreplace").decode())
    rows = "\n".join(_section(explanation, category) for category in explanation.categories)
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
    """The words in the colours of what they do for the category, and the CNN's windows; escaped, it
    looks as `WORD_STYLE` says."""
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
    """What the numbers of `words_html` are."""
    return "<br>".join(escape(line) for line in _legend(explanation))


def _section(explanation: Explanation, category: Category) -> str:
    heading = f"<h2>{escape(category.name)} {category.probability:.1%}</h2>"
    return f"{heading}\n{words_html(explanation, category)}"


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
    """Green for a category, red against it; lightness says how much."""
    strength = min(abs(effect) / _FULL, 1)
    return f"hsl({140 if effect > 0 else 5} 70% {97 - 32 * strength:.0f}%)"
