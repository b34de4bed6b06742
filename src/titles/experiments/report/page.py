"""A comparison of experiments as a page of HTML and as Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from titles.data.files import atomic_file, is_one_file
from titles.experiments.commands import warn
from titles.experiments.report import charts
from titles.experiments.report.answer import (
    NOT_COMPARED,
    VERDICTS,
    Answer,
    answer,
    full_name,
    lacks_predictions,
    of_model,
    other_titles,
    signed,
    verdict,
)
from titles.experiments.report.comparison import (
    CATEGORIES,
    LEAST_ROWS,
    MACHINE,
    NONE,
    TITLES,
    UNKNOWN,
    Pair,
    compare,
    differing_inputs,
    differing_params,
    is_unchanged,
    unexplained,
)
from titles.experiments.report.experiment import Experiment, load
from titles.experiments.report.writing import html_templates, markdown_templates
from titles.experiments.store import lacking
from titles.models.registry import AVERAGE
from titles.texts import Texts
from titles.tracking.provenance import without_login

_OPEN = 2  # experiments whose titles are shown without a click
_CHANGES = 3  # parameters that stand beside a name


def write_report(names: Sequence[str], model: str, page: Path, markdown: Path, say: Texts) -> Answer:
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
        (page, html_text(experiments, pairs, model, say)),
        (markdown, markdown_text(experiments, pairs, model, say)),
    ):
        with atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    return answer(experiments, pairs, model, say)


def html_text(experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str, say: Texts) -> str:
    """The page; charts and style are part of it, and it holds no script."""
    return _rendered(html_templates(say), "report.html", experiments, pairs, model, say)


def markdown_text(
    experiments: Sequence[Experiment], pairs: Sequence[Pair], model: str, say: Texts
) -> str:
    """The same without charts; all values in the template are escaped."""
    return _rendered(markdown_templates(say), "report.md", experiments, pairs, model, say)


def _rendered(
    environment: Environment,
    template: str,
    experiments: Sequence[Experiment],
    pairs: Sequence[Pair],
    model: str,
    say: Texts,
) -> str:
    placeholders = {
        NONE: say("report.none"),
        UNKNOWN: say("report.unknown"),
        MACHINE: say("report.machine"),
    }
    environment.filters |= {
        "share": "{:.3f}".format,
        "p_value": "{:.2g}".format,
        "difference": "{:+.3f}".format,
        "parameter": partial(_parameter, say=say),
        "full_name": partial(full_name, say=say),
        "input": lambda text: placeholders.get(text, text),
        "verdict": lambda kind: say(VERDICTS[kind]),
    }
    baseline = experiments[0]
    # Models that all experiments have, the average first.
    shared = [m for m in baseline.scores if all(m in e.scores for e in experiments)]
    models = sorted(shared, key=lambda name: name != AVERAGE)
    inputs = differing_inputs([one.inputs for one in experiments])
    return environment.get_template(template).render(
        answer=answer(experiments, pairs, model, say),
        charts=charts,
        texts=say,
        experiments=experiments,
        baseline=baseline,
        pairs=pairs,
        model=model,
        of_model=of_model(model, say),
        models=models,
        other_titles=[(told, pair) for pair in pairs if (told := other_titles(baseline, pair, say))],
        notes=[note for experiment in experiments for note in experiment.notes],
        lacking=lacking({e.name: e.params for e in experiments}),
        unexplained=[one.name for one in experiments[1:] if unexplained(baseline, one)],
        changes={e.name: _changes(baseline, e, say) for e in experiments},
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
    """A model of an experiment.

    signed: the difference from the first and its interval. verdict: of VERDICTS; empty for
    the first.
    """

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
        told = (signed(test), verdict(test)) if test else ((), NOT_COMPARED)
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


def _changes(baseline: Experiment, experiment: Experiment, say: Texts) -> list[str]:
    """In what an experiment differs from the first, for a place beside its name."""
    both = [baseline, experiment]
    params = [
        f"{name} {_parameter(before, say)} → {_parameter(after, say)}"
        for name, (before, after) in differing_params(both)
    ]
    roots = [one.name for one in differing_inputs([one.inputs for one in both]) if not one.made]
    code = [name for name in roots if name.startswith("src/")]
    told = [say("report.machine") if name == MACHINE else name for name in roots if name not in code]
    told += [say("report.code")] if len(code) > 1 else code
    found = params + [say("report.differs", name=name) for name in told]
    more = len(found) - _CHANGES
    return found if more <= 1 else [*found[:_CHANGES], say("report.and_more", count=more)]


def _parameter(value: object, say: Texts) -> str:
    if value is None:
        return say("report.not_set")
    return without_login(value) if isinstance(value, str) else json.dumps(value, default=str)
