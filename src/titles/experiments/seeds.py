"""The spread of measures over seeds, and the comparison of two settings by runs with equal seeds."""

from __future__ import annotations

import hashlib
import json
import shlex
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from titles.experiments.commands import git, project, warn
from titles.experiments.older import BY_WORDS
from titles.experiments.seed_tables import shown, table
from titles.experiments.spread import Summary, components, summarise
from titles.experiments.store import (
    SPLIT_SEED,
    Revision,
    canonical,
    decides_split,
    differing,
    experiments,
    find,
    unknown,
)
from titles.models.registry import AVERAGE

SEED = "seed"
# Of which less is better.
_COSTS = ("loss", "calibration_error")
_MORE = "To get one: dvc exp run --queue -S 'seed=1,2,3' && dvc queue start"
_LEGEND = (
    "Runs on one split: mean, deviation and interval are over seeds of the training. On several splits, "
    "they are over the means of the splits."
)


class Key(NamedTuple):
    """The seeds of a run. split: a number, or text for a run of an older version: `older.BY_WORDS`."""

    split: Any
    seed: Any


class Group(NamedTuple):
    """Experiments that differ only in their seeds. settings: all other parameters, and `code`."""

    settings: dict[str, Any]
    runs: dict[Key, Revision]

    @property
    def name(self) -> str:
        """That of its first run."""
        return next(iter(self.runs.values())).name


def groups(found: Iterable[Revision]) -> list[Group]:
    """Experiments that have measures, grouped; most runs first.

    Of two runs with the same settings and seeds, the later one counts. A line on stderr names each
    experiment that is left out, and the reason.
    """
    together: dict[str, Group] = {}
    for experiment in found:
        try:
            scores, (settings, key) = experiment.scores, _identity(experiment)
        except ValueError as error:
            warn(f"{experiment.name} is left out: {error}")
            continue
        runs = together.setdefault(_same(settings), Group(settings, {})).runs
        if key in runs and runs[key].scores != scores:
            names = f"{runs[key].name} and {experiment.name}"
            warn(f"{names} have the same settings and seeds, but other scores: the later counts")
        runs[key] = experiment
    grouped = [
        Group(settings, dict(sorted(runs.items(), key=lambda run: _order(run[0]))))
        for settings, runs in together.values()
    ]
    return sorted(grouped, key=lambda group: -len(group.runs))


