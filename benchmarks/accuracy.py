"""Compare both networks with the usual alternatives, on exactly the same rows.

    python benchmarks/packages.py
    python benchmarks/accuracy.py

Datasets are samples of several sizes and, if there are any, CSV files of real listings; each also with
its training rows cut, while validation and test stay whole. Results are kept in .bench/: an interrupted
run resumes. A classifier whose package is missing is named in the tables. They go to docs/benchmark.md,
the charts to docs/accuracy_time.png and docs/learning_curve.png.
"""

from __future__ import annotations

import titles  # first: numpy's threads read its settings

# isort: split
import argparse
import csv
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cut
import numpy as np
from classifiers import PEERS
from measure import measured
from report import write_report
from results import Case, Result, read_result, write_failure, write_result
from rows import digest, digest_of_rows
from workspace import STAGES, Workspace

from titles.data import processor
from titles.data.contract import LABELS, PREPARED
from titles.data.encoded import EncodedTitles
from titles.data.files import read_lines
from titles.datasets.sample import write_csv

FIRST_SEED = 2019
SAMPLES = [(2_000, 3), (6_000, 3), (20_000, 3), (60_000, 3), (600_000, 1)]
CUTS = [3_000, 8_000]
LEAST_ROWS = 5_000
MOST_ROWS_SEARCHED = 200_000
BENCH = Path(".bench")
HERE = Path(__file__).resolve().parent


class Origin(NamedTuple):
    """The source of a case's rows: a file, or a sample of `rows` rows; or so many training rows of the
    case `whole`, which has this source."""

    file: Path | None
    rows: int
    cut: int = 0
    whole: Case | None = None

    def digest(self) -> str:
        return digest([self.file] if self.file else [], str(self.rows))


def sample(text: str) -> tuple[int, int]:
    """Parse ROWS:SEEDS of the command line."""
    rows, _, seeds = text.partition(":")
    return int(rows), int(seeds or 1)


def samples(wanted: Sequence[tuple[int, int]]) -> Iterator[tuple[Case, Origin]]:
    for rows, seeds in wanted:
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            yield Case(f"sample-{rows}", seed), Origin(None, rows)


def real(folder: Path, seeds: int) -> Iterator[tuple[Case, Origin]]:
    """Yield cases for each file with enough listings; prints which files are skipped, and why."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        say(f"SKIPPED: real listings, as {folder} has no .csv file")
    for file in files:
        with file.open(encoding="utf-8", newline="") as text:
            reader = csv.reader(text)
            header = next(reader, [])
            rows = sum(1 for _ in islice(reader, LEAST_ROWS))
        if not {"title", "category"} <= set(header):
            say(f"SKIPPED: {file}, which has no columns title and category")
        elif rows < LEAST_ROWS:
            say(f"SKIPPED: {file}, which has {rows} rows, fewer than {LEAST_ROWS}")
        else:
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                yield Case(file.stem, seed), Origin(file, 0)


def with_cuts(
    cases: Iterable[tuple[Case, Origin]], cuts: Sequence[int]
) -> Iterator[tuple[Case, Origin]]:
    """Yield each case, followed by its cuts. A sample has none: smaller ones are drawn."""
    for case, origin in cases:
        yield case, origin
        for size in cuts if origin.file else ():
            name = f"{case.name}-cut-{size}"
            yield Case(name, case.seed), origin._replace(cut=size, whole=case)


def is_cut(origin: Origin) -> bool:
    """Whether a case differs from that which it is cut from, as far as that has run."""
    whole = read_result(origin.whole, "average") if origin.whole else None
    return whole is None or origin.cut < whole.train_rows


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def machine() -> str:
    """What times depend on: the processor with its extensions, the cores of this process, and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor.machine(False)}; cores: {cores}; Python {platform.python_version()}"


def tuned_on(case: Case, origin: Origin, wanted: Sequence[tuple[int, int]]) -> Case:
    """The case on which the settings of peers are tuned.

    It has the first seed; if a sample is too large for a search, it is the largest smaller sample.
    """
    shorter = [rows for rows, _ in wanted if rows < MOST_ROWS_SEARCHED]
    if origin.rows >= MOST_ROWS_SEARCHED and shorter:
        return Case(f"sample-{max(shorter)}", FIRST_SEED)
    return Case(case.name, FIRST_SEED)


