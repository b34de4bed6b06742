"""Compare `titles predict` on a million listings with an equivalent script around fastText.

    python benchmarks/prediction.py

Both read a CSV file of raw titles and write one with the five likeliest categories of each. Times are of
whole commands. Needs the networks and prepared rows of the last run. Prints Markdown.
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import csv
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from measure import Cost, measured
from packages import fasttext_module
from peers import Setting
from peers_fasttext import FastText, fasttext_lines
from rows import read_splits

from titles.data.contract import MODELS
from titles.datasets.sample import write_csv
from titles.models.registry import load_params

TOP = 5
_BLOCK = 10_000
_SEED = 7  # not that of the embedded sample, on which the networks were trained
# The best setting of the search of accuracy.py, and the best without character n-grams, which is faster.
FASTTEXT: dict[str, Setting] = {
    "fastText, bigrams and character n-grams": {
        "loss": "softmax",
        "lr": 0.5,
        "minn": 3,
        "maxn": 6,
        "epoch": 25,
    },
    "fastText, bigrams": {"loss": "softmax", "lr": 0.5, "minn": 0, "maxn": 0, "epoch": 25},
}


def predict_fasttext(model: Path, source: Path, target: Path) -> None:
    """Classify a CSV file with fastText, in bounded memory."""
    text = load_params().prepare.text
    loaded = fasttext_module().load_model(str(model))
    ranks = range(1, TOP + 1)
    header = [f"{name}_{rank}" for rank in ranks for name in ("category", "probability")]
    with (
        source.open(encoding="utf-8", newline="") as listings,
        target.open("w", encoding="utf-8", newline="") as out,
    ):
        writer = csv.writer(out)
        writer.writerow(["title", *header])
        reader = csv.DictReader(listings)
        while titles := [row["title"] for row in islice(reader, _BLOCK)]:
            lines = fasttext_lines(titles, text)
            # `predict` fails with numpy 2.
            probabilities, labels = loaded.f.multilinePredict(lines, TOP, 0.0, "strict")[::-1]
            for title, best, shares in zip(titles, labels, probabilities, strict=True):
                pairs = zip(best, shares, strict=True)
                writer.writerow([title, *(cell for pair in pairs for cell in pair)])


def trained(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a model file of each fastText setting, trained on the training rows of the networks."""
    params = load_params()
    train = read_splits(params)["train"]
    peer = FastText(params.prepare.text, params.seed)
    peer.learn_from(train.titles, train.labels, int(train.labels.max()) + 1)
    for number, (name, setting) in enumerate(FASTTEXT.items()):
        peer.fit(setting)
        path = folder / f"{number}.bin"
        peer.save(path)
        yield name, path


def report(rows: int, models: Path, folder: Path) -> Iterator[str]:
    source, target = folder / "listings.csv", folder / "predicted.csv"
    write_csv(rows, _SEED, source)
    shutil.copy("params.yaml", folder)  # the commands run there
    own = [str(Path(sys.executable).with_name("titles")), "predict", "--file", str(source)]
    own += ["--top", str(TOP), "--models", str(models.resolve()), "--out", str(target)]
    commands = {name: [*own, "--model", name.lower()] for name in ("MLP", "CNN", "average")}
    here = str(Path(__file__).resolve())
    theirs = {
        name: [sys.executable, here, "--fasttext", str(path), str(source), str(target)]
        for name, path in trained(folder)
    }
    costs: dict[str, Cost] = {}
    for name, command in {**theirs, **commands}.items():
        costs[name] = measured(command, folder)
        with target.open(encoding="utf-8", newline="") as written:
            found = sum(1 for _ in csv.reader(written)) - 1
        if found != rows:
            raise SystemExit(f"{name} wrote {found:,} of {rows:,} rows")
        target.unlink()
    command = shlex.join(["python", "benchmarks/prediction.py", *sys.argv[1:]])
    yield (
        f"Made by `{command}`: {rows:,} listings from one CSV file to another, with the {TOP} likeliest "
        "categories of each, startup included."
    )
    yield ""
    compared = "".join(f" speed-up over {name} |" for name in theirs)
    yield f"| classifier | seconds | rows per second | peak MiB |{compared}"
    yield "|---|--:|--:|--:|" + "--:|" * len(theirs)
    for name, cost in costs.items():
        ratios = "".join(f" {costs[other].seconds / cost.seconds:.2f} |" for other in theirs)
        rate = rows / cost.seconds
        yield f"| {name} | {cost.seconds:.1f} | {rate:,.0f} | {cost.peak_mib:,.0f} |{ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=Path, default=MODELS, help="trained networks")
    parser.add_argument(
        "--fasttext", nargs=3, type=Path, metavar=("MODEL", "CSV", "OUT"), help="classify with fastText"
    )
    options = parser.parse_args()
    if options.fasttext:
        predict_fasttext(*options.fasttext)
        return
    with tempfile.TemporaryDirectory(prefix="titles-bench-") as folder:
        for line in report(options.rows, options.models, Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
