"""Compare the training and prediction speed of both networks with the course's baseline and fastText.

    python benchmarks/speed.py

All take turns on the same generated titles, so that other load on the machine affects all of them. The
report is printed and written to docs/speed.md. `--quick` checks in a minute or two that everything
works; its figures are meaningless.
"""

from __future__ import annotations

# Before torch, since it sets environment variables that torch's threads read.
import titles.stages  # noqa: F401

# isort: split
import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from course import BATCH_SIZE
from generated import CATEGORIES, WORDS
from limits import cnn_products, distinct_words, limit_section, mlp_products, profile_section
from race import DIMENSION, PARAMS, QUICK, TOP, Kind, Race, Rates, Scale, in_turns, our_network, settings

from titles.data import processor
from titles.data.files import atomic_file
from titles.models.parts.inference import set_up
from titles.params import LARGEST_BATCH

CPU = torch.device("cpu")
# The course uses batches of 128. In larger batches more titles share words, which our networks exploit:
# they are measured with the largest of `auto` and, to isolate that effect, with the course's.
# Millions of rows allow still larger batches, and bfloat16 on processors with it, which come last.
OWN_BATCH = LARGEST_BATCH
LARGE_BATCH = 4096
# Target speed-ups.
TRAINING_BARS: dict[tuple[Kind, str], float] = {
    ("cnn", "frozen"): 4,
    ("cnn", "unfrozen"): 20,
    ("mlp", "frozen"): 5,
    ("mlp", "unfrozen"): 30,
}
FASTTEXT_BAR = 4
PREDICTION_BARS: dict[Kind, float] = {"mlp": 1.5, "cnn": 1}

Steps = dict[str, dict[str, float]]


def compared(name: str, theirs: Rates, ours: Rates, bar: float | None) -> str:
    """A row of a table of speed-ups."""
    wanted = "" if bar is None else f"{bar:g}"
    return f"| {name} | {theirs} | {ours} | **{ours.median / theirs.median:.2f}** | {wanted} |"