class Bench:
    """One dataset with one seed: our stages, our networks and the peers, skipping existing results."""

    def __init__(self, case: Case, origin: Origin, peers: Sequence[str], budget: float) -> None:
        self._case, self._origin, self._peers, self._budget = case, origin, peers, budget
        package = Path(titles.__file__).parent
        code = sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        key = digest([Path("params.yaml"), *code], origin.digest(), str(case.seed))
        self._whole = Workspace(BENCH / "work" / str(origin.whole or case), key, case.seed)
        self._key, self._workspace = key, self._whole
        if origin.cut:
            self._key = digest([HERE / "cut.py"], key, str(origin.cut))
            folder = BENCH / "work" / str(case)
            self._workspace = Workspace(folder, self._key, case.seed, cut.SETTINGS)

    def run(self, first: Case) -> int:
        """Compute missing results, if the case has more rows than its cut; returns the number of peers
        that failed, without those whose package is missing.

        Args:
            first: the case whose best settings are used without a search, see `tuned_on`.

        Raises:
            RuntimeError: one of our stages failed.
            ValueError: the cut has fewer rows than there are categories.
        """
        folder = self._workspace.folder
        self._whole.begin(self._source)
        self._stage("prepare", self._whole)
        if size := self._origin.cut:
            rows = len(EncodedTitles.open(self._whole.folder / PREPARED / "train"))
            if rows <= size:
                say(f"SKIPPED: {self._case}, as {self._origin.whole} has {rows:,} training rows")
                return 0
            whole, seed = self._whole.folder, self._case.seed
            self._workspace.begin(lambda into: cut.write(whole, size, seed, into))
            self._stage("prepare")
            cut.check(whole, folder, size)
        self._rows = digest_of_rows(folder, self._workspace.source)
        splits = {
            s: np.load(folder / PREPARED / s / "labels.npy", allow_pickle=False)
            for s in ("train", "test")
        }
        self._train_rows, self._labels_N = len(splits["train"]), splits["test"].astype(np.int64)
        self._categories = len(read_lines(folder / LABELS))
        own_key = digest([HERE / "ours.py"], self._key)
        if any(self._is_missing(name, own_key) for name in STAGES):
            self._networks(own_key)
        failures = 0
        for name in self._peers:
            tuned = read_result(first, name) if first != self._case else None
            setting = json.dumps(tuned.setting) if tuned else ""
            files = [*sorted(HERE.glob("peers*.py")), HERE / "requirements.txt", HERE / "search.py"]
            key = digest(files, self._rows, f"{self._budget:g}", setting)
            if self._is_missing(name, key):
                try:
                    self._peer(name, key, setting)
                except RuntimeError as error:
                    failures += 1
                    lines = str(error).splitlines()
                    code = lines[0].rpartition(" ended with ")[2]
                    write_failure(self._case, name, f"{code} {lines[-1].strip()}")
                    say(f"FAILED: {self._case} {name}: {error}")
        return failures

    def _source(self, folder: Path) -> Path:
        if self._origin.file:
            return self._origin.file
        path = folder / "sample.csv"
        write_csv(self._origin.rows, self._case.seed, path, progress=False)
        return path

    def _is_missing(self, name: str, key: str) -> bool:
        found = read_result(self._case, name)
        return found is None or found.key != key

    def _stage(self, stage: str, workspace: Workspace | None = None) -> None:
        workspace = workspace or self._workspace
        is_new = stage not in workspace.costs()
        cost = workspace.run(stage)
        if is_new:
            say(f"{workspace.folder.name} {stage}: {cost.seconds:.0f} s, {cost.peak_mib:,.0f} MiB")

    def _networks(self, key: str) -> None:
        for stage in ("embed", "train_cnn", "train_mlp", "evaluate"):
            self._stage(stage)
        costs = self._workspace.costs()
        found, _ = self._child("ours.py")
        for name, stages in STAGES.items():
            self._store(
                name,
                key,
                found[name],
                train_seconds=sum(costs[stage].seconds for stage in stages),
                peak_mib=max(costs[stage].peak_mib for stage in stages),
                stages={stage: list(costs[stage]) for stage in stages},
                curve=[] if name == "average" else self._workspace.curve(name),
            )

    def _peer(self, name: str, key: str, setting: str) -> None:
        say(f"{self._case} {name}: {'with ' + setting if setting else 'searching'}")
        more = ["--setting", setting] if setting else []
        found, peak_mib = self._child("search.py", name, "--budget", str(self._budget), *more)
        if "error" in found:
            write_failure(self._case, name, found["error"])
            say(f"NOT RUN: {self._case} {name}: {found['error']}")
            return
        self._store(name, key, found, peak_mib=peak_mib, budget=self._budget)

    def _child(self, script: str, *options: str) -> tuple[Any, float]:
        """Run a script of this folder; returns its result and its peak memory in MiB.

        In a process of its own, so that memory is freed and only its own is measured.
        """
        path = self._workspace.folder / "found.json"
        cost = measured(
            [sys.executable, str(HERE / script), *options, path.name], self._workspace.folder
        )
        return json.loads(path.read_text(encoding="utf-8")), cost.peak_mib

    def _store(self, name: str, key: str, found: dict[str, Any], **more: Any) -> None:
        predicted_N = np.array(found.pop("predicted"), np.int64)
        result = Result(
            key=key,
            rows=self._rows,
            train_rows=self._train_rows,
            categories=self._categories,
            labels_N=self._labels_N,
            predicted_N=predicted_N,
            machine=machine(),
            **(found | more),
        )
        write_result(self._case, name, result)
        say(f"{self._case} {name}: balanced accuracy {result.test:.4f}, {result.train_seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--sample",
        type=sample,
        action="append",
        metavar="ROWS:SEEDS",
        help="rows and seeds of a sample, may be repeated (default: "
        f"{' '.join(f'{rows}:{seeds}' for rows, seeds in SAMPLES)})",
    )
    parser.add_argument("--real", type=Path, default=Path("data/real"), metavar="FOLDER")
    parser.add_argument("--real-seeds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--cut",
        type=int,
        action="append",
        metavar="ROWS",
        help="training rows that real listings are also cut to, may be repeated; 0 for no cut "
        f"(default: {' '.join(map(str, CUTS))})",
    )
    parser.add_argument(
        "--set", default="", metavar="NAME", help="run only datasets whose name contains this"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=PEERS,
        metavar="NAME",
        help=f"run only this alternative, may be repeated (default: {' '.join(PEERS)})",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=300,
        metavar="SECONDS",
        help="time for the search of a peer's settings",
    )
    parser.add_argument("--fresh", action="store_true", help="discard the results of these datasets")
    parser.add_argument("--report", action="store_true", help="only rewrite the report")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells disable SIGINT for background jobs
        signal.signal(number, signal.default_int_handler)
    wanted = options.sample or SAMPLES
    cuts = [size for size in options.cut or CUTS if size]
    whole = [*samples(wanted), *real(options.real, options.real_seeds)]
    cases = dict(with_cuts(whole, cuts))
    failures = 0
    for case, origin in cases.items():
        if options.report or options.set not in case.name:
            continue
        if options.fresh:
            shutil.rmtree(case.folder, ignore_errors=True)
            shutil.rmtree(BENCH / "work" / str(case), ignore_errors=True)
        try:
            bench = Bench(case, origin, options.peer or [*PEERS], options.budget)
            failures += bench.run(tuned_on(case, origin, wanted))
        except (RuntimeError, ValueError) as error:
            failures += 1
            say(f"FAILED: {case}: {error}")
    arguments = [part for part in sys.argv[1:] if part not in ("--fresh", "--report")]
    shown = [case for case, origin in cases.items() if is_cut(origin)]
    write_report(shown, " ".join(["python benchmarks/accuracy.py", *arguments]))
    if failures:
        sys.exit(f"{failures} failed; the report has the available results")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; the same command resumes")
        sys.exit(130)
