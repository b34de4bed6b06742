"""Latency of a loaded model for one title, from raw text to its five likeliest categories.

    python benchmarks/latency.py

The models take turns on each title, so that other load on the machine affects all of them; none sees a
title twice. Prints Markdown. Wall-clock time includes waiting; thread time is the calling thread's CPU
time.
"""

from __future__ import annotations

# Before torch, since it sets environment variables that torch's threads read.
import titles.stages  # noqa: F401

# isort: split
import argparse
import gc
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from titles.data import processor
from titles.listings.files import format_of, opened
from titles.predict.classifier import Classifier

MODELS = ["cnn", "mlp", "average"]
MILLISECOND = 1e6  # nanoseconds
WARM_UP = 300  # titles that are not measured, which compile loops and fill caches


def read_titles(file: Path, column: str, count: int) -> list[str]:
    """Read distinct titles, spread evenly over the file.

    Raises:
        ValueError: the file cannot be read, or has too few titles.
    """
    with opened(file, format_of(file, "--file"), column, []) as listing:
        found = list(dict.fromkeys(t for chunk in listing.chunks for t in chunk.titles if t))
    if len(found) < count:
        raise ValueError(f"{file} has {len(found):,} distinct titles: {count:,} are needed")
    return [found[place] for place in np.linspace(0, len(found) - 1, count, dtype=np.int64)]


def times(classifiers: Sequence[Classifier], titles: Sequence[str]) -> NDArray[np.float64]:
    """Milliseconds of wall-clock and thread time, (models, titles, 2)."""
    spent = np.empty((len(classifiers), len(titles), 2), np.int64)
    for row, title in enumerate(titles):
        for turn in range(len(classifiers)):
            number = (row + turn) % len(classifiers)
            top, given = classifiers[number].top, [title]
            thread, wall = time.thread_time_ns(), time.perf_counter_ns()
            top(given)
            spent[number, row] = time.perf_counter_ns() - wall, time.thread_time_ns() - thread
    return spent / MILLISECOND


def report(options: argparse.Namespace) -> Iterator[str]:
    torch.set_num_threads(options.threads)
    classifiers = [Classifier.read(options.models, name, torch.device("cpu")) for name in MODELS]
    titles = read_titles(options.file, options.column, options.titles + WARM_UP)
    order = np.random.default_rng(0).permutation(len(titles))
    titles = [titles[place] for place in order]
    # As `titles predict` does.
    gc.freeze()
    times(classifiers, titles[:WARM_UP])
    spent = times(classifiers, titles[WARM_UP:])

    command = shlex.join(["python", "benchmarks/latency.py", *sys.argv[1:]])
    first = classifiers[0]
    words = [word for title in titles[WARM_UP:] for word in first.words(title)]
    unknown = sum(not first.knows(word) for word in words) / max(len(words), 1)
    length = len(words) / options.titles
    yield (
        f"Made by `{command}` on {processor.model_name()}; torch threads: {options.threads}. "
        f"{options.titles:,} titles, one at a time, of {length:.1f} words on average ({unknown:.1%} of "
        f"them unknown); {len(first.labels):,} categories. Milliseconds per title."
    )
    yield ""
    yield "| model | wall p50 | wall p99 | thread p50 | thread p99 | titles per second |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, spent_N2 in zip(MODELS, spent, strict=True):
        wall, thread = np.percentile(spent_N2, [50, 99], axis=0).T
        rate = 1000 / spent_N2[:, 0].mean()
        cells = [f"{value:.2f}" for value in (*wall, *thread)]
        yield f"| {name} | {' | '.join(cells)} | {rate:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="trained networks")
    parser.add_argument("--file", type=Path, default=Path("data/raw/sample.csv.gz"), help="titles")
    parser.add_argument("--column", default="title", help="column of titles")
    parser.add_argument("--titles", type=int, default=5000, help="number of titles")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    if options.titles < 1 or options.threads < 1:
        parser.error("--titles and --threads must be at least 1")
    try:
        for line in report(options):
            print(line)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
