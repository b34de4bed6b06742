"""The report on all datasets: a page of tables and a chart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from chart import DOCS, accuracy_time, draw, learning_curve
from classifiers import OURS, PEERS
from measure import MIB
from results import Case, Result, read_failure, read_result

from titles.data.files import atomic_file
from titles.data.outcomes import Ints
from titles.evaluation.metrics import bootstrap_interval
from titles.models.registry import load_params

_INTRODUCTION = """\
Balanced accuracy on the test split, mean over the seeds. Intervals are 95 % bootstrap intervals,
resampled within categories; for several seeds, all their titles are pooled, with separate categories
per seed. They show the uncertainty of the mean for these trainings; the differences by seed show the
effect of trainings and splits. All classifiers use the same rows.

The training time of the networks is that of the stages prepare, embed and train, as separate commands
from the file to the model, startup included. That of the alternatives is the time to build features and
fit the best setting in a running process. Neither includes the search for settings. Training rows/s are
training rows divided by that time; prediction rows/s are for test titles, from raw text to category.
Memory is the peak of all processes together, in the heaviest stage or in the whole run of an
alternative. Model size is that of the files or the pickle, with that of the sentence encoder.

Settings of alternatives are chosen on validation. One of them is whether the probabilities of a
classifier that gives any are divided by the categories' shares of the training rows
(`prior_corrected`), as balanced accuracy wants it; another is, for most, whether categories are
weighted in training.

Many defaults of params.yaml were chosen on the first seeds of sample-60000 and sample-600000 and on the
whole real datasets, with their test scores in view. Those that this comparison led to (`epochs`,
`dropout`, `heads`, the learning rate of the CNN) were chosen on validation rows of samples drawn with
other seeds, and of real datasets and their cuts split with other seeds (LOG.md). Second and third seeds
influenced no decision.

A dataset named `-cut-` has that many of the training rows of another, drawn by the seed, with the same
shares of categories; vocabulary and word vectors come from these rows only. Validation and test are
whole."""

_CAPTION = "Scores on test with their intervals; the networks of this project are circles."
_CURVE = """\
Balanced accuracy against training rows: the average of both networks and the alternatives with the
highest means."""
_SUMMARY = """\
Balanced accuracy on test of the average of both networks and of each alternative; those above the
average are bold with a `>`. Means are of datasets on which all have a score. The sentence encoder
learned from other text before."""
_PAIRED = """\
The average minus an alternative, on the same titles. The alternative without borrowed knowledge has the
highest score on validation; that with the sentence encoder the highest on test, which favours it."""


class SetResults:
    """The results on a dataset by classifier and seed, if they used the same rows as our networks."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.name = cases[0].name
        self.found: dict[str, dict[int, Result]] = {name: {} for name in (*OURS, *PEERS)}
        self.missing: list[str] = []
        self.failed: dict[str, str] = {}
        for case in cases:
            own = read_result(case, "average")
            for name, by_seed in self.found.items():
                result = read_result(case, name)
                if result and own and result.rows == own.rows:
                    by_seed[case.seed] = result
                elif error := read_failure(case, name):
                    self.failed[name] = error
                else:
                    self.missing.append(f"{name} with seed {case.seed}")

    def of(self, name: str) -> list[Result]:
        return list(self.found[name].values())

    def best(self, names: Iterable[str], score: Callable[[Result], float]) -> str | None:
        """The name of the classifier with the highest mean; None without results."""
        means = {n: np.mean([score(result) for result in self.of(n)]) for n in names if self.of(n)}
        return max(means, key=lambda name: means[name]) if means else None


def interval(scores: Sequence[tuple[Ints, Ints]]) -> tuple[float, float]:
    """95 % interval of the mean over seeds, each given by labels_N and scores_N of -1, 0 or 1."""
    size = max(int(labels_N.max()) for labels_N, _ in scores) + 1
    labels = np.concatenate([labels_N + place * size for place, (labels_N, _) in enumerate(scores)])
    score = np.concatenate([score_N for _, score_N in scores]).astype(np.int8)
    # Exclude categories without a title in a seed's test split.
    _, labels = np.unique(labels, return_inverse=True)
    return bootstrap_interval(labels, score, load_params().evaluate.bootstrap_samples, 2019)


def _titles() -> dict[str, str]:
    return OURS | {name: peer.title for name, peer in PEERS.items()}


