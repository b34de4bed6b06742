"""Explain the course's published scores: train its networks with all defects, without one, without any.

    python benchmarks/defects.py

They are trained on the Spanish titles of the embedded sample, with the word vectors of `embed` and the
settings of experiments/course.yaml. The tables are printed, and written to docs/defects.md, which
docs/course.md explains.
"""

from __future__ import annotations

# Before torch, since it sets environment variables that torch's threads read.
import titles.stages  # noqa: F401

# isort: split
import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from course import CourseCNN, CourseMLP, Defects, evaluate, train, write_rows
from rows import digest
from tqdm import tqdm
from workspace import Workspace

from titles.data.contract import EMBEDDED, LABELS, PREPARED, VOCABULARY
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.files import atomic_file, read_lines
from titles.data.vocabulary import Vocabulary
from titles.models.registry import load_params

SAMPLE = Path("data/raw/sample.csv.gz")
COURSE = Path("experiments/course.yaml")
DOCUMENT = Path("docs/defects.md")
TITLE = "# The course's networks, with and without their defects"
FIRST_SEED = 2019
ALL, NONE = Defects(), Defects(**dict.fromkeys(asdict(Defects()), False))
# Only the CNN has max pooling, only the MLP a mean. The MLP's published losses are impossible with a
# sigmoid, so that it had none.
OTHERS = {"cnn": {"mean_over_padding"}, "mlp": {"max_over_padding", "sigmoid"}}


class Score(NamedTuple):
    """Scores on the test split; the loss is in nats per title."""

    balanced_accuracy: float
    loss: float


class Data(NamedTuple):
    """Splits in the course's format, word vectors, and numbers of categories and training titles."""

    train: Path
    test: Path
    vectors_VD: torch.Tensor
    categories: int
    titles: int


def prepared(settings: dict[str, Any], folder: Path) -> Data:
    """Run `prepare` and `embed` with the course's settings, and write the splits into `folder`."""
    code = [file for part in ("src/titles", "benchmarks") for file in sorted(Path(part).rglob("*.py"))]
    key = digest([SAMPLE, COURSE, Path("params.yaml"), *code])
    workspace = Workspace(Path(".bench/course"), key, FIRST_SEED, settings)
    workspace.begin(lambda _: SAMPLE)
    for stage in ("prepare", "embed"):
        workspace.run(stage)
    splits = {name: EncodedTitles.open(workspace.folder / PREPARED / name) for name in ("train", "test")}
    for name, split in splits.items():
        write_rows(split, folder / f"{name}.jsonl.gz")
    words = len(Vocabulary.read(workspace.folder / VOCABULARY))
    return Data(
        folder / "train.jsonl.gz",
        folder / "test.jsonl.gz",
        torch.from_numpy(WordVectors.read(workspace.folder / EMBEDDED, words).matrix_VD),
        len(read_lines(workspace.folder / LABELS)),
        len(splits["train"]),
    )


def score(kind: str, settings: dict[str, Any], defects: Defects, seed: int, data: Data) -> Score:
    torch.manual_seed(seed)
    names = ("filter_lengths", "filter_count", "fc_size") if kind == "cnn" else ("hidden_layers",)
    network = (CourseCNN if kind == "cnn" else CourseMLP)(
        data.vectors_VD.clone(),
        data.categories,
        freeze=settings["freeze_embeddings"],
        dropout=settings["dropout"],
        defects=defects,
        **{name: settings[name] for name in names},
    )
    train(network, data.train, epochs=settings["epochs"], seed=seed)
    loss, balanced_accuracy = evaluate(network, data.test)
    return Score(balanced_accuracy, loss)


def variants(kind: str) -> dict[str, Defects]:
    """The network with all its defects, with each one fixed in turn, and with none."""
    own = replace(NONE, **{name: True for name in asdict(ALL) if name not in OTHERS[kind]})
    without = {
        f"without {name.replace('_', ' ')}": replace(own, **{name: False})
        for name, has in asdict(own).items()
        if has
    }
    return {"all defects": own, **without, "no defect": NONE}


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def tables(course: dict[str, Any], seeds: Sequence[int], data: Data) -> Iterator[str]:
    """Yield markdown."""
    floor = math.log(1 + (data.categories - 1) / math.e)
    yield from (TITLE, "")
    yield (
        f"Made by `python benchmarks/defects.py --seeds {len(seeds)}` on the embedded sample: "
        f"{data.titles:,} Spanish titles to train on, {data.categories} categories. Scores are of the "
        f"test split, the mean over {len(seeds)} seeds ± standard deviation. With the sigmoid no loss "
        f"below ln(1 + {data.categories - 1}/e) = {floor:.3f} is possible; with 632 categories, "
        f"{math.log(1 + 631 / math.e):.3f}."
    )
    for name, experiment in course["experiments"].items():
        kind = experiment["network"]
        settings = {**course["settings"][kind], **experiment["settings"][kind]}
        if settings["freeze_embeddings"] == "partial":  # the course has none
            continue
        published = experiment["published"]
        told = ", ".join(f"{key}: {value}" for key, value in experiment["settings"][kind].items())
        yield from ("", f"## {name}: {told}", "")
        yield (
            f"Published: balanced accuracy {published['balanced_accuracy']}, loss {published['loss']}."
        )
        yield ""
        yield "| course's network | balanced accuracy | loss |"
        yield "|---|--:|--:|"
        runs = [(text, defects, seed) for text, defects in variants(kind).items() for seed in seeds]
        found: dict[str, list[Score]] = {}
        for text, defects, seed in tqdm(runs, desc=name, leave=False, disable=None):
            found.setdefault(text, []).append(score(kind, settings, defects, seed, data))
            if len(found[text]) == len(seeds):
                cells = [spread([getattr(s, field) for s in found[text]]) for field in Score._fields]
                yield f"| {text} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds for each network")
    parser.add_argument("--into", type=Path, default=DOCUMENT, help="document to write")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds: at least one")
    course = yaml.safe_load(COURSE.read_text(encoding="utf-8"))
    torch.set_num_threads(load_params().compute.threads)
    shared = {part: course["settings"][part] for part in ("prepare", "embed")}
    lines = []
    with tempfile.TemporaryDirectory(prefix="titles-bench-") as folder:
        data = prepared(shared, Path(folder))
        for line in tables(course, range(FIRST_SEED, FIRST_SEED + arguments.seeds), data):
            print(line, flush=True)
            lines.append(f"{line}\n")
    with atomic_file(arguments.into) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
