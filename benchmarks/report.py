"""The report on all datasets: a page of tables and a chart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import numpy as np
from chart import DOCS, accuracy_time, draw
from measure import MIB
from results import Case, Result, read_result

from titles.data.files import atomic_file
from titles.data.outcomes import Ints
from titles.evaluation.metrics import bootstrap_interval
from titles.models.registry import load_params

OURS = {"cnn": "CNN", "mlp": "MLP", "average": "CNN and MLP averaged"}
PEERS = {
    "fasttext": "fastText",
    "svm": "TF-IDF words and characters, linear SVM",
    "sgd": "TF-IDF words and characters, SGD",
}

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
alternative. Model size is that of the files or the pickle.

The defaults of params.yaml were chosen on the first seeds of sample-60000 and sample-600000 and on the
real datasets, with their test scores in view (LOG.md); the other seeds influenced no decision. The
linear classifiers use class weights, which fastText does not support: dividing its probabilities by
the category frequencies would add about 0.06 on the sample."""

_CAPTION = "Scores on test with their intervals; the networks of this project are circles."


class SetResults:
    """The results on a dataset by classifier and seed, if they used the same rows as our networks."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.name = cases[0].name
        self.found: dict[str, dict[int, Result]] = {name: {} for name in (*OURS, *PEERS)}
        self.missing: list[str] = []
        for case in cases:
            own = read_result(case, "average")
            for name, by_seed in self.found.items():
                result = read_result(case, name)
                if result and own and result.rows == own.rows:
                    by_seed[case.seed] = result
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


def own_interval(results: Sequence[Result]) -> tuple[float, float]:
    return interval([(r.labels_N, r.right_N.astype(np.int64)) for r in results])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def scores(found: SetResults) -> str:
    """A table with a row per classifier."""
    rows = []
    for name, title in (OURS | PEERS).items():
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


def difference(found: SetResults) -> str:
    """Our best by validation score minus the best peer by test score, which favours the peer."""
    own = found.best(OURS, lambda result: result.validation)
    peer = found.best(PEERS, lambda result: result.test)
    if own is None or peer is None:
        return ""
    ours, theirs = found.found[own], found.found[peer]
    pairs = {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}
    low, high = interval(
        [
            (a.labels_N, a.right_N.astype(np.int64) - b.right_N.astype(np.int64))
            for a, b in pairs.values()
        ]
    )
    by_seed = {seed: a.test - b.test for seed, (a, b) in pairs.items()}
    text = (
        f"{OURS[own]} (chosen on validation) minus {PEERS[peer]} (the best alternative on test), on the "
        f"same titles: **{np.mean(list(by_seed.values())):+.4f}**, "
        f"95 % interval {low:+.4f} .. {high:+.4f}."
    )
    if len(by_seed) > 1:
        text += " By seed: " + ", ".join(f"{seed} {value:+.4f}" for seed, value in by_seed.items()) + "."
    return text


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
    for name, title in PEERS.items():
        if not (results := found.of(name)):
            continue
        first = results[0]
        for trial in first.trials:
            setting = ", ".join(f"{key} {value}" for key, value in trial["setting"].items())
            best = trial["setting"] == first.setting
            score = f"{trial['validation']:.4f}" if "validation" in trial else trial["note"]
            seconds = f"{trial['seconds']:,.1f}" if "seconds" in trial else ""
            rows.append([title, setting, score, seconds, "best" if best else ""])
    budget = max((r.budget for name in PEERS for r in found.of(name)), default=0)
    return (
        "Settings of the alternatives, tuned on validation with the first seed and kept for later seeds."
        f" Settings after the first were skipped if they had not started within {budget:,.0f} s:\n\n"
    ) + table(["classifier", "setting", "validation", "fit s", ""], rows)


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
            difference(found),
            stages(found),
            searches(found),
        ]
    return "\n\n".join(parts)


def write_report(cases: Sequence[Case], command: str) -> None:
    """Write docs/benchmark.md and its chart from the available results; prints the page.

    Args:
        command: the command that makes the report, for the page.
    """
    sets = [SetResults(list(group)) for _, group in groupby(cases, lambda case: case.name)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    page = "\n\n".join(
        [
            "# Accuracy and time, compared with other classifiers",
            f"```bash\npip install -r benchmarks/requirements.txt\n{command}\n```",
            f"{_INTRODUCTION} {cores} CPU core{'s' * (cores != 1)}.",
            "![Balanced accuracy against training time](accuracy_time.png)",
            _CAPTION,
            *map(section, sets),
        ]
    )
    DOCS.mkdir(exist_ok=True)
    with atomic_file(DOCS / "benchmark.md") as partial:
        partial.write_text(page + "\n", encoding="utf-8")
    draw(accuracy_time(page), DOCS / "accuracy_time.png")
    print(page)
