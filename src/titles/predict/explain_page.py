"""Explanations as bars on a terminal, or as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titles.data import console
from titles.data.files import atomic_file
from titles.data.messages import printable
from titles.predict.bars import Side, bars
from titles.predict.confidence import Threshold
from titles.texts import Texts

if TYPE_CHECKING:  # loads torch
    from titles.predict.explain import Category, Explanation

_WIDTH = 30  # cells of a terminal's bars
_LONGEST_WORD = 24  # cells; numbers of longer ones stand further to the right
_BADGES = {True: "green", False: "yellow"}
_COLOURS: Mapping[Side, str] = {"for": "green", "against": "red", "none": "dim"}


def show(explanation: Explanation, threshold: Threshold | None, say: Texts) -> None:
    """Print an explanation, in colour on a terminal unless NO_COLOR is set.

    Args:
        threshold: marks the first category as sure or unsure; None marks nothing.
    """
    from rich.cells import cell_len
    from rich.text import Text

    terminal = console.console()
    soft = not terminal.is_terminal  # do not wrap what goes to a file
    block = "#" if terminal.options.ascii_only else "█"
    words = [printable(word) for word in _marked(explanation)]
    column = min(max(map(cell_len, words)), _LONGEST_WORD)
    for number, category in enumerate(explanation.categories):
        heading = Text.assemble((printable(category.name), "bold"), f" {category.probability:.1%}")
        if threshold and number == 0:
            sure = threshold.accepts(category.probability)
            heading.append(f"  {say('words.sure' if sure else 'words.unsure')}", _BADGES[sure])
        terminal.print(heading, soft_wrap=soft)
        drawn = bars(category.effects)
        axis = round(drawn.axis * _WIDTH)
        for word, effect, bar in zip(words, category.effects, drawn.bars, strict=True):
            line = Text(f"  {word}{' ' * (column - cell_len(word))} {_signed(effect):>6} ")
            cells = max(1, round(bar.length * _WIDTH)) if bar.length else 0
            gap = max(axis - cells, 0) if bar.side == "against" else axis
            line.append(" " * gap)
            line.append(block * cells, _COLOURS[bar.side])
            line.rstrip()
            terminal.print(line, soft_wrap=soft)
        if not any(bar.length for bar in drawn.bars):
            terminal.print(Text(f"  {say('explain.weak')}"), soft_wrap=soft)
        if category.windows:
            parts = [
                f"{printable(window.words)} {_signed(window.contribution)}"
                for window in category.windows
            ]
            terminal.print(Text(f"  {say('explain.groups')} {', '.join(parts)}"), soft_wrap=soft)
    told = legend([explanation], {"": threshold}, say)
    terminal.print(Text("\n".join(["", *told]), "dim"), soft_wrap=soft)


def write_html(explanation: Explanation, threshold: Threshold | None, say: Texts, file: Path) -> None:
    """Write a self-contained page, atomically; for the arguments see `show`.

    Raises:
        ValueError: the file cannot be written.
    """
    # Bytes that are not UTF-8 were read as lone surrogates, which do not encode.
    page = str(macros().page(explanation, threshold, say)).encode("utf-8", "backslashreplace")
    with atomic_file(file) as partial:
        partial.write_bytes(page)


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
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "rows": _rows,
        "legend": legend,
        "percent": "{:.1%}".format,
        "percent_of": "{:.2%}".format,
        "signed": _signed,
    }
    return environment.get_template("explanation.html").module


def legend(
    explanations: Sequence[Explanation], thresholds: Mapping[str, Threshold | None], say: Texts
) -> list[str]:
    """The meaning of what explanations of one title show, in sentences.

    Args:
        thresholds: by the names of the models, or under "" if only one is shown.
    """
    categories = [category for explanation in explanations for category in explanation.categories]
    told = [say("explain.bars")]
    if any(category.windows for category in categories):
        told.append(say("explain.windows"))
    if not all(explanations[0].known):
        told.append(say("explain.unknown"))
    if rules := [_rule(name, known, say) for name, known in thresholds.items() if known]:
        told += [say("explain.sure", rules=say.listed(rules, "and")), say("explain.unsure")]
    else:
        told.append(say("explain.no_threshold"))
    return told


def _rule(model: str, threshold: Threshold, say: Texts) -> str:
    fields = {"threshold": f"{threshold.probability:.1%}"}
    if threshold.precision is None:
        rule = say("explain.threshold", **fields)
    else:
        rule = say("explain.threshold_measured", precision=f"{threshold.precision:.1%}", **fields)
    return say("explain.of_model", model=model, rule=rule) if model else rule


def _marked(explanation: Explanation) -> list[str]:
    """Words, with a star if they are unknown."""
    pairs = zip(explanation.words, explanation.known, strict=True)
    return [word if known else f"{word}*" for word, known in pairs]


def _rows(explanation: Explanation, category: Category) -> list[tuple[Any, ...]]:
    """For each word, itself, its effect and its bar."""
    return list(zip(_marked(explanation), category.effects, bars(category.effects).bars, strict=True))


def _signed(effect: float) -> str:
    return f"{round(effect, 2) + 0.0:+.2f}"  # zero has no minus
