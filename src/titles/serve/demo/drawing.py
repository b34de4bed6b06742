"""Predictions as HTML. Titles and category names are escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from titles.predict.explain_page import WORD_STYLE, legend_html, words_html

if TYPE_CHECKING:  # loads torch
    from titles.predict.explain import Category, Explanation

STYLE = f"""<style>
{WORD_STYLE}
.answer h3 {{ font-size: 1.1rem; padding: 0 0 .3rem }}
.answer summary {{ display: grid; grid-template-columns: 1rem 1fr auto; gap: 0 .3rem; padding: .3rem 0 }}
.answer summary {{ cursor: pointer; font-size: .9rem; line-height: 1.4; overflow-wrap: anywhere }}
.answer summary::before {{ content: "\u25ba" }}
.answer [open] > summary::before {{ content: "\u25bc" }}
.answer .bar {{ grid-column: 1 / -1; height: 3px; border-radius: 2px; background: hsl(210 70% 50%) }}
.answer p {{ margin: .5rem 0; font-size: .9rem; overflow-wrap: anywhere }}
.legend {{ opacity: .7 }}
</style>"""


def answer(heading: str, explanation: Explanation) -> str:
    """Ranked categories with their words, which are unfolded only for the first."""
    rows = "".join(
        _row(explanation, category, place == 0) for place, category in enumerate(explanation.categories)
    )
    return f'<section class="answer"><h3>{escape(heading)}</h3>{rows}</section>'


def legend(explanation: Explanation) -> str:
    """The meaning of the numbers beside words."""
    return f'<small class="legend">{legend_html(explanation)}</small>'


def _row(explanation: Explanation, category: Category, is_open: bool) -> str:
    name = escape(category.name).replace("_", "_<wbr>")  # where a long name may be broken
    share = f"{category.probability:.1%}"
    return (
        f"<details{' open' * is_open}><summary><span>{name}</span><span>{share}</span>"
        f'<div class="bar" style="width:{share}"></div></summary>'
        f"{words_html(explanation, category)}</details>"
    )
