"""The spread of measures over seeds, and the comparison of two settings by runs with equal seeds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from titles.experiments.commands import git, project, warn
from titles.experiments.older import BY_WORDS
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

SEED = "seed"
# Of which less is better.
_COSTS = ("loss", "calibration_error")
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

    Args:
        form: "simple" for the terminal, "github" for Markdown, or "csv" with all digits.

    Raises:
        ValueError: there are none.
    """
    found = groups(experiments(baseline))
    _warn_of_unknown({next(iter(group.runs.values())).name: group.settings for group in found})
    apart = differing([group.settings for group in found])
    rows = [
        {**{name: values[place] for name, values in apart.items()}, **row}
        for place, group in enumerate(found)
        for row in _rows(group, metric)
    ]
    if not rows:
        raise ValueError(
            f"there are no experiments on {baseline[:7]} to summarise. To get some: "
            "dvc exp run --queue -S 'seed=1,2,3' && dvc queue start, and this again once "
            "`dvc queue status` shows them done"
        )
    return _table(rows, form) if form == "csv" else f"{_table(rows, form)}\n\n{_LEGEND}"


def _rows(group: Group, metric: str) -> Iterator[dict[str, Any]]:
    for model, values in _measured(group, metric).items():
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


def _measured(group: Group, metric: str) -> dict[str, dict[Key, float]]:
    """The metric of each model and run; a line on stderr names runs that lack it."""
    found: dict[str, dict[Key, float]] = {}
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
    rows, told = [], []
    old, new = _measured(first, metric), _measured(second, metric)
    for model in {**old, **new}:
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
        told.append(f"{model}: {_sentence(summary, of, one, other, metric)}.")
    if not rows:
        raise ValueError(f"{one} and {other} have no pair of runs with {metric}")
    if form == "csv":
        return _table(rows, form)
    apart = differing([first.settings, second.settings])
    head = f"{other} minus {one}, {metric}. They differ in: {_settings(apart)}."
    told_of = [head, _table(rows, form), "\n".join(told)]
    splitting = [name for name in apart if any(decides_split(name, key.split) for key in shared)]
    if splitting:
        told_of.append(f"The test titles of a pair may differ, as do {', '.join(splitting)}.")
    return "\n\n".join(told_of)


def _group_of(revision: Revision, found: Sequence[Group]) -> Group:
    _ = revision.scores  # an experiment that was asked for is not left out
    settings, _ = _identity(revision)
    return next(group for group in found if _same(group.settings) == _same(settings))


def _sentence(difference: Summary, of: str, one: str, other: str, metric: str) -> str:
    _, mean, deviation, low, high = difference
    if low is None or high is None:
        return f"not shown, {mean:+.4f} on the only pair of runs: an interval needs two or more"
    if mean == deviation == 0:
        return f"the same in all {of}"
    told = f"{mean:+.4f} (95 % from {low:+.4f} to {high:+.4f}, {of})"
    if low <= 0 <= high:
        return f"neither is surely better, {told}"
    better = other if (mean > 0) != (metric in _COSTS) else one
    return f"{better} is better, {told}"


def _settings(apart: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{name} {_text(old)} -> {_text(new)}" for name, (old, new) in apart.items())


def _listed(runs: Iterable[Key]) -> str:
    return ", ".join(f"seed {key.seed} on split {key.split}" for key in runs)


def _text(value: object) -> str:
    return "not set" if value is None else str(value)


def _table(rows: Sequence[dict[str, Any]], form: str) -> str:
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    return str(tabulate(map(_readable, rows), headers="keys", tablefmt=form, disable_numparse=True))


def _readable(row: dict[str, Any]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in row.items():
        if name.endswith("_deviation"):
            shown[name.replace("_", " ")] = "not measured" if value is None else f"{value:.4f}"
        elif name == "low":
            interval = "-" if value is None else f"{value:.4f} .. {row['high']:.4f}"
            shown["95 % interval"] = interval
        elif name == "deviation" and value is None:
            shown[name] = "-"
        elif name != "high":
            # Settings come before the network and keep their digits.
            measured = isinstance(value, float) and name in _after(row)
            shown[name] = f"{value:.4f}" if measured else _text(value)
    return shown


def _after(row: Mapping[str, Any]) -> list[str]:
    names = list(row)
    return names[names.index("network") :]