def training_section(race: Race, device: torch.device, steps: Steps) -> Iterator[str]:
    """Yield markdown; stores the seconds of our step in `steps`."""
    yield (
        f"| network, word vectors | course | ours, batch size {BATCH_SIZE} | {OWN_BATCH} "
        f"| {OWN_BATCH}, bfloat16 | {LARGE_BATCH}, bfloat16 | speed-up at {BATCH_SIZE} "
        f"| {OWN_BATCH} | {OWN_BATCH}, bfloat16 | {LARGE_BATCH}, bfloat16 | target |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (kind, words), bar in TRAINING_BARS.items():
        rates = in_turns(
            {
                "course": partial(race.train_course, kind, words, device),
                "small": partial(race.train_ours, kind, words, device, BATCH_SIZE),
                "brief": partial(race.train_ours, kind, words, device, OWN_BATCH, "bfloat16"),
                "large": partial(race.train_ours, kind, words, device, LARGE_BATCH, "bfloat16"),
                "ours": partial(race.train_ours, kind, words, device, OWN_BATCH),
            },
            race.scale.repeats,
        )
        steps.setdefault(kind, {})[words] = OWN_BATCH / rates["ours"].median
        course = rates["course"].median
        own = [rates[name] for name in ("small", "ours", "brief", "large")]
        ratios = [f"{rate.median / course:.1f}" for rate in own]
        cells = [f"{kind.upper()}, {words}", rates["course"], *own, *ratios, f"{bar:g}"]
        yield f"| {' | '.join(map(str, cells))} |"


def fasttext_section(race: Race) -> Iterator[str]:
    rates = in_turns(
        {
            "softmax": partial(race.train_fasttext, "softmax"),
            "hs": partial(race.train_fasttext, "hs"),
            "ours": partial(race.train_ours, "mlp", "unfrozen", CPU, OWN_BATCH),
        },
        race.scale.repeats,
    )
    yield "| fastText's loss | fastText | our MLP, unfrozen | speed-up | target |"
    yield "|---|--:|--:|--:|--:|"
    for loss, bar in (("softmax", FASTTEXT_BAR), ("hs", None)):
        name = (
            f"{loss}, learning rate {race.fasttext_rates[loss][0]}, epochs {race.fasttext_epochs[loss]}"
        )
        yield compared(name, rates[loss], rates["ours"], bar)


def prediction_section(race: Race) -> Iterator[str]:
    ours = {kind: race.classifier(kind) for kind in PREDICTION_BARS}
    raw, clean = race.train.raw, race.train.clean
    rates = in_turns(
        {
            "fasttext": lambda: race.predict(race.predict_fasttext, raw),
            "clean": lambda: race.predict(race.predict_fasttext_clean, clean),
            "cnn": lambda: race.predict(ours["cnn"].top, raw),
            "mlp": lambda: race.predict(ours["mlp"].top, raw),
        },
        race.scale.repeats,
    )
    yield "| network | fastText softmax | ours | speed-up | target |"
    yield "|---|--:|--:|--:|--:|"
    for kind, bar in PREDICTION_BARS.items():
        yield compared(kind.upper(), rates["fasttext"], rates[kind], bar)
    yield ""
    yield (
        "fastText's titles are normalised by our tokeniser, whose time is included, since raw titles "
        f"need such a step; with titles that are already normalised, its rate is {rates['clean']}. Its "
        "Python binding predicts only on one thread."
    )


def report(scale: Scale, race: Race, picture: Path) -> Iterator[str]:
    command = shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]])
    few, many = (distinct_words(race.train.titles, size) for size in (BATCH_SIZE, OWN_BATCH))
    yield "# Speed"
    yield ""
    yield f"Made by `{command}` on {processor.model_name()}, {PARAMS.compute.threads} threads."
    yield ""
    yield (
        f"{scale.rows:,} generated titles of 3 to 14 words, {WORDS:,} words by Zipf's law, {CATEGORIES} "
        f"categories, {DIMENSION} dimensions. On average a batch of {BATCH_SIZE} has {few} distinct "
        f"words, and a batch of {OWN_BATCH}, the most of auto, {many}. Rates are rows per second, the "
        f"median of {scale.repeats} turns (minimum .. maximum), each of at least {scale.seconds:g} "
        f"seconds and {scale.steps} steps of {BATCH_SIZE} after a warm-up. The column target has the "
        "speed-up that this project aims at."
    )
    yield ""
    yield (
        "Our networks have the course's architecture and step here: no character n-grams, no leading "
        "words, no word dropout, no label smoothing, no logit adjustment, no robust loss. Columns with "
        "bfloat16 run matrix multiplications in bfloat16 (`precision`). benchmark.md has the times of "
        "the defaults of params.yaml, stage by stage."
    )
    steps: Steps = {}
    yield from ("", "## Training, compared with the course's loop", "")
    yield from training_section(race, CPU, steps)
    yield from ("", "## Training, compared with fastText", "")
    yield from fasttext_section(race)
    yield from ("", f"## Prediction, from raw titles to the {TOP} best categories", "")
    yield from prediction_section(race)
    yield from ("", "## Lower bound from matrix products", "")
    cnn, mlp = settings("cnn", False, OWN_BATCH), settings("mlp", False, OWN_BATCH)
    products = {
        "cnn": cnn_products(cnn, OWN_BATCH, DIMENSION, many, CATEGORIES),
        "mlp": mlp_products(mlp, OWN_BATCH, DIMENSION, CATEGORIES),
    }
    yield from limit_section(products, steps, scale.seconds / 10)
    yield from ("", "## Profile of a CNN step, word vectors unfrozen", "")
    set_up(PARAMS.compute, PARAMS.seed)
    network = our_network(cnn)
    yield from profile_section(network, race.train.titles, race.few, cnn, CATEGORIES, picture)
    yield from ("", "## On a GPU", "")
    if torch.cuda.is_available():
        yield f"{torch.cuda.get_device_name()}:"
        yield ""
        yield from training_section(race, torch.device("cuda"), {})
    else:
        yield "Not measured."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows and steps")
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="folder of speed.md and cnn_profile.png"
    )
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    scale = QUICK if arguments.quick else Scale()
    lines = []
    with tempfile.TemporaryDirectory(prefix="titles-bench-") as folder:
        race = Race(scale, Path(folder))
        for line in report(scale, race, arguments.into / "cnn_profile.png"):
            print(line, flush=True)
            lines.append(f"{line}\n")
    with atomic_file(arguments.into / "speed.md") as page:
        page.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
