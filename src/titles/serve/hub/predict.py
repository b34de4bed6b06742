"""Predict categories of listings from their titles, with the networks in this folder.

It needs Python 3.11 or later, torch, numpy and safetensors: pip install -r requirements.txt

    python predict.py "Funda Para Celular Samsung J7"
    python predict.py --top 1 < titles.txt > found.csv

    from predict import Classifier
    Classifier()(["Funda Para Celular Samsung J7"], k=3)

Legend: B titles of a batch, U distinct words, C categories, K categories predicted.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# numpy and torch read these when they are imported: code that every x86-64 processor with AVX2 has, so
# that all of them give the same probabilities to the last digit.
_PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
_CPUINFO = Path("/proc/cpuinfo")
if _CPUINFO.is_file() and {"avx2", "fma"} <= {*_CPUINFO.read_text(errors="replace").split()}:
    for _name, _value in _PORTABLE.items():
        if not (_name.startswith("NPY") and "NPY_ENABLE_CPU_FEATURES" in os.environ):
            os.environ.setdefault(_name, _value)
FOLDER = Path(__file__).resolve().parent
if str(FOLDER) not in sys.path:  # as with python -I
    sys.path.insert(0, str(FOLDER))

# isort: split
import numpy as np
import torch
from safetensors.torch import load_file

from titles.data.contract import LABELS_FILE, PAD, UNK, VOCABULARY_FILE, Batch
from titles.data.subwords import Subwords
from titles.models.registry import NETWORKS
from titles.prepare.text import words_of
from titles.serve.hub.layers import WordEmbedding

_BATCH = 2048
_LEAST_LOSS = 1e-6
_DIGITS = 6  # of a probability that is written


class Classifier:
    """The networks of the folder; of several, the mean of their logits, weighted by the inverse of their
    loss on validation.

    labels: categories, in the order of the logits.

    Raises:
        ValueError: this version of Python reads titles otherwise than the networks learnt to.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._networks: list[tuple[torch.nn.Module, Subwords | None]] = []
        losses = []
        for name, build in NETWORKS.items():
            own = folder / name
            described = _json(own / "model.json")
            self.labels = _lines(own / LABELS_FILE)
            words = [line.rpartition("\t")[0] for line in _lines(own / VOCABULARY_FILE)]
            self._ids = {word: number for number, word in enumerate(words)}
            self._text: Any = SimpleNamespace(**described["text"])
            state = load_file(own / "weights.safetensors")
            letters = described["subwords"] and Subwords(**described["subwords"])
            embedding: Any = WordEmbedding(
                _table(state, "embedding.matrix_VD"),
                _table(state, "embedding.grams_RD") if letters else None,
            )
            network = build(embedding, len(self.labels), **described["settings"])
            network.load_state_dict(state)
            self._networks.append((network.eval(), letters or None))
            losses.append(1 / max(described["calibrated_loss"], _LEAST_LOSS))
        weight_M = torch.tensor(losses)
        self._weight_M = weight_M / weight_M.sum()
        golden = folder / next(iter(NETWORKS)) / "golden.json"
        for example in _json(golden)[1:] if golden.exists() else []:  # their number comes first
            if words_of([example["title"]], self._text)[0] != example["words"]:
                raise ValueError(f"{example['title']!r} has other words than when the networks learnt")

    def __call__(self, titles: Sequence[str], k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most likely categories of each title with their probabilities, best first; none for a
        title without a word."""
        rows = words_of(titles, self._text)
        found: list[list[tuple[str, float]]] = [[] for _ in rows]
        places = [place for place, row in enumerate(rows) if row]
        for first in range(0, len(places), _BATCH):
            part = places[first : first + _BATCH]
            best_BK, category_BK = self._top([rows[place] for place in part], k)
            for place, ids, shares in zip(part, category_BK.tolist(), best_BK.tolist(), strict=True):
                found[place] = [(self.labels[i], share) for i, share in zip(ids, shares, strict=True)]
        return found

    @torch.inference_mode()
    def _top(self, rows: Sequence[Sequence[str]], k: int) -> Any:
        logits_BC: Any = 0
        for weight, (network, letters) in zip(self._weight_M, self._networks, strict=True):
            logits_BC = logits_BC + weight * network(self._batch(rows, letters))
        return logits_BC.softmax(dim=1).topk(min(k, len(self.labels)), dim=1)

    def _batch(self, rows: Sequence[Sequence[str]], letters: Subwords | None) -> Batch:
        index_BL = np.zeros((len(rows), max(map(len, rows))), np.int64)
        places: dict[str, int] = {}  # of distinct words, from 1; padding is at 0
        for number, row in enumerate(rows):
            index_BL[number, : len(row)] = [places.setdefault(word, len(places) + 1) for word in row]
        tokens_U = np.array([PAD, *(self._ids.get(word, UNK) for word in places)], np.int64)
        buckets, index, ends = (np.empty(0, np.int64),) * 3
        if letters:
            found = letters.of(["", *places])
            buckets, index = np.unique(found.buckets.astype(np.int64), return_inverse=True)
            ends = found.ends
        arrays = index_BL, tokens_U, buckets, index, ends, np.empty(0, np.int64)
        return Batch(*map(torch.from_numpy, arrays))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _table(state: dict[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    """The tensors of a table of vectors, taken out of the state."""
    return [state.pop(key) for key in (name, f"{name}.scale") if key in state]


def _problem(title: str) -> str:
    try:
        title.encode()
    except UnicodeError:
        return "not UTF-8"
    return "" if title.strip() else "empty title"


def write(classifier: Classifier, titles: Iterator[str], k: int, lines: bool, out: Any) -> None:
    """Write a row of CSV for each title: its number, the title, category_1, probability_1 and so on, and
    problem, the reason why it has no category.

    Args:
        lines: the titles are the lines of a file, which problems name.
    """
    k = min(k, len(classifier.labels))
    ours = [f"{name}_{place}" for place in range(1, k + 1) for name in ("category", "probability")]
    header: list[list[Any]] = [["row", "title", *ours, "problem"]]
    number = 0
    while (part := list(islice(titles, _BATCH))) or header:
        table, header = header, []
        problems = list(map(_problem, part))
        answers = classifier(["" if p else t for t, p in zip(part, problems, strict=True)], k)
        for title, problem, answer in zip(part, problems, answers, strict=True):
            number += 1
            values: list[Any] = [None] * 2 * k
            if answer:
                shares = np.array([share for _, share in answer]).round(_DIGITS).tolist()
                values = [
                    x for (name, _), share in zip(answer, shares, strict=True) for x in (name, share)
                ]
            else:
                problem = (problem or "no word") + f", line {number}" * lines
            if "\r" in title and "\n" not in title:  # which readers of CSV take for the end of a row
                title = title.replace("\r", "\n")
            table.append([number, title, *values, problem])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        out.write(text.getvalue().encode("utf-8", "backslashreplace"))
    out.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Predict categories of listings from their titles.")
    parser.add_argument("titles", nargs="*", metavar="TITLE", help="default: lines of standard input")
    parser.add_argument("--top", type=int, default=5, help="categories per title (default: 5)")
    options = parser.parse_args()
    if options.top < 1:
        parser.error(f"argument --top: {options.top} is less than 1")
    titles: Iterator[bytes] = map(os.fsencode, options.titles)
    if not options.titles:
        if sys.stdin.isatty():
            parser.error("no titles: give some, or pipe them in, one a line")
        titles = iter(sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8).splitlines())
    decoded = (title.decode("utf-8", "surrogateescape") for title in titles)
    try:
        write(Classifier(), decoded, options.top, not options.titles, sys.stdout.buffer)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
