"""A comparison of experiments as a page of HTML and as Markdown."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from titles.data.files import atomic_file
from titles.experiments.commands import warn
from titles.experiments.report import charts
from titles.experiments.report.comparison import (
    CATEGORIES,
    LEAST_ROWS,
    TITLES,
    Pair,
    compare,
    differing_params,
)
from titles.experiments.report.experiment import Experiment, load
from titles.experiments.store import unknown
from titles.models.registry import AVERAGE

# All characters with a meaning somewhere in CommonMark or in GitHub's tables.
_MARKS = re.compile(r"([\\`*_~<>&|\[\]$])")


def write_report(names: Sequence[str], model: str, page: Path, markdown: Path) -> None:
    """Compare experiments or revisions with the first of them, in two files.

    Args:
        names: see `experiment.load`.
        model: the model whose categories and titles are shown.

    Raises:
        ValueError: an experiment cannot be read, lacks the model or is named twice, or a file cannot be
            written.
    """
    if len(set(names)) < len(names):
        raise ValueError("an experiment is named twice")
    if page.resolve() == markdown.resolve():
        raise ValueError(f"{page} cannot be both the page and the Markdown: name another --markdown")
    experiments = [load(name) for name in names]
    for experiment in experiments:
        for note in experiment.notes:
            warn(note)
    pairs = [compare(experiments[0], experiment, model) for experiment in experiments[1:]]
    for path, text in (
        (page, html_text(experiments, pairs, model)),
        (markdown, markdown_text(experiments, pairs, model)),
    ):
        with atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def html_text(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str) -> str:
    """The page; charts and style are part of it, and it holds no script."""
    return _rendered("report.html", experiments, pairs, model, autoescape=True)


def markdown_text(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str) -> str:
    """The same without charts; all values in the template are escaped."""
    return _rendered("report.md", experiments, pairs, model, finalize=_markdown_escaped)


def _rendered(
    template: str, experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str, **options: Any
) -> str:
    environment = templates(**options)
    environment.filters |= {
        "share": "{:.3f}".format,
        "difference": "{:+.3f}".format,
        "p_value": "{:.2g}".format,
        "parameter": _parameter,
        "verdict": _verdict,
        "breakable": _breakable,
        "full_name": charts.full_name,
    }
    # Models that all experiments have, networks first.
    shared = [m for m in experiments[0].scores if all(m in e.scores for e in experiments)]
    models = sorted(shared, key=lambda name: name == AVERAGE)
    networks = [name for name in models if name != AVERAGE]
    notes = [note for experiment in experiments for note in experiment.notes]
    return environment.get_template(template).render(
        charts=charts,
        experiments=experiments,
        baseline=experiments[0],
        pairs=pairs,
        model=model,
        models=models,
        notes=[*notes, *unknown({e.name: e.params for e in experiments})],
        drawn=[name for name in networks if any(name in e.curves for e in experiments)],
        params=differing_params(experiments),
        limits={"rows": LEAST_ROWS, "categories": CATEGORIES, "titles": TITLES},
        command=shlex.join(["titles", "report", *(e.name for e in experiments), "--model", model]),
    )


def templates(**options: Any) -> Environment:
    """The templates of pages. options: of Jinja, `autoescape=True` for HTML."""
    return Environment(  # noqa: S701, in `options`
        loader=PackageLoader("titles.experiments.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        **options,
    )


def _markdown_escaped(value: object) -> str:
    text = str(value)
    return text if isinstance(value, Markup) else _MARKS.sub(r"\\\1", " ".join(text.split()))


def _parameter(value: object) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value)


def _breakable(name: str) -> Markup:
    """HTML of a name with a possible line break after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _verdict(test: dict[str, float]) -> str:
    """Result of a paired test: `better` and `worse` only if its interval excludes 0."""
    if test["only_one"] == test["only_other"] == 0:
        return "the same"
    if test["difference_low"] <= 0 <= test["difference_high"]:
        return "not significant"
    return "better" if test["difference"] > 0 else "worse"