def own_interval(results: Sequence[Result]) -> tuple[float, float]:
    return interval([(r.labels_N, r.right_N.astype(np.int64)) for r in results])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def scores(found: SetResults) -> str:
    """A table with a row per classifier."""
    rows = []
    for name, title in _titles().items():
        if name in found.failed:
            told = found.failed[name].replace("|", "\\|")
            rows.append([title, f"not run: {told}", *[""] * 6])
        if not (results := found.of(name)):
            continue
        low, high = own_interval(results)
        seconds = np.mean([r.train_seconds for r in results])
        rows.append(
            [
                f"**{title}**" if name in OURS else title,
                f"{np.mean([r.test for r in results]):.4f}",
                f"{low:.4f} .. {high:.4f}",
                f"{seconds:,.1f}",
                f"{np.mean([r.train_rows / r.train_seconds for r in results]):,.0f}",
                f"{np.mean([len(r.labels_N) / r.predict_seconds for r in results]):,.0f}",
                f"{max(r.peak_mib for r in results):,.0f}",
                f"{np.mean([r.size_bytes for r in results]) / MIB:,.1f}",
            ]
        )
    header = ["classifier", "balanced accuracy", "95 % interval", "training s", "training rows/s"]
    return table([*header, "prediction rows/s", "peak MiB", "model MiB"], rows)


class Difference(NamedTuple):
    """Our average minus a peer: by seed, and the interval of the mean."""

    peer: str
    by_seed: dict[int, float]
    low: float
    high: float

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values())))


def difference(found: SetResults, borrowed: bool) -> Difference | None:
    """The best peer without borrowed knowledge by validation, or with it by test, which favours it."""
    peers = [name for name, peer in PEERS.items() if peer.borrowed == borrowed]
    name = found.best(peers, lambda result: result.test if borrowed else result.validation)
    if name is None or not found.of("average"):
        return None
    ours, theirs = found.found["average"], found.found[name]
    pairs = {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}
    low, high = interval(
        [
            (a.labels_N, a.right_N.astype(np.int64) - b.right_N.astype(np.int64))
            for a, b in pairs.values()
        ]
    )
    return Difference(name, {seed: a.test - b.test for seed, (a, b) in pairs.items()}, low, high)


def differences(found: SetResults) -> str:
    """Sentences on both differences."""
    lines = []
    for borrowed in (False, True):
        one = difference(found, borrowed)
        if one is None:
            continue
        chosen = "the best with the sentence encoder" if borrowed else "chosen on validation"
        text = (
            f"{OURS['average']} minus {PEERS[one.peer].title} ({chosen}), on the same titles: "
            f"**{one.mean:+.4f}**, 95 % interval {one.low:+.4f} .. {one.high:+.4f}."
        )
        if len(one.by_seed) > 1:
            told = (f"{seed} {value:+.4f}" for seed, value in one.by_seed.items())
            text += f" By seed: {', '.join(told)}."
        lines.append(text)
    return "\n\n".join(lines)


def machines(sets: Sequence[SetResults]) -> str:
    """On what the results were made: a run that was interrupted may have gone on elsewhere."""
    by_classifier = (results for found in sets for results in found.found.values())
    found = sorted({result.machine for results in by_classifier for result in results.values()} - {""})
    told = "Made on several machines, whose times do not compare:" if len(found) > 1 else "Made on"
    return f"{told} {'; and on '.join(found)}." if found else ""


def summary(sets: Sequence[SetResults]) -> str:
    """A table of all scores, and one of the differences."""
    names = [name for name in ("average", *PEERS) if any(found.of(name) for found in sets)]
    scored = [found for found in sets if found.of("average")]
    means = {
        found.name: {
            name: float(np.mean([result.test for result in found.of(name)]))
            for name in names
            if found.of(name)
        }
        for found in scored
    }
    whole = [by_name for by_name in means.values() if len(by_name) == len(names)]
    if len(whole) > 1:
        title = f"mean of {len(whole)}"
        means[title] = {name: float(np.mean([one[name] for one in whole])) for name in names}

    def cell(by_name: Mapping[str, float], name: str) -> str:
        if name not in by_name:
            return ""
        is_above = name != "average" and by_name[name] > by_name["average"]
        return f"**{by_name[name]:.4f}** >" if is_above else f"{by_name[name]:.4f}"

    rows = [[title, *(cell(by_name, name) for name in names)] for title, by_name in means.items()]
    header = ["dataset", "average", *(PEERS[name].short for name in names if name != "average")]
    paired = []
    for found in scored:
        cells = [found.name]
        for borrowed in (False, True):
            one = difference(found, borrowed)
            told = f"{one.low:+.4f} .. {one.high:+.4f}" if one else ""
            cells += [PEERS[one.peer].short, f"{one.mean:+.4f}", told] if one else ["", "", ""]
        paired.append(cells)
    columns = ["average minus", "95 % interval"]
    heads = ["dataset", "without borrowed knowledge", *columns, "with it", *columns]
    parts = [_SUMMARY, table(header, rows), _PAIRED, table(heads, paired)]
    if failed := {name: error for found in sets for name, error in found.failed.items()}:
        parts.append(
            "\n".join(f"- {PEERS[name].title} was not run: {error}" for name, error in failed.items())
        )
    return "\n\n".join(parts)


