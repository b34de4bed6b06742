"""The price of the same bytes on every processor: compute.portable true against false, in turns.

    python benchmarks/portable.py

Trains and predicts on the prepared data of the project, which has to be there (`dvc pull`). Each turn is
a process of its own, since the libraries read the settings once. The report is printed, and is the last
section of docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from titles.data.files import atomic_file

ROOT = Path(__file__).parent.parent
SECTION = "## The cost of the same bytes"
# The largest ratio of times that is aimed at, without and with AVX-512.
BARS = (1.3, 2.0)
TITLES = 20_000
SECONDS = 6.0


def measure() -> dict[str, float]:
    """Seconds of each kind of work, in the current folder and with its parameters."""
    import titles.stages

    # isort: split
    import numpy as np
    import torch

    from titles.data.contract import MODELS, PREPARED
    from titles.data.encoded import EncodedTitles
    from titles.data.vocabulary import Vocabulary
    from titles.models.parts import saved
    from titles.models.parts.inference import set_up
    from titles.models.registry import NETWORKS, load_params
    from titles.predict.classifier import Classifier
    from titles.training.run import new_embedding
    from titles.training.trainer import Trainer

    params = load_params()
    device = set_up(params.compute, params.seed)
    train, validation = (EncodedTitles.open(PREPARED / split) for split in ("train", "validation"))
    words = Vocabulary.read(PREPARED / "vocabulary.tsv")
    categories = int(train.labels.max()) + 1
    found: dict[str, float] = {}
    for name, network in NETWORKS.items():
        settings = params.network(name)
        torch.manual_seed(0)
        made = network(new_embedding(settings, words), categories, **settings.architecture(len(train)))
        trainer = Trainer(made, train, validation, categories, settings, 0, device)
        rows = np.random.default_rng(0).permutation(len(train))
        size = settings.titles_per_step(len(train))
        batches = [rows[start : start + size] for start in range(0, len(rows) - size, size)]
        for batch in batches[:5]:
            trainer._step(batch, True)
        steps, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < SECONDS or steps < 20:
            trainer._step(batches[steps % len(batches)], True)
            steps += 1
        found[f"{name.upper()}, a step of {size} titles"] = passed / steps
    draw = np.random.default_rng(0).choice(len(words.words), (TITLES, 8))
    titles = [" ".join(words.words[word] for word in row) for row in draw]
    for name in NETWORKS:
        classifier = Classifier([saved.read(MODELS / name, NETWORKS)], device)
        classifier.top(titles[:2000], 5)
        started = time.perf_counter()
        classifier.top(titles, 5)
        found[f"{name.upper()}, prediction of {TITLES:,} titles"] = time.perf_counter() - started
        times = []
        for title in titles[:300]:
            started = time.perf_counter()
            classifier.top([title], 5)
            times.append(time.perf_counter() - started)
        found[f"{name.upper()}, one title"] = median(times)
    return found


def turns(rounds: int) -> dict[str, dict[bool, list[float]]]:
    """Seconds by kind of work and by compute.portable."""
    found: dict[str, dict[bool, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="titles-bench-") as place:
        for portable in (True, False):
            folder = Path(place, str(portable))
            folder.mkdir()
            for name in ("data", "models"):
                (folder / name).symlink_to(ROOT / name)
            params = (ROOT / "params.yaml").read_text(encoding="utf-8")
            old, new = "portable: true ", f"portable: {str(portable).lower()} "
            assert old in params
            (folder / "params.yaml").write_text(params.replace(old, new), encoding="utf-8")
        for number in range(rounds):
            for portable in (True, False) if number % 2 else (False, True):
                done = subprocess.run(
                    [sys.executable, __file__, "--measure"],
                    cwd=Path(place, str(portable)),
                    env={k: v for k, v in os.environ.items() if not k.startswith("TITLES")},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                    found.setdefault(name, {True: [], False: []})[portable].append(seconds)
    return found


def report(found: dict[str, dict[bool, list[float]]], rounds: int) -> str:
    """The section, in Markdown."""
    from titles.data import processor

    flags = processor.flags()
    bar = BARS["avx512f" in flags]
    kind = "AVX-512" if "avx512f" in flags else "AVX2 and no AVX-512"
    lines = [
        SECTION,
        "",
        f"Made by `python benchmarks/portable.py` on {processor.model_name()} ({platform.machine()}, "
        f"{kind}), with the defaults of params.yaml and the sample. Milliseconds, "
        f"medians of {rounds} processes each, in turns; the ratio is the median of those of the turns "
        f"(lowest .. highest), and should be {bar:g} at most.",
        "",
        "| work | portable: true | portable: false | ratio of times |",
        "|---|--:|--:|--:|",
    ]
    for name, times in found.items():
        ratios = sorted(a / b for a, b in zip(times[True], times[False], strict=True))
        lines.append(
            f"| {name} | {1000 * median(times[True]):.2f} | {1000 * median(times[False]):.2f} "
            f"| **{median(ratios):.2f}** ({ratios[0]:.2f} .. {ratios[-1]:.2f}) |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (default: 5)")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="folder of speed.md")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure()))
        return
    text = report(turns(arguments.rounds), arguments.rounds)
    print(text)
    file = arguments.into / "speed.md"
    before = file.read_text(encoding="utf-8").partition(f"\n{SECTION}")[0] if file.exists() else ""
    with atomic_file(file) as partial:
        partial.write_text(f"{before}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
