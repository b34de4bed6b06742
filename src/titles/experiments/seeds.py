"""What the seed alone makes of the measures: experiments that differ in nothing else, summarised."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from titles.experiments.revisions import (
    NETWORKS,
    experiments,
    git,
    inputs_of,
    params_of,
    scores_of,
    table,
)
from titles.params import Params


class Summary(NamedTuple):
    """Of n values. deviation: of the sample, over n - 1. low, high: 95 % interval of the mean, by t.

    With one value only the mean is known; the others are None.
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
    from scipy.stats import t

    deviation = statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, mean - half, mean + half)


class Run(NamedTuple):
    """An experiment that is done. code: a hash of its code and inputs."""

    name: str
    params: Params
    code: str
    scores: Mapping[str, Mapping[str, float]]


class Group(NamedTuple):
    """Runs that differ in the seed alone, one a seed. settings: what other groups have otherwise."""

    settings: dict[str, str]
    runs: dict[int, Run]


def runs_on(baseline: str) -> list[Run]:
    """Experiments on a commit that have measures, in order of time."""
    found = []
    for experiment in experiments(baseline):
        params, scores = params_of(experiment.revision), scores_of(experiment.revision)
        if params is not None and scores is not None:
            code = git("ls-tree", experiment.revision, *inputs_of(params))
            digest = hashlib.sha256(code.encode()).hexdigest()[:7]
            found.append(Run(experiment.name, params, digest, scores))
    return found


def groups(runs: Sequence[Run]) -> list[Group]:
    """Put runs that differ in the seed alone together, the most seeds first.

    Of two runs with one seed the later one counts.
    """
    together: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        key = run.params.model_copy(update={"seed": 0}).model_dump_json() + run.code
        together[key][run.params.seed] = run
    flat = [_flat(next(iter(members.values()))) for members in together.values()]
    differing = [key for key in (flat[0] if flat else {}) if len({str(f[key]) for f in flat}) > 1]
    found = [
        Group({key: str(values[key]) for key in differing}, dict(sorted(members.items())))
        for values, members in zip(flat, together.values(), strict=True)
    ]
    return sorted(found, key=lambda group: -len(group.runs))


def _flat(run: Run) -> dict[str, Any]:
    sections = run.params.model_dump(mode="json", exclude={"seed"}).items()
    flat = {f"{section}.{key}": value for section, keys in sections for key, value in keys.items()}
    return flat | {"code": run.code}


def rows(groups_: Sequence[Group], metric: str) -> list[dict[str, Any]]:
    """One row a group and network, with a `Summary` in columns and the seeds it is of."""
    found: list[dict[str, Any]] = []
    for group in groups_:
        for network in NETWORKS:
            values = [run.scores[network][metric] for run in group.runs.values()]
            summary = summarise(values)
            found.append(
                {
                    **group.settings,
                    "network": network,
                    "n": summary.n,
                    "mean": summary.mean,
                    "deviation": summary.deviation,
                    "low": summary.low,
                    "high": summary.high,
                    "seeds": " ".join(map(str, group.runs)),
                }
            )
    return found


def shown(rows_: Sequence[Mapping[str, Any]], form: str) -> str:
    """Rows for people: "simple" for the terminal, "github" for Markdown; or all digits, as "csv"."""
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows_[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows_)
        return text.getvalue().rstrip("\n")
    return table([_readable(row) for row in rows_], form)


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    low, high = row["low"], row["high"]
    numbers = {"mean": number(row["mean"]), "deviation": number(row["deviation"])}
    interval = "-" if low is None else f"{number(low)} .. {number(high)}"
    result: dict[str, str] = {}
    for key, value in row.items():
        if key == "low":
            result["95 % interval"] = interval
        elif key != "high":
            result[key] = numbers.get(key, str(value))
    return result


def report(baseline: str, metric: str, form: str) -> str:
    """The summary of the experiments on a commit.

    Raises:
        ValueError: there are none.
    """
    found = groups(runs_on(baseline))
    if not found:
        raise ValueError(
            f"there are no experiments on {baseline[:7]} to summarise. To get some: "
            "dvc exp run --queue -S 'seed=1,2,3' && dvc queue start, and this again once "
            "`dvc queue status` shows them done"
        )
    return shown(rows(found, metric), form)