def stages(found: SetResults) -> str:
    """A table of time and memory of our stages, mean over the seeds."""
    rows = []
    for stage in ("prepare", "embed", "train_cnn", "train_mlp"):
        results = found.of("average")
        seconds = float(np.mean([r.stages[stage][0] for r in results]))
        peak = max(r.stages[stage][1] for r in results)
        trained = found.of(stage.removeprefix("train_")) if stage.startswith("train_") else []
        epochs = np.mean([len(r.curve) for r in trained]) if trained else 0
        seen = (
            np.mean([r.train_rows * len(r.curve) / r.stages[stage][0] for r in trained])
            if trained
            else 0
        )
        shown = [f"{epochs:.1f}", f"{seen:,.0f}"] if trained else ["", ""]
        rows.append([stage, f"{seconds:,.1f}", *shown, f"{peak:,.0f}"])
    return table(["stage", "seconds", "epochs", "titles/s, all epochs", "peak MiB"], rows)


def searches(found: SetResults) -> str:
    """A table of each peer's grid with its results on the first seed."""
    rows = []
    for name, peer in PEERS.items():
        if not (results := found.of(name)):
            continue
        first = results[0]
        for trial in first.trials:
            setting = ", ".join(f"{key} {value}" for key, value in trial["setting"].items())
            best = trial["setting"] == first.setting
            score = f"{trial['validation']:.4f}" if "validation" in trial else trial["note"]
            seconds = f"{trial['seconds']:,.1f}" if "seconds" in trial else ""
            rows.append([peer.title, setting, score, seconds, "best" if best else ""])
    budget = max((r.budget for name in PEERS for r in found.of(name)), default=0)
    title = (
        "Settings of the alternatives, tuned on validation with the first seed and kept for later seeds."
        f" Settings after the first were skipped if they had not started within {budget:,.0f} s."
    )
    found_table = table(["classifier", "setting", "validation", "fit s", ""], rows)
    return f"<details><summary>{title}</summary>\n\n{found_table}\n\n</details>"


def section(found: SetResults) -> str:
    parts = [f"## {found.name}"]
    if found.missing:
        parts.append("Missing: " + ", ".join(found.missing) + ".")
    if results := found.of("average"):
        first, seeds = results[0], len(results)
        parts += [
            f"{first.train_rows:,} training titles, {len(first.labels_N):,} test titles, "
            f"{first.categories} categories" + (f" (first of {seeds} seeds)." if seeds > 1 else "."),
            scores(found),
            differences(found),
            stages(found),
            searches(found),
        ]
    return "\n\n".join(parts)


def write_report(cases: Sequence[Case], command: str) -> None:
    """Write docs/benchmark.md and its charts from the available results; prints the page.

    Args:
        command: the command that makes the report, for the page.
    """
    names = dict.fromkeys(case.name for case in cases)
    sets = [SetResults([case for case in cases if case.name == name]) for name in names]
    page = "\n\n".join(
        [
            "# Accuracy and time, compared with other classifiers",
            f"```bash\npython benchmarks/packages.py\n{command}\n```",
            _INTRODUCTION,
            machines(sets),
            "## Summary",
            summary(sets),
            "![Balanced accuracy against training rows](learning_curve.png)",
            _CURVE,
            "![Balanced accuracy against training time](accuracy_time.png)",
            _CAPTION,
            *map(section, sets),
        ]
    )
    DOCS.mkdir(exist_ok=True)
    with atomic_file(DOCS / "benchmark.md") as partial:
        partial.write_text(page + "\n", encoding="utf-8")
    draw(accuracy_time(page), DOCS / "accuracy_time.png")
    draw(learning_curve(page), DOCS / "learning_curve.png")
    print(page)
