"""Check that repeated runs give the same bytes and that memory does not grow.

    python benchmarks/soak.py --hours 1

Runs the project on a small catalogue in a temporary folder: `dvc repro -f` and `dvc exp run --temp -f`
in turn, while one `titles serve` classifies 20,000 titles per run. After each run, compares all hashes
with the first ones, and counts files and processes left behind. On Ctrl-C, prints the results so far.
The exit code is 1 if a hash differed or something grew.
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import yaml
from measure import MIB, measured
from scipy import stats
from tabulate import tabulate

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import small_project
from mlflow_server import closed_port
from test_serving import post, running

REPRO, TEMPORARY = "dvc repro -f", "dvc exp run --temp -f"
REQUESTS, TITLES = 100, 200  # per round, and per request
TOLERANCE = 0.05  # relative growth over all rounds that counts as flat
# Must not grow. The other measures may: each run adds to MLflow's store and to git, and DVC keeps two
# small files of each temporary run in .dvc/tmp.
_GROWS = ("peak MiB", "server MiB", "server files", "temporary", "processes")


class Round(NamedTuple):
    """Measures of one run; `different` names the outputs that differ from the first run."""

    kind: str
    seconds: float
    left: dict[str, float]
    different: list[str]


def locked(text: str) -> dict[str, str]:
    """The hash of each output in a dvc.lock, metrics and plots included."""
    stages: dict[str, Any] = yaml.safe_load(text)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def on_disk(project: Path, outs: dict[str, str]) -> dict[str, str]:
    """The hash of each file of the outputs, read from disk without DVC."""
    files = [file for out in outs for file in [project / out, *sorted((project / out).rglob("*"))]]
    return {
        str(file.relative_to(project)): sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


class Soak:
    """A project that has run once, and the measurements of further runs."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.project = folder / "project"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.project.mkdir()
        # For all processes started from here.
        os.environ.update(small_project.environment(mlflow=True) | {"TMPDIR": str(self.temporary)})
        small_project.write_project(self.project, rows)
        measured(["dvc", "repro"], self.project)
        small_project.commit(self.project, "run")
        self.hashes = locked((self.project / "dvc.lock").read_text(encoding="utf-8"))
        self.bytes = on_disk(self.project, self.hashes)
        self.titles = [f"funda celular {word} {n}" for n, word in enumerate(["azul", "roja"] * 100)]

    def rounds(self, port: int, server: psutil.Process) -> Iterator[Round]:
        number = 0
        while True:
            number += 1
            for kind in (REPRO, TEMPORARY):
                name = [] if kind == REPRO else ["--name", f"soak-{number}"]
                cost = measured([*kind.split(), *name], self.project)
                for _ in range(REQUESTS):
                    status, answer = post(port, {"inputs": self.titles[:TITLES]})
                    assert (status, len(answer["predictions"])) == (200, TITLES), answer
                different = self._different(None if kind == REPRO else f"soak-{number}")
                yield Round(
                    kind, cost.seconds, {"peak MiB": cost.peak_mib} | self._left(server), different
                )

    def _different(self, experiment: str | None) -> list[str]:
        if experiment is None:
            now = locked((self.project / "dvc.lock").read_text(encoding="utf-8"))
            files = on_disk(self.project, now)
            names = self.bytes.keys() | files.keys()
            found = [name for name in names if self.bytes.get(name) != files.get(name)]
        else:
            (name,) = small_project.run(
                self.project, "git", "for-each-ref", "--format=%(refname)", f"refs/exps/**/{experiment}"
            ).split()
            now, found = locked(small_project.run(self.project, "git", "show", f"{name}:dvc.lock")), []
        names = self.hashes.keys() | now.keys()
        return sorted({*found, *(name for name in names if self.hashes.get(name) != now.get(name))})

    def _left(self, server: psutil.Process) -> dict[str, float]:
        kept = {server.pid, *(child.pid for child in server.children(recursive=True))}
        family = [member for member in psutil.process_iter() if member.pid in kept]
        return {
            "server MiB": sum(member.memory_full_info().pss for member in family) / MIB,
            "server files": sum(member.num_fds() for member in family),
            "temporary": _count(self.temporary),
            "dvc/tmp": _count(self.project / ".dvc/tmp"),
            "processes": sum(_works_in(member, self.project.parent, kept) for member in _others()),
            "project MiB": sum(f.lstat().st_size for f in self.project.rglob("*") if f.is_file()) / MIB,
            "disk GiB": shutil.disk_usage(self.project).free / 2**30,
        }


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def _others() -> Iterator[psutil.Process]:
    return (member for member in psutil.process_iter() if member.pid != os.getpid())


