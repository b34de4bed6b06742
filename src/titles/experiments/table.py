"""The table of experiments: scores on validation, by which one chooses, beside those on test."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tabulate import tabulate

from titles.experiments.commands import git
from titles.experiments.queue import Queue
from titles.experiments.report.comparison import differing_inputs
from titles.experiments.report.experiment import inputs_of
from titles.experiments.results import Result, results_at
from titles.experiments.store import WORKSPACE, Revision, differing, experiments, find, head
from titles.models.registry import AVERAGE, CLASSIFIERS

_SCORE = "balanced_accuracy"
_VALIDATION = f"validation_{_SCORE}"
_ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """An experiment, a commit or the workspace.

    note: its state, such as "running", where it is not finished. scores: measures by model. params:
    under dotted names; of an unfinished run nothing is known.
    """

    name: str
    note: str = ""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def validation(self) -> float:
        """The score that the rows are sorted by: of the average, else of the best network."""
        found = {model: measures.get(_VALIDATION, -1.0) for model, measures in self.scores.items()}
        return found.get(AVERAGE, max(found.values(), default=-1.0))


def rows(commits: int | None = 1) -> list[Row]:
    """The last commits, their experiments, those that wait or run, and the workspace if it differs from
    all of these; best score on validation first, those without scores last.

    Args:
        commits: how many commits, or None for all that have experiments.
    """
    shown = _commits(commits)
    found: dict[str, Row] = {}
    states: dict[tuple[str, ...], str] = {}
    for revision in [*_revisions(shown), find(WORKSPACE)]:
        results = results_at(revision)
        state = tuple(result.key for result in results)
        if revision.name == WORKSPACE and state in states:
            same = found[states[state]]
            found[states[state]] = replace(same, note=WORKSPACE)
        else:
            found[revision.commit] = _row(revision, results)
            states.setdefault(state, revision.commit)
    queue = Queue()
    tasks = [(queue.running(), "running"), (queue.waiting(), "waiting"), (queue.failed(), "failed")]
    for group, note in tasks:
        for task in group:
            if commits is None or task.baseline in shown:
                found[task.revision] = Row(task.name or task.revision[:7], note)
    return sorted(found.values(), key=lambda row: -row.validation)


def shown(found: Sequence[Row], form: str) -> str:
    """The rows as a table.

    Args:
        form: "simple" for a terminal, "github" for Markdown, "csv" for all digits.
    """
    models = sorted({model for row in found for model in row.scores}, key=_order)
    finished = [row for row in found if row.params]
    values = differing([row.params for row in finished])
    records = [_record(row, models, form) for row in found]
    for row, record in zip(found, records, strict=True):
        place = finished.index(row) if row.params else -1
        record |= {name: column[place] if row.params else None for name, column in values.items()}
    filled = [{k: _ABSENT if v is None else v for k, v in record.items()} for record in records]
    if form == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, filled[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(filled)
        return stream.getvalue().removesuffix("\n")
    return str(tabulate(filled, headers="keys", tablefmt=form, disable_numparse=True))


def _record(row: Row, models: Sequence[str], form: str) -> dict[str, Any]:
    digits, between = (6, " ") if form == "csv" else (3, "\n" if form == "simple" else " ")
    record: dict[str, Any] = {"experiment": f"{row.name} ({row.note})" if row.note else row.name}
    for model in models:
        measures, title = row.scores.get(model, {}), model if model == AVERAGE else model.upper()
        validation, test, low, high = (
            f"{measures[name]:.{digits}f}" if name in measures else None
            for name in (_VALIDATION, _SCORE, f"{_SCORE}_low", f"{_SCORE}_high")
        )
        record |= {f"{title}{between}validation": validation, f"{title}{between}test": test}
        if model == AVERAGE and form == "csv":
            record |= {"average test low": low, "average test high": high}
        elif model == AVERAGE:
            record["95 % interval"] = low and f"{low} .. {high}"
    return record


def _order(model: str) -> int:
    """The average, by which rows are sorted, comes first, networks that only other commits have last."""
    known = [AVERAGE, *CLASSIFIERS]
    return known.index(model) if model in known else len(known)


def why(here: Revision, there: Revision) -> str:
    """What differs between two revisions with equal parameters and other figures; "" if the figures are
    equal, or parameters differ."""
    mine, theirs = ({found.stage: found for found in results_at(one)} for one in (here, there))
    both = [(mine[stage], theirs[stage]) for stage in mine if stage in theirs]
    if all(a.scores == b.scores for a, b in both) or any(a.params != b.params for a, b in both):
        return ""
    inputs = [
        replace(inputs_of(one.stages, one.name), machines=_machines(results))
        for one, results in ((here, mine), (there, theirs))
    ]
    roots = [found for found in differing_inputs(inputs) if not found.made]
    causes = [f"{found.name} ({found.values[0]} here, {found.values[1]} there)" for found in roots]
    return ", ".join(causes) or "versions of packages, or the kind of processor"


def _machines(results: Mapping[str, Result]) -> dict[str, str]:
    used = {result.model: result.used.get("machine") for result in results.values()}
    return {model: machine for model, machine in used.items() if machine}


def _commits(count: int | None) -> list[str]:
    """The commits whose experiments are shown, HEAD first."""
    if count is None:
        return list(dict.fromkeys([head(), *(found.baseline for found in reversed(experiments()))]))
    return git("rev-list", "--first-parent", f"--max-count={count}", "HEAD").split()


def _revisions(commits: Iterable[str]) -> Iterator[Revision]:
    for commit in commits:
        yield find(commit)
        yield from experiments(commit)


def _row(revision: Revision, results: Sequence[Result]) -> Row:
    scores: dict[str, Mapping[str, float]] = {}
    for result in results:  # the evaluation, which has more measures, comes last
        scores |= result.scores["models"] if result.model == AVERAGE else {result.model: result.scores}
    name = revision.name
    if revision.commit == head():
        name = git("branch", "--show-current").strip() or name
    return Row(name, "" if results else "not run", scores, results[-1].params if results else {})
