"""How many of the rows that `titles audit` lists are mislabelled, on samples where that is known.

    python benchmarks/audit.py

Runs prepare, embed and audit with params.yaml on samples of 60,000 rows and compares with the right
categories: on the embedded sample, with whose truth in view the audit was chosen, and on one of another
seed. The report is printed and written to docs/audit.md.
"""

from __future__ import annotations

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

from titles.data.contract import LABELS, PREPARED, QUALITIES, atomic_file
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Flags, Ints
from titles.data.vocabulary import read_labels
from titles.datasets.sample import write_csv

_ROWS = 60_000
_EMBEDDED_SEED, _OTHER_SEED = 2019, 2020
_FIRST = (100, 1_000)

_TEXT = """\
A row is mislabelled where `titles sample` gave it another category than that of the thing its title was
made for. About {wrong:.0%} of train's rows are, none of the reliable ones; the networks are told
neither. Precision is the share of listed rows that are mislabelled, recall the share of mislabelled rows
that are listed. A list by chance has the precision that stands under wrong. Flagged are the rows that
look mislabelled by the audit's own estimate; under suggestion stands the share of those truly
mislabelled whose suggested category is the right one. For unreliable rows all others are struck from
the list.

The networks are the MLP of params.yaml, without logit adjustment. The word vectors are trained on all
titles of train, held-out ones too, but on no category. With the truth of seed {embedded} in view the
audit was chosen; that of seed {other} was not looked at before."""


class Found(NamedTuple):
    """What an audit listed.

    truth_N: the right category of each row of train. rows_K, suggested_K: what is listed, the most
    suspicious first. flagged: how many of them look mislabelled.
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
        SystemExit: the sample of the embedded one's seed is another one.
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
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()  # as DVC counts it
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
    right = truth.read_text(
        encoding="utf-8"
    ).splitlines()  # its header is on the source's first line, too
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
    """Cells of a table, of the rows in `among_N` alone."""
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
    yield f"# Wrong labels found\n\nMade by `{command}`."
    wrong = float((embedded.truth_N != embedded.titles.labels).mean())
    yield _TEXT.format(wrong=wrong, embedded=_EMBEDDED_SEED, other=_OTHER_SEED)
    header = [
        "seed",
        "label quality",
        "rows of train",
        "wrong",
        *(f"precision at {first:,}" for first in _FIRST),
    ]
    header += ["flagged", "precision of those", "recall", "suggestion"]
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
    yield f"The audit alone, three trainings and the start included, took: {costs}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of torch (default: as params.yaml says)"
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
