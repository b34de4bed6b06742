"""Run the whole pipeline on data of the challenge's size and shape, beside fastText.

    python benchmarks/packages.py fasttext
    python benchmarks/scale.py --rows 20000000

The data is a sample as wide as the challenge. The networks have the settings of
experiments/large.yaml. fastText learns from the same words of the same rows, with a hierarchical and
with a full softmax, each for as long as the slower network took.

Finished steps are kept in .bench/scale/, and a step that was cut off is resumed where its command can:
repeat the command to go on. A run is of one version of the code and of one processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import titles

# isort: split
import packages
from measure import Cost
from rows import digest
from workspace import Workspace

from titles.commands import end_on_termination
from titles.data.contract import EMBEDDED, LABELS, METRICS, MODELS, PLOTS, PREDICTIONS, PREPARED
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file, read_lines
from titles.data.processor import model_name
from titles.experiments.suite.plan import read_plan

SEED = 2019
CATEGORIES = 1588
PROFILE = Path("experiments/large.yaml")
HERE = Path(__file__).resolve().parent
BENCH = Path(".bench/scale")
SAMPLE = Path("sample.csv")
# Bytes of a row in all files together, about: in the source, the arrays, and fastText's lines.
BYTES_PER_ROW = 300
BYTES_BESIDE_ROWS = 3 * 2**30  # of models, those of fastText most of all
PEERS = {"hs": "fastText, hierarchical softmax", "softmax": "fastText, softmax"}
NETWORKS = {"train_cnn": "cnn", "train_mlp": "mlp"}
# The outputs of each step; fastText's lines and models are named by benchmarks/scale_fasttext.py.
OUTPUTS = {
    "sample": [SAMPLE],
    "prepare": [PREPARED],
    "embed": [EMBEDDED],
    "train_cnn": [MODELS / "cnn"],
    "train_mlp": [MODELS / "mlp"],
    "evaluate": [PREDICTIONS, PLOTS],
    **{f"fasttext_{loss}": [Path(f"fasttext_{loss}.bin")] for loss in PEERS},
}


class Scale:
    """One run of all steps on a number of rows."""

    def __init__(self, rows: int, anew: bool) -> None:
        self.rows = rows
        self.folder = BENCH / str(rows)
        package = Path(titles.__file__).parent
        code = sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        self._processor = model_name()
        key = digest([Path("params.yaml"), PROFILE, *code], str(rows), self._processor)
        plan = read_plan(PROFILE)
        self._work = Workspace(self.folder, key, SEED, plan.settings)
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._work.key() not in (None, key):
            raise SystemExit(
                f"error: {self.folder} has steps of other code or parameters, or of another processor: "
                "finish them with those, or begin again with --anew"
            )
        self._check_disk()
        self._work.begin(lambda folder: folder / SAMPLE)

    def _check_disk(self) -> None:
        BENCH.mkdir(parents=True, exist_ok=True)
        needed = BYTES_PER_ROW * self.rows + BYTES_BESIDE_ROWS - _size(self.folder)
        free = shutil.disk_usage(BENCH).free
        if free < needed:
            raise SystemExit(
                f"error: {needed / 1e9:.1f} GB are needed in {BENCH}, and {free / 1e9:.1f} GB are free: "
                f"{(needed - free) / 1e9:.1f} GB are missing"
            )

    def run(self) -> None:
        """Run the missing steps.

        Raises:
            RuntimeError: a step failed.
        """
        titles_command = [sys.executable, "-m", "titles.cli"]
        options = ["--rows", str(self.rows), "--seed", str(SEED), "--categories", str(CATEGORIES)]
        self._step("sample", [*titles_command, "sample", *options, str(SAMPLE)])
        for stage in ("prepare", "embed", "train_cnn", "train_mlp", "evaluate"):
            self._step(stage)
        try:
            packages.use("fasttext")
        except ImportError as error:
            told = f"note: without fastText, which `python benchmarks/packages.py` installs ({error})"
            print(told, file=sys.stderr)
            return
        slower = max(self._work.costs()[stage].seconds for stage in NETWORKS)
        for loss in PEERS:
            script = [sys.executable, str(HERE / "scale_fasttext.py"), loss, f"{slower:.0f}"]
            self._step(f"fasttext_{loss}", script)

    def _step(self, name: str, command: Sequence[str] | None = None) -> None:
        if name in self._work.costs():
            return
        print(f"{name} ... ", end="", flush=True, file=sys.stderr)
        cost = self._work.run(name, command)
        print(f"{cost.seconds:,.0f} s, {cost.peak_mib:,.0f} MiB", file=sys.stderr)

    def table(self) -> Iterator[str]:
        """Yield the lines of a page in markdown."""
        costs = self._work.costs()
        if "evaluate" not in costs:
            raise SystemExit(f"error: the networks of {self.folder} are not evaluated yet")
        scores = self._scores()
        train = EncodedTitles.open(self.folder / PREPARED / "train")
        yield f"# A run of {self.rows:,} rows"
        yield ""
        yield (
            f"Made by `make scale ROWS={self.rows}` on {self._processor}, {os.cpu_count()} cores, "
            f"{platform.system()}. The data is the synthetic sample with {CATEGORIES:,} categories: "
            f"{len(train):,} rows of it are in train, of {len(read_lines(self.folder / LABELS)):,} "
            "categories. Settings are those of `experiments/large.yaml`. Balanced accuracy is of the "
            "test split. Memory is the peak of all processes of a step together."
        )
        yield ""
        yield (
            "| step | wall seconds | processor seconds | microseconds per row | peak MiB | MB on disk "
            "| balanced accuracy |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for step, cost in costs.items():
            size = sum(_size(self.folder / path) for path in OUTPUTS[step])
            name = PEERS.get(step.removeprefix("fasttext_"), f"`{step}`")
            yield _row(name, cost, self.rows, f"{size / 1e6:,.0f}", scores.get(step, ""))
        own = [cost for step, cost in costs.items() if step in OUTPUTS and "fasttext" not in step]
        whole = Cost(
            sum(cost.seconds for cost in own),
            max(cost.peak_mib for cost in own),
            sum(cost.processor_seconds for cost in own),
        )
        yield _row("all steps but fastText", whole, self.rows, "", scores["average"])
        for note in self._notes(costs):
            yield ""
            yield note

    def _scores(self) -> Mapping[str, str]:
        found = _json(self.folder / METRICS / "evaluate.json")
        scores = {
            stage: f"{found[f'{network}.balanced_accuracy']:.4f}" for stage, network in NETWORKS.items()
        }
        scores["average"] = f"{found['average.balanced_accuracy']:.4f} (average)"
        for loss, result in self._peers().items():
            scores[f"fasttext_{loss}"] = f"{result['corrected']:.4f} ({result['plain']:.4f})"
        return scores

    def _peers(self) -> dict[str, dict[str, Any]]:
        """What fastText's steps found, by loss."""
        done = [loss for loss in PEERS if f"fasttext_{loss}" in self._work.costs()]
        return {loss: _json(self.folder / f"fasttext_{loss}.json") for loss in done}

    def _notes(self, costs: Mapping[str, Cost]) -> Iterator[str]:
        peers = self._peers()
        if peers:
            yield (
                "The probabilities of fastText are divided by the shares of the categories in train, as "
                "balanced accuracy asks for; its score without that is in brackets. Its steps also "
                "write the words of train for it, and predict the test split."
            )
        for loss, found in peers.items():
            yield (
                f"{PEERS[loss]}: epochs: {found['epochs']}, in {found['seconds']:,.0f} seconds on "
                f"{found['threads']} threads, with learning rate {found['lr']:g}."
            )
        if often := [f"`{step}` {cost.starts} times" for step, cost in costs.items() if cost.starts > 1]:
            yield (
                f"Cut off and started again: {', '.join(often)}. Times are of all starts; up to five "
                "seconds of each are missing."
            )


def _row(name: str, cost: Cost, rows: int, size: str, score: str) -> str:
    return (
        f"| {name} | {cost.seconds:,.0f} | {cost.processor_seconds:,.0f} "
        f"| {cost.seconds / rows * 1e6:.2f} | {cost.peak_mib:,.0f} | {size} | {score} |"
    )


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--anew", action="store_true", help="drop the steps of before")
    parser.add_argument("--table", action="store_true", help="the table of the steps so far; run none")
    parser.add_argument("--into", type=Path, help="markdown file to write, besides the terminal")
    options = parser.parse_args()
    end_on_termination()  # and with it the step that runs
    scale = Scale(options.rows, options.anew)
    try:
        if not options.table:
            scale.run()
    except RuntimeError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted: repeat the command to go on") from None
    lines = [f"{line}\n" for line in scale.table()]
    print("".join(lines), end="")
    if options.into:
        with atomic_file(options.into) as partial:
            partial.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
