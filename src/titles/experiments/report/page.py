"""A comparison of experiments as a page of HTML and as Markdown."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from titles.data.files import atomic_file, is_one_file
from titles.experiments.commands import warn
from titles.experiments.report import charts
from titles.experiments.report.answer import (
    Answer,
    answer,
    full_name,
    lacks_predictions,
    of_model,
    signed,
    verdict,
)
from titles.experiments.report.comparison import (
    CATEGORIES,
    LEAST_ROWS,
    TITLES,
    Pair,
    compare,
    differing_inputs,
    differing_params,
    is_unchanged,
    unexplained,
)
from titles.experiments.report.experiment import Experiment, load
from titles.experiments.store import unknown
from titles.models.registry import AVERAGE
from titles.tracking.provenance import without_login

_OPEN = 2  # experiments whose titles are shown without a click
_CHANGES = 3  # parameters that stand beside a name
# All characters with a meaning somewhere in CommonMark or in GitHub's tables.
_MARKS = re.compile(r"([\\`*_~<>&|\[\]$])")


def write_report(names: Sequence[str], model: str, page: Path, markdown: Path) -> Answer:
    """Compare experiments or revisions with the first of them, in two files.

    Args:
        names: see `experiment.load`.
        model: the model whose categories and titles are shown.

    Returns:
        The sentences that the files open with.

    Raises:
        ValueError: an experiment cannot be read, lacks the model or is named twice, or a file cannot be
            written.
    """
    if len(set(names)) < len(names):
        raise ValueError("an experiment is named twice")
    if is_one_file(page, markdown):
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
    return answer(experiments, pairs, model)


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
        "count": "{:,}".format,
        "p_value": "{:.2g}".format,
        "difference": "{:+.3f}".format,
        "parameter": _parameter,
        "breakable": _breakable,
        "full_name": full_name,
    }
    baseline = experiments[0]
    # Models that all experiments have, the average first.
    shared = [m for m in baseline.scores if all(m in e.scores for e in experiments)]
    models = sorted(shared, key=lambda name: name != AVERAGE)
    inputs = differing_inputs([one.inputs for one in experiments])
    notes = [note for experiment in experiments for note in experiment.notes]
    notes += unknown({e.name: e.params for e in experiments})
    notes += [
        f"{one.name} has other results than {baseline.name}, although parameters, code, data and class "
        "of machine are equal. Causes can be a GPU, `compute.portable: false` or files changed by hand; "
        f"`titles verify {one.name}` runs it again"
        for one in experiments[1:]
        if unexplained(baseline, one)
    ]
    return environment.get_template(template).render(
        answer=answer(experiments, pairs, model),
        charts=charts,
        experiments=experiments,
        baseline=baseline,
        pairs=pairs,
        model=model,
        of_model=of_model(model),
        models=models,
        notes=notes,
        changes={e.name: _changes(baseline, e) for e in experiments},
        groups=[_rows(experiments, pairs, name) for name in models],
        trainings=[
            _training(experiments, network)
            for network in models
            if any(network in e.best or network in e.curves for e in experiments)
        ],
        params=differing_params(experiments),
        causes=[one for one in inputs if not one.made],
        effects=[one for one in inputs if one.made],
        without_inputs=[e.name for e in experiments if e.inputs is None],
        lacks_predictions=lacks_predictions,
        limits={"rows": LEAST_ROWS, "categories": CATEGORIES, "titles": TITLES, "open": _OPEN},
        command=shlex.join(["titles", "report", *(e.name for e in experiments), "--model", model]),
    )


class Row(NamedTuple):
    """A model of an experiment. signed: the difference from the first and its interval."""

    experiment: Experiment
    score: Mapping[str, float]
    validation: float | None
    pair: Pair | None
    test: Mapping[str, float] | None
    signed: Sequence[str]
    verdict: str


class Rows(NamedTuple):
    """The experiments of a model, the first one first: shown, or hidden as they are the same as that."""

    model: str
    shown: Sequence[Row]
    hidden: Sequence[Row]

    @property
    def is_same(self) -> bool:
        """Whether the model is that of the first experiment in all others."""
        return len(self.shown) == 1 and bool(self.hidden)


def _rows(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str) -> Rows:
    baseline = experiments[0]
    shown = [Row(baseline, baseline.scores[model], baseline.validation(model), None, None, (), "")]
    hidden: list[Row] = []
    for pair in pairs:
        one, test = pair.experiment, pair.tests.get(model)
        told = (signed(test), verdict(test)) if test else ((), "not compared")
        row = Row(one, one.scores[model], one.validation(model), pair, test, *told)
        (hidden if is_unchanged(baseline, pair, model) else shown).append(row)
    return Rows(model, shown, hidden)


class Training(NamedTuple):
    """The trainings of a network: those shown, and the experiments that have that of the first."""

    network: str
    shown: Sequence[Experiment]
    hidden: Sequence[Experiment]

    @property
    def is_same(self) -> bool:
        """Whether all others have the training of the first."""
        return len(self.shown) == 1 and bool(self.hidden)

    @property
    def has_curves(self) -> bool:
        return any(self.network in one.curves for one in self.shown)


def _training(experiments: Sequence[Experiment], network: str) -> Training:
    def of(one: Experiment) -> tuple[Any, Any]:
        return one.best.get(network), one.curves.get(network)

    having = [one for one in experiments if of(one) != (None, None)]
    first, *others = having
    hidden = [one for one in others if of(one) == of(first)]
    return Training(network, [one for one in having if one not in hidden], hidden)


def _changes(baseline: Experiment, experiment: Experiment) -> list[str]:
    """In what an experiment differs from the first, for a place beside its name."""
    both = [baseline, experiment]
    params = [
        f"{name} {_parameter(before)} → {_parameter(after)}"
        for name, (before, after) in differing_params(both)
    ]
    roots = [one.name for one in differing_inputs([one.inputs for one in both]) if not one.made]
    code = [name for name in roots if name.startswith("src/")]
    told = [name for name in roots if name not in code] + (["code"] if len(code) > 1 else code)
    found = params + [f"{name} differs" for name in told]
    more = len(found) - _CHANGES
    return found if more <= 1 else [*found[:_CHANGES], f"and {more} more"]


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
    if value is None:
        return "not set"
    return without_login(value) if isinstance(value, str) else json.dumps(value, default=str)


def _breakable(name: str) -> Markup:
    """HTML of a name with a possible line break after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))
