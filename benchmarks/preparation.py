"""Compare the time and memory of `prepare` with the course's method on the same rows.

    python benchmarks/preparation.py --rows 10000000

The course's method, reimplemented: pandas reads the file, a Python function normalises and NLTK
tokenises one title after another through `apply`, a gensim Dictionary gives ids to words, and each title
becomes a list of ids.
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import re
import tempfile
import time
import unicodedata
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from gensim.corpora import Dictionary
from measure import MIB, peak_memory
from nltk.tokenize import NLTKWordTokenizer

from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder
from titles.datasets.sample import write_csv
from titles.models.registry import load_params
from titles.prepare.preparation import prepare

_PEER_ROWS = 200_000
_BASE_ROWS = 1_000_000


def prepare_as_course(source: Path) -> int:
    """Prepare rows with the course's method; returns the size of the vocabulary."""
    rows = pd.read_csv(source)
    tokeniser = NLTKWordTokenizer()
    no_letter = re.compile(r"[^a-z0-9 ]")

    def words(title: str) -> list[str]:
        text = unicodedata.normalize("NFKD", title.lower()).encode("ascii", "ignore").decode()
        return list(tokeniser.tokenize(no_letter.sub(" ", text)))

    tokenised = rows["title"].apply(words)
    dictionary = Dictionary(tokenised)
    dictionary.filter_extremes(no_below=2, no_above=1, keep_n=200_000)
    rows["data"] = tokenised.apply(lambda title: dictionary.doc2idx(title, unknown_word_index=1))
    rows["target"] = rows["category"].astype("category").cat.codes
    return len(dictionary)


def head(source: Path, rows: int, target: Path) -> Path:
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        out.writelines(islice(lines, rows + 1))
    return target


def timed_prepare(source: Path, folder: Path) -> tuple[float, float]:
    """Run `prepare`; returns seconds and peak MiB."""
    params = load_params()
    started = time.perf_counter()
    with peak_memory() as peak, atomic_folder(folder) as partial:
        prepare(params.prepare.model_copy(update={"source": str(source)}), partial)
    return time.perf_counter() - started, peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the largest run")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="titles-bench-") as name:
        folder = Path(name)
        full = folder / "full.csv"
        write_csv(rows, 2019, full)
        print("| run | seconds | rows per second | microseconds per row | peak MiB |")
        print("|---|---|---|---|---|")

        def show(title: str, count: int, seconds: float, memory: float) -> None:
            print(
                f"| {title} | {seconds:.1f} | {count / seconds:,.0f} | {seconds / count * 1e6:.2f} "
                f"| {memory:,.0f} |",
                flush=True,
            )

        small = head(full, _PEER_ROWS, folder / "small.csv")
        started = time.perf_counter()
        with peak_memory() as peak:
            prepare_as_course(small)
        course = time.perf_counter() - started
        show(f"the course's method, {_PEER_ROWS:,} rows", _PEER_ROWS, course, peak[0])
        costs = {}
        for count in (_PEER_ROWS, min(_BASE_ROWS, rows), rows):
            source = full if count == rows else head(full, count, folder / "part.csv")
            seconds, memory = timed_prepare(source, folder / "prepared")
            costs[count] = seconds / count
            show(f"prepare, {count:,} rows", count, seconds, memory)
        base = min(_BASE_ROWS, rows)
        before = psutil.Process().memory_info().rss
        started = time.perf_counter()
        train = EncodedTitles.open(folder / "prepared" / "train")
        train.words(np.arange(256))
        seconds = time.perf_counter() - started
        held = (psutil.Process().memory_info().rss - before) / MIB
        show(f"opening train, {len(train):,} rows", len(train), seconds, held)
        peer = course / _PEER_ROWS
        print(
            f"\nprepare is {peer / costs[base]:.1f} times as fast as the course's method "
            f"({peer / costs[_PEER_ROWS]:.1f} times for {_PEER_ROWS:,} rows and startup).\n"
            f"Time per row at {rows:,} rows: {costs[rows] / costs[base]:.2f} times that at {base:,}."
        )


if __name__ == "__main__":
    main()
