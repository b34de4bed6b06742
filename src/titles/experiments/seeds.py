"""The spread of measures over seeds: experiments that differ only in the seed, summarised."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from titles.experiments.commands import git
from titles.experiments.store import Revision, canonical, experiments


class Summary(NamedTuple):
    """Of n values. deviation: of the sample, over n - 1. low, high: 95 % interval of the mean, by t.

    Only the mean is known of a single value; the others are None.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Raises ValueError if there are no values."""
    if not values:
        raise ValueError("there are no values to summarise")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Summary(1, mean, None, None, None)
    from scipy.special import stdtrit  # quantiles of Student's t; scipy.stats takes seconds to import

    deviation = statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, mean - half, mean + half)


class Group(NamedTuple):
    """Experiments that differ only in the seed. settings: where they differ from other groups."""

    settings: dict[str, Any]
    runs: dict[int, Revision]


def groups(baseline: str) -> list[Group]:
    """The experiments on a commit that have measures, grouped; most seeds first.

    Of two experiments with the same seed, the later one counts.
    """
    together: dict[frozenset[tuple[str, Any]], dict[int, Revision]] = defaultdict(dict)
    names: dict[str, None] = {}
    for experiment in experiments(baseline):
        try:
            params, _ = experiment.params, experiment.scores
            seed = params["seed"]
        except (ValueError, KeyError):
            continue
        settings = {name: canonical(value) for name, value in params.items() if name != "seed"}
        settings["code"] = hashlib.sha256(
            git("ls-tree", experiment.commit, *experiment.inputs).encode()
        ).hexdigest()[:7]
        names |= dict.fromkeys(settings)
        key = frozenset((k, str(v) if isinstance(v, list) else v) for k, v in settings.items())
        together[key][seed] = experiment
    found = [(dict(key), runs) for key, runs in together.items()]
    differing = [name for name in names if len({values.get(name) for values, _ in found}) > 1]
    grouped = [
        Group({name: values.get(name) for name in differing}, dict(sorted(runs.items())))
        for values, runs in found
    ]
    return sorted(grouped, key=lambda group: -len(group.runs))


def _rows(group: Group, metric: str) -> Iterator[dict[str, Any]]:
    """For each model, a `Summary` in columns and its seeds."""
    scores = {seed: run.scores for seed, run in group.runs.items()}
    for model in dict.fromkeys(name for models in scores.values() for name in models):
        measured = {s: m[model][metric] for s, m in scores.items() if metric in m.get(model, {})}
        if measured:
            summary = summarise(list(measured.values()))._asdict()
            yield {**group.settings, "network": model, **summary, "seeds": " ".join(map(str, measured))}


def _readable(row: dict[str, Any]) -> dict[str, str]:
    def number(name: str) -> str:
        return "-" if row[name] is None else f"{row[name]:.4f}"

    interval = "-" if row["low"] is None else f"{number('low')} .. {number('high')}"
    shown = {name: str(value) for name, value in row.items() if name != "high"}
    shown |= {"mean": number("mean"), "deviation": number("deviation"), "low": interval}
    return {"95 % interval" if name == "low" else name: value for name, value in shown.items()}


def report(baseline: str, metric: str, form: str) -> str:
    """Summarise the experiments on a commit, one row per group and model.

    Args:
        form: "simple" for the terminal, "github" for Markdown, or "csv" with all digits.

    Raises:
        ValueError: there are none.
    """
    rows = [row for group in groups(baseline) for row in _rows(group, metric)]
    if not rows:
        raise ValueError(
            f"there are no experiments on {baseline[:7]} to summarise. To get some: "
            "dvc exp run --queue -S 'seed=1,2,3' && dvc queue start, and this again once "
            "`dvc queue status` shows them done"
        )
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    return str(tabulate(map(_readable, rows), headers="keys", tablefmt=form, disable_numparse=True))