def _works_in(process: psutil.Process, folder: Path, apart: set[int]) -> bool:
    try:
        return process.pid not in apart and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def row(number: int, done: Round) -> list[str]:
    different = ", ".join(done.different) or "none"
    return [
        str(number),
        done.kind,
        f"{done.seconds:.1f}",
        *(
            f"{value:,.1f}" if name.endswith("iB") else f"{value:.0f}"
            for name, value in done.left.items()
        ),
        different,
    ]


def verdict(rounds: list[Round]) -> tuple[list[dict[str, str]], bool]:
    """Growth per round of each measure by kind of run, and whether nothing grows or differs.

    Excludes the first run of each kind, which warms up caches.
    """
    lines, good = [], not any(done.different for done in rounds)
    for kind in (REPRO, TEMPORARY):
        some = [done for done in rounds if done.kind == kind][1:]
        if len(some) < 3:
            continue
        for name in _GROWS:
            values = np.array([done.left[name] for done in some])
            fit = stats.linregress(np.arange(len(values)), values)
            share = fit.slope * (len(values) - 1) / max(values.mean(), 1)
            half_width = stats.t.ppf(0.975, len(values) - 2) * fit.stderr
            flat = share < TOLERANCE or fit.slope <= half_width
            good &= flat
            lines.append(
                {
                    "run": kind,
                    "measure": name,
                    "mean": f"{values.mean():,.1f}",
                    "maximum": f"{values.max():,.1f}",
                    "slope per round": f"{fit.slope:+.3f} ± {half_width:.3f}",
                    "total growth": f"{share:+.1%}",
                    "": "flat" if flat else "GROWS",
                }
            )
    return lines, good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument(
        "--rows", type=int, default=3_000, help="size of the catalogue (default: %(default)s)"
    )
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells disable SIGINT for background jobs
        signal.signal(number, signal.default_int_handler)
    ends = time.monotonic() + given.hours * 3600
    done: list[Round] = []
    stopped = ""
    with tempfile.TemporaryDirectory(prefix="titles-soak-", ignore_cleanup_errors=True) as name:
        try:
            soak = Soak(Path(name), given.rows)
            with closed_port() as port:
                pass
            command = ["titles", "serve", "--model", "average", "--port", str(port)]
            with running(command, port, soak.project) as server:
                rounds = soak.rounds(port, psutil.Process(server.pid))
                while time.monotonic() < ends:
                    done.append(next(rounds))
                    if len(done) == 1:
                        names = [*done[0].left]
                        print("| round | run | seconds |", " | ".join(names), "| different |")
                        print("|--:|---|--:|" + "--:|" * len(names) + "---|")
                    print("|", " | ".join(row(len(done), done[-1])), "|", flush=True)
        except KeyboardInterrupt:
            stopped = ", interrupted"
    lines, good = verdict(done)
    if lines:
        print(f"\n{tabulate(lines, headers='keys', tablefmt='github', disable_numparse=True)}")
    different = sum(bool(one.different) for one in done)
    print(
        f"\n{len(done)} runs{stopped}: {different} differ from the first. {'PASS' if good else 'FAIL'}"
    )
    return not good


if __name__ == "__main__":
    sys.exit(main())
