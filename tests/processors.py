"""Computes all that must be the same on every processor, and prints the hashes: test_emulated.py runs it
on this processor and on emulated ones.

    python tests/processors.py parts
    python tests/processors.py stages FOLDER
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import titles

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from titles.data import processor
from titles.data.encoded import EncodedTitles
from titles.data.vocabulary import Vocabulary
from titles.embed import encoder, ppmi
from titles.models.parts import layers, products
from titles.params import Embed

assert titles
ROOT = Path(__file__).parent.parent
SHAPES = 60


def digest(*values: Any) -> str:
    found = hashlib.sha256()
    for value in values:
        array = value.detach().contiguous().numpy() if isinstance(value, Tensor) else np.asarray(value)
        found.update(str(array.dtype).encode() + str(array.shape).encode() + array.tobytes())
    return found.hexdigest()[:16]


def shapes(first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Seeds and shapes, the same everywhere: rows of the batch, inputs, outputs."""
    sizes = [1, 2, 3, 5, 8, 15, 16, 17, 31, 48, 64, 100, 233]
    for seed in range(first, first + count):
        draw = random.Random(seed)
        yield seed, draw.choice(sizes), draw.choice([*sizes, 300, 385, 512]), draw.choice([*sizes, 246])


def of_products(first: int, count: int) -> dict[str, str]:
    """Products forward and backward, by 1 to 4 threads, which must agree among themselves too."""
    found: dict[str, str] = {}
    before = torch.get_num_threads()
    for seed, rows, inputs, outputs in shapes(first, count):
        random_ = np.random.default_rng(seed)
        given, weight, bias, gradient = (
            torch.from_numpy(random_.standard_normal(shape, np.float32))
            for shape in [(rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)]
        )
        hashes = set()
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            leaves = [value.clone().requires_grad_() for value in (given, weight, bias)]
            product = products.linear(*leaves)
            product.backward(gradient)
            hashes.add(digest(product, *(leaf.grad for leaf in leaves)))
        found[f"{seed}: {rows} x {inputs} x {outputs}"] = " ".join(sorted(hashes))
    torch.set_num_threads(before)
    return found


def of_parts() -> dict[str, str]:
    """Every other operation whose rounding matters to a stage or a prediction, by 1 and 3 threads."""
    found: dict[str, str] = {}
    before = torch.get_num_threads()
    values = np.random.default_rng(0).standard_normal((233, 246), np.float32)
    table = torch.from_numpy(np.random.default_rng(1).standard_normal((60, 33), np.float32))
    wide = torch.from_numpy(values)
    labels, rows, ends = torch.arange(233), torch.arange(400) % 60, torch.arange(4, 404, 4)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        dropout = layers.Dropout(0.3).train()
        weight = torch.nn.Parameter(wide.clone())
        adam = torch.optim.Adam([weight], lr=0.01, weight_decay=1e-5, fused=True)
        for _ in range(3):
            weight.grad = weight.detach() * 0.1
            adam.step()
        double = wide.double()
        made = {
            "random": [torch.randn(999), torch.rand(33), dropout(wide), torch.empty(99).uniform_(-1, 1)],
            "softmax": [wide.log_softmax(1), wide.softmax(1), double.log_softmax(1), double.softmax(1)],
            "exp": [wide.exp(), wide.log_softmax(1).exp()],
            "roots": [wide.abs().rsqrt()],
            "sums": [wide.sum(dim=0), wide.sum(dim=1), double.mean(dim=1), products.total(wide)],
            "losses": [F.cross_entropy(wide, labels, reduction="sum")],
            "bags": [F.embedding_bag(rows, table, ends - 4, mode="sum")],
            "adam": [weight],
        }
        found |= {f"{name} {threads}": digest(*some) for name, some in made.items()}
    torch.set_num_threads(before)
    found["ppmi"] = of_ppmi()
    found["encoder"] = of_encoder()
    found["numpy"] = digest(np.log(np.abs(values)), np.exp(values), values.sum(), values.std())
    double_ = values.astype(float)
    found["numpy double"] = digest(np.log(np.abs(double_)), np.exp(double_), double_.mean(axis=0))
    return found


def zipf(titles_: int, words: int, seed: int = 0) -> EncodedTitles:
    """Titles of 0 to 9 words, which occur as often as the inverse of their id, in topics."""
    random_ = np.random.default_rng(seed)
    ends = np.cumsum(random_.integers(0, 10, titles_))
    share = 1 / np.arange(2, words)
    ids = random_.choice(np.arange(2, words), ends[-1], p=share / share.sum())
    topic = np.repeat(np.arange(titles_) % 7, np.diff(ends, prepend=0))
    moved = (ids * 5 + topic * 11) % (words - 2) + 2
    ids = np.where(random_.random(len(ids)) < 0.5, ids, moved).astype(np.int32)
    return EncodedTitles.unlabelled(ids, ends, [])


def embed(method: str) -> Embed:
    return Embed.model_validate(
        {"method": method, "pretrained": "data/pretrained/none", "dimension": 37, "epochs": 1}
        | {"window": 5, "negative": 1, "subword_min": 3, "subword_max": 3, "workers": 1}
    )


def of_ppmi() -> str:
    return digest(*ppmi.train(zipf(900, 1_500), 1_500, embed("ppmi"), 5).values())


def of_encoder() -> str:
    random_ = random.Random(3)
    words = ["".join(random_.choices("aeioubcdlmnrst", k=random_.randrange(1, 12))) for _ in range(98)]
    vocabulary = Vocabulary(["<pad>", "<unk>", *words], [0, *range(99, 0, -1)])
    return digest(*encoder.train(zipf(200, 100), vocabulary, embed("encoder"), 5).values())


def of_stages(folder: Path) -> dict[str, str]:
    """All files that the stages, predictions and exports write in a project's folder."""
    from titles.cli import main
    from titles.stages import embed, evaluate, prepare, train_cnn, train_mlp

    os.chdir(folder)
    lines = Path("lines.txt")
    for stage in (prepare, embed, train_cnn, train_mlp, evaluate):
        stage.main.__wrapped__()
    titles_ = Path("titles.txt").read_text(encoding="utf-8").splitlines()
    for number, some in enumerate([titles_[:1], titles_[:2], titles_]):
        lines.write_text("\n".join([*some, ""]), encoding="utf-8")
        assert main(["predict", "--file", str(lines), "--out", f"predicted-{number}.csv"]) == 0
    assert main(["export", "onnx", "--out", "exported/onnx"]) == 0
    assert main(["export", "hub", "--out", "exported/hub"]) == 0
    # In this process: a new one would not be emulated. Compiled modules are no part of the folder.
    sys.dont_write_bytecode = True
    alone = runpy.run_path("exported/hub/predict.py")
    with Path("predicted-alone.csv").open("wb") as stream:
        alone["write"](alone["Classifier"](), iter(titles_), 5, True, stream)
    assert Path("predicted-alone.csv").read_bytes() == Path("predicted-2.csv").read_bytes()
    places = ("data/prepared", "data/embedded", "models", "metrics", "plots", "predictions", "exported")
    files = [path for place in places for path in sorted(Path(place).rglob("*")) if path.is_file()]
    files += sorted(Path().glob("predicted-*.csv"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


if __name__ == "__main__":
    with redirect_stdout(io.StringIO()):
        if sys.argv[1] == "stages":
            made = of_stages(Path(sys.argv[2]))
        else:
            made = of_products(0, SHAPES) | of_parts()
    print(json.dumps({"machine": processor.machine(True), "hashes": made}))
