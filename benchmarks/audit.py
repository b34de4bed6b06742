"""Precision and recall of `titles audit`, on samples whose mislabelled rows are known.

    python benchmarks/audit.py

Runs prepare, embed and audit with params.yaml on samples of 60,000 rows, and compares with the true
categories: on the embedded sample, on which the audit was developed, and on one of a different seed. The
report is printed and written to docs/audit.md.
"""

from __future__ import annotations

import titles.stages  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import csv
import hashlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from measure import Cost, measured
from workspace import Workspace

from titles.data.contract import LABELS, PREPARED, QUALITIES
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file
from titles.data.outcomes import Flags, Ints
from titles.data.vocabulary import read_labels
from titles.datasets.sample import write_csv

_ROWS = 60_000
_EMBEDDED_SEED, _OTHER_SEED = 2019, 2020
_FIRST = (100, 1_000)

_TEXT = """\
A row is mislabelled if `titles sample` gave it a category other than that of the product in its title.
About {wrong:.0%} of the training rows are mislabelled, none of them marked reliable; the networks see
neither fact. Precision is the share of listed rows that are mislabelled, recall the share of mislabelled
rows that are listed. A random list has the precision in the column mislabelled. Flagged rows are those
that the audit itself estimates to be mislabelled; the column suggestion has the share of flagged and
mislabelled rows whose suggested category is the true one. The lines for unreliable rows ignore all other
rows.

The networks are the MLP of params.yaml, without logit adjustment. The word vectors are trained on all
training titles, held-out ones included, but without categories. The audit was developed with the truth
of seed {embedded} in view; that of seed {other} was not used before."""


class Found(NamedTuple):
    """The rows that an audit listed.

    truth_N: the true category of each training row. rows_K, suggested_K: listed rows and their suggested
    categories, the most suspicious first. flagged: the number of them that look mislabelled.
    """

    titles: EncodedTitles
    truth_N: Ints
    rows_K: Ints
    suggested_K: Ints
    flagged: int
    cost: Cost


def audited(seed: int, folder: Path, threads: int | None) -> Found:
    """Run the stages and the audit on a sample of this seed.

    Raises:
        SystemExit: the sample of the embedded sample's seed differs from it.
    """
    workspace = Workspace(folder, "audit", seed)
    truth, out = folder / "truth.csv", folder / "audit.csv"

    def source(folder: Path) -> Path:
        write_csv(_ROWS, seed, folder / "sample.csv.gz", truth)
        return folder / "sample.csv.gz"

    workspace.begin(source)
    if seed == _EMBEDDED_SEED:
        embedded = yaml.safe_load(Path("data/raw/sample.csv.gz.dvc").read_text(encoding="utf-8"))
        content = workspace.source.read_bytes()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()  # the hash that DVC uses
        if digest != embedded["outs"][0]["md5"]:
            raise SystemExit("`titles sample` no longer writes the embedded sample")
    if threads:
        file = folder / "params.yaml"
        params = yaml.safe_load(file.read_text(encoding="utf-8"))
        params["compute"]["threads"] = threads
        file.write_text(yaml.safe_dump(params), encoding="utf-8")
    for stage in ("prepare", "embed"):
        workspace.run(stage)
    command = [sys.executable, "-m", "titles.cli", "audit", "--top", str(_ROWS), "--out", out.name]
    cost = measured(command, folder)
    told = (folder / "log.txt").read_text(encoding="utf-8")
    print(told, flush=True)

    titles = EncodedTitles.open(folder / PREPARED / "train")
    ids = {name: number for number, name in enumerate(read_labels(folder / LABELS))}
    right = truth.read_text(encoding="utf-8").splitlines()  # line numbers are those of the source
    row_of = {line: row for row, line in enumerate(titles.lines.tolist())}
    with out.open(encoding="utf-8", newline="") as stream:
        listed = list(csv.DictReader(stream))
    return Found(
        titles,
        np.array([ids.get(right[line - 1], -1) for line in titles.lines.tolist()]),
        np.array([row_of[int(row["line"])] for row in listed]),
        np.array([ids[row["suggested"]] for row in listed]),
        int(told.rpartition("up to rank ")[2].split()[0].replace(",", "")),
        cost,
    )


def measures(found: Found, among_N: Flags) -> list[str]:
    """Cells of a table, computed only on the rows in `among_N`."""
    wrong_N = (found.truth_N != found.titles.labels) & among_N
    kept_K = among_N[found.rows_K]
    rows, suggested = found.rows_K[kept_K], found.suggested_K[kept_K]
    flagged = int(kept_K[: found.flagged].sum())
    hits = wrong_N[rows[:flagged]]
    right = (suggested == found.truth_N[rows])[:flagged][hits]
    return [
        f"{among_N.sum():,}",
        f"{wrong_N.sum():,} ({wrong_N.sum() / among_N.sum():.1%})",
        *(f"{wrong_N[rows[:first]].mean():.3f}" for first in _FIRST),
        f"{flagged:,}",
        f"{hits.mean():.3f}",
        f"{hits.sum() / wrong_N.sum():.3f}",
        f"{right.mean():.3f}",
    ]


def report(found: dict[int, Found], command: str) -> Iterator[str]:
    embedded = found[_EMBEDDED_SEED]
    yield f"# Detecting wrong labels\n\nMade by `{command}`."
    wrong = float((embedded.truth_N != embedded.titles.labels).mean())
    yield _TEXT.format(wrong=wrong, embedded=_EMBEDDED_SEED, other=_OTHER_SEED)
    header = [
        "seed",
        "label quality",
        "training rows",
        "mislabelled",
        *(f"precision at {first:,}" for first in _FIRST),
    ]
    header += ["flagged", "their precision", "recall", "suggestion"]
    lines = [header, ["---", "---", *["--:"] * (len(header) - 2)]]
    for seed, one in found.items():
        unreliable_N = one.titles.qualities == QUALITIES.index("unreliable")
        for name, among_N in (("all", np.ones_like(unreliable_N)), ("unreliable", unreliable_N)):
            lines.append([str(seed), name, *measures(one, among_N)])
    yield "\n".join("| " + " | ".join(line) + " |" for line in lines)
    costs = "; ".join(
        f"seed {seed}: {one.cost.seconds:.0f} seconds, {one.cost.peak_mib:,.0f} MiB"
        for seed, one in found.items()
    )
    yield f"Time and memory of the audit, with its three trainings and startup: {costs}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch (default: those of params.yaml)"
    )
    threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory(prefix="titles-audit-") as name:
        found = {
            seed: audited(seed, Path(name) / str(seed), threads)
            for seed in (_EMBEDDED_SEED, _OTHER_SEED)
        }
        text = "\n\n".join(report(found, shlex.join(["python", "benchmarks/audit.py", *sys.argv[1:]])))
    print(text)
    with atomic_file(Path("docs/audit.md")) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