def _same(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings, whatever their values are: 1 and 1.0 are equal."""
    text = json.dumps(settings, default=str, skipkeys=True)
    return json.dumps(json.loads(text, parse_int=float), sort_keys=True)


def _order(key: Key) -> tuple[bool, Any, int]:
    return isinstance(key.split, str), key.split, key.seed


def _warn_of_unknown(settings: Mapping[str, Mapping[str, Any]]) -> None:
    for line in unknown(settings):
        warn(line)


def _identity(run: Revision) -> tuple[dict[str, Any], Key]:
    """The settings of a run, and its seeds; raises ValueError if it has none, or no numbers."""
    settings = {name: canonical(value) for name, value in run.params.items()}
    try:
        key = Key(settings.pop(SPLIT_SEED), settings.pop(SEED))
    except KeyError as error:
        raise ValueError(f"its params.yaml has no {error.args[0]}") from None
    of_before = isinstance(key.split, str) and key.split == f"{key.seed}{BY_WORDS}"
    for name, value in ((SEED, key.seed), (SPLIT_SEED, key.split)):
        if type(value) is not int and not (name == SPLIT_SEED and of_before):  # true is no seed
            raise ValueError(f"{name} in its params.yaml is {value!r}, not a whole number")
    code = git("ls-tree", run.commit, *run.inputs, folder=project())
    settings["code"] = hashlib.sha256(code.encode()).hexdigest()[:7]
    return settings, key


def report(baseline: str, metric: str, form: str) -> str:
    """Summarise the experiments on a commit, for each group and model.

    A row has a `Summary` of the runs on one split or, if there are several splits, of their means; and
    the `Components`. With several splits, each that has two runs or more has a row of its own as well.
    Groups of one run have no spread: they have a table of their own, and in CSV a 1 in the column
    `runs`. If there are two groups besides those, they are also compared in pairs.

    Args:
        form: "simple" for the terminal, "github" for Markdown, or "csv" with all digits.

    Raises:
        ValueError: there are none.
    """
    found = groups(experiments(baseline))
    _warn_of_unknown({group.name: group.settings for group in found})
    measured = [(group, _measured(group, metric)) for group in found]
    if not any(values for _, values in measured):
        raise ValueError(
            f"there are no experiments on {baseline[:7]} to summarise. To get some: "
            "dvc exp run --queue -S 'seed=1,2,3' && dvc queue start, and this again once "
            "`dvc queue status` shows them done"
        )
    if form == "csv":
        return table(_summaries(measured), form)
    repeated = [one for one in measured if len(one[0].runs) > 1]
    single = [one for one in measured if len(one[0].runs) == 1]
    told = []
    if rows := _summaries(repeated):
        told += [table(rows, form), _LEGEND]
    else:
        told.append(f"No settings ran with two seeds or more, so that no spread is known. {_MORE}")
    if len(repeated) == 2:
        (first, old), (second, new) = repeated
        names = first.name, second.name
        told.append(_compared(first, second, old, new, *names, metric).verdict)
        told.append(f"More of this comparison: titles seeds {shlex.join(names)}")
    elif len(repeated) > 2:
        names = (repeated[0][0].name, repeated[1][0].name)
        told.append(f"To compare two in pairs of equal seeds: titles seeds {shlex.join(names)}")
    if single:
        told += ["One run each, which shows no spread:", _singles(single, form)]
    return "\n\n".join(told)


Measured = dict[str, dict[Key, float]]  # of a group, by model


def _summaries(measured: Sequence[tuple[Group, Measured]]) -> list[dict[str, Any]]:
    apart = differing([group.settings for group, _ in measured])
    return [
        {"experiment": group.name, **{name: values[place] for name, values in apart.items()}, **row}
        for place, (group, values_of) in enumerate(measured)
        for row in _rows(values_of)
    ]


def _singles(measured: Sequence[tuple[Group, Measured]], form: str) -> str:
    """A row for each group of one run."""
    apart = differing([group.settings for group, _ in measured])
    models = dict.fromkeys(model for _, values in measured for model in values)
    rows = []
    for place, (group, values) in enumerate(measured):
        ((key, run),) = group.runs.items()
        row: dict[str, Any] = {"experiment": run.name}
        row |= {name: shown(found[place]) for name, found in apart.items()}
        row |= {model: f"{values[model][key]:.4f}" if model in values else "-" for model in models}
        rows.append(row | {"split": key.split, "seed": key.seed})
    return str(tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True))


def _rows(measured: Measured) -> Iterator[dict[str, Any]]:
    for model, values in measured.items():
        by_split = _by_split(values)
        several = len(by_split) > 1
        parts = [{split: found} for split, found in by_split.items() if several and len(found) > 1]
        for part in [*parts, by_split]:
            summary, spread = _summary(part), components(part)
            yield {
                "network": model,
                "splits": " ".join(map(str, part)),
                "runs": sum(map(len, part.values())),
                **_without_count(summary),
                "seed_deviation": spread.seed,
                "split_deviation": spread.split,
                "seeds": " ".join(str(s) for s in sorted({k.seed for k in values if k.split in part})),
            }


def _summary(by_split: Mapping[Any, Sequence[float]]) -> Summary:
    """Of the values on one split, or of the means of several: values on one are not independent."""
    if len(by_split) == 1:
        (values,) = by_split.values()
        return summarise(values)
    return summarise([*map(statistics.fmean, by_split.values())])


def _by_split(values: Mapping[Key, float]) -> dict[Any, list[float]]:
    found: dict[Any, list[float]] = defaultdict(list)
    for key, value in values.items():
        found[key.split].append(value)
    return found


def _without_count(summary: Summary) -> dict[str, float | None]:
    return {name: value for name, value in summary._asdict().items() if name != "n"}


def _measured(group: Group, metric: str) -> Measured:
    """The metric of each model and run; a line on stderr names runs that lack it."""
    found: Measured = {}
    for model in dict.fromkeys(name for run in group.runs.values() for name in run.scores):
        for key, run in group.runs.items():
            value = run.scores.get(model, {}).get(metric)
            if not isinstance(value, (int, float)):
                warn(f"{run.name} has no {metric} of {model}")
            else:
                found.setdefault(model, {})[key] = value
    return found


def comparison(one: str, other: str, metric: str, form: str) -> str:
    """Compare the settings of two experiments by runs of both with the same seeds.

    For each model, the mean of the paired differences, `other` minus `one`, with its interval by
    Student's t, and a sentence. With several splits, a difference is the mean of the pairs on one. All
    experiments of the project with the settings of the two count.

    Args:
        one, other: names of experiments, or revisions.
        form: as for `report`.

    Raises:
        ValueError: an experiment cannot be read, both have the same settings, or no seeds are in both.
    """
    revisions = [find(name) for name in (one, other)]
    for revision in revisions:
        if not revision.commit:
            raise ValueError("the workspace is no experiment yet: commit it, or `dvc exp save`")
    named = {revision.commit: revision for revision in [*experiments(), *revisions]}
    found = groups(sorted(named.values(), key=lambda revision: revision.time))
    first, second = (_group_of(revision, found) for revision in revisions)
    _warn_of_unknown({one: first.settings, other: second.settings})
    if first is second:
        raise ValueError(
            f"{one} and {other} differ in nothing but their seeds: there is nothing to compare"
        )
    if not (shared := [key for key in first.runs if key in second.runs]):
        raise ValueError(
            f"no run of {one} has the seeds of a run of {other}: {one} has {_listed(first.runs)}, "
            f"{other} has {_listed(second.runs)}. Run one of them with the seeds of the other: "
            "dvc exp run -S seed=..."
        )
    old, new = _measured(first, metric), _measured(second, metric)
    result = _compared(first, second, old, new, one, other, metric)
    if not result.rows:
        raise ValueError(f"{one} and {other} have no pair of runs with {metric}")
    if form == "csv":
        return table(result.rows, form)
    apart = differing([first.settings, second.settings])
    head = f"{other} minus {one}, {metric}. They differ in: {_settings(apart)}."
    told = [result.verdict, head, table(result.rows, form), "\n".join(result.told)]
    splitting = [name for name in apart if any(decides_split(name, key.split) for key in shared)]
    if splitting:
        told.append(f"The test titles of a pair may differ, as do {', '.join(splitting)}.")
    alone = {
        name: {key: run for key, run in group.runs.items() if key not in shared}
        for name, group in ((one, first), (other, second))
    }
    if any(alone.values()):
        left = "; ".join(f"{_listed(runs)} of {name}" for name, runs in alone.items() if runs)
        told.append(f"Left out, as the other has no run with these seeds: {left}.")
    return "\n\n".join(told)


class Comparison(NamedTuple):
    """Two groups in pairs of equal seeds. verdict: one sentence, on the average of the networks where
    there is one. rows, told: a row of the table and a sentence for each model."""

    verdict: str
    rows: list[dict[str, Any]]
    told: list[str]


def _compared(
    first: Group, second: Group, old: Measured, new: Measured, one: str, other: str, metric: str
) -> Comparison:
    shared = [key for key in first.runs if key in second.runs]
    rows, told, verdicts = [], [], {}
    for model in {**old, **new} if shared else ():
        before, after = old.get(model, {}), new.get(model, {})
        if not (pairs := [key for key in shared if key in before and key in after]):
            warn(f"{model} is left out: no pair of runs has its {metric}")
            continue
        difference = _by_split({key: after[key] - before[key] for key in pairs})
        summary = _summary(difference)
        rows.append(
            {
                "network": model,
                "pairs": len(pairs),
                f"mean of {one}": _summary(_by_split({key: before[key] for key in pairs})).mean,
                f"mean of {other}": _summary(_by_split({key: after[key] for key in pairs})).mean,
                "difference": summary.mean,
                **{k: v for k, v in _without_count(summary).items() if k != "mean"},
                "split_deviation": components(difference).split,
                "splits": " ".join(map(str, difference)),
                "seeds": " ".join(map(str, sorted({key.seed for key in pairs}))),
            }
        )
        of = f"{len(difference)} splits" if len(difference) > 1 else f"{len(pairs)} pairs"
        verdict = _verdict(summary, f"{of} of equal seeds", one, other, metric)
        told.append(f"{model}: {verdict}.")
        whole = "the average of all networks" if model == AVERAGE else model
        verdicts[model] = f"{verdict}: {metric} of {whole}."
    if not verdicts:
        return Comparison(
            f"{one} and {other} have no runs with equal seeds to compare in pairs.", [], []
        )
    return Comparison(verdicts.get(AVERAGE, next(iter(verdicts.values()))), rows, told)


def _verdict(difference: Summary, of: str, one: str, other: str, metric: str) -> str:
    _, mean, deviation, low, high = difference
    if low is None or high is None:
        return f"{other} and {one} cannot be told apart by one pair of runs, {mean:+.4f}"
    if mean == deviation == 0:
        return f"{other} is the same as {one} in all {of}"
    told = f"{mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {of})"
    if low <= 0 <= high:
        return f"{other} is not distinguishable from {one}, {told}"
    better = (mean > 0) != (metric in _COSTS)
    return f"{other} is {'better' if better else 'worse'} than {one}, {told}"


def _group_of(revision: Revision, found: Sequence[Group]) -> Group:
    _ = revision.scores  # an experiment that was asked for is not left out
    settings, _ = _identity(revision)
    return next(group for group in found if _same(group.settings) == _same(settings))


def _settings(apart: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{name} {shown(old)} -> {shown(new)}" for name, (old, new) in apart.items())


def _listed(runs: Iterable[Key]) -> str:
    return ", ".join(f"seed {key.seed} on split {key.split}" for key in runs)
