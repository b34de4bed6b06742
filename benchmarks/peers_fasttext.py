"""fastText and its forks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import packages
from peers import THREADS, Peer, Scores, Setting, UnusableError
from rows import Codes

from titles.params import Text
from titles.prepare.text import tokenise

_LABEL = "__label__"
_BLOCK = 10_000  # titles
_LEAST = 1e-5  # probability below which fastText's hierarchical softmax leaves a category out


def fasttext_lines(titles: Sequence[str], text: Text) -> list[str]:
    """Titles in fastText's input format, tokenised."""
    return [" ".join(words) + "\n" for words in tokenise(titles, text)]


class FastText(Peer):
    """fastText's supervised mode on words, word bigrams and character n-grams.

    Titles are tokenised as for our networks, since fastText itself only splits at spaces. It has no
    class weights. Its threads update shared weights without locks, so that runs differ slightly.

    Args:
        package: fasttext, or fasttext-turbo, which has the same module.
    """

    grid: Sequence[Setting] = (
        {"loss": "softmax", "lr": 0.5, "minn": 0, "maxn": 0, "epoch": 25},
        {"loss": "softmax", "lr": 0.5, "minn": 3, "maxn": 6, "epoch": 25},
        {"loss": "softmax", "lr": 1.0, "minn": 0, "maxn": 0, "epoch": 25},
        {"loss": "softmax", "lr": 1.0, "minn": 0, "maxn": 0, "epoch": 100},
        {"loss": "softmax", "lr": 1.0, "minn": 3, "maxn": 6, "epoch": 100},
        {"loss": "hs", "lr": 0.5, "minn": 0, "maxn": 0, "epoch": 25},
        {"loss": "softmax", "lr": 0.2, "minn": 2, "maxn": 5, "epoch": 25},
    )

    def __init__(self, text: Text, seed: int, package: str = "fasttext") -> None:
        packages.use(package)
        self._text, self._seed = text, seed
        self._model: Any = None
        self._load()

    def _load(self) -> None:
        import fasttext

        self._module: Any = fasttext

    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        rows = zip(labels.tolist(), fasttext_lines(titles, self._text), strict=True)
        self._lines_of_train = [f"{_LABEL}{label} {line}" for label, line in rows]
        self._least_C = np.full(categories, -np.inf, np.float32)
        self._least_C[np.unique(labels)] = np.log(_LEAST)

    def fit(self, setting: Setting) -> None:
        self._model = None
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.writelines(self._lines_of_train)
            file.flush()
            try:
                self._model = self._module.train_supervised(
                    file.name,
                    dim=100,
                    wordNgrams=2,
                    bucket=500_000,
                    thread=THREADS,
                    seed=self._seed,
                    verbose=0,
                    **setting,
                )
            except RuntimeError as error:  # "Encountered NaN", at some learning rates
                raise UnusableError(str(error)) from None

    def scores(self, titles: Sequence[str]) -> Scores:
        return self._logs(titles, len(self._least_C))

    def predict(self, titles: Sequence[str], log_shares_C: Any = None) -> Codes:
        if log_shares_C is not None:
            return super().predict(titles, log_shares_C)
        # Much faster than with the probabilities of all categories.
        best: Codes = self._logs(titles, 1).argmax(axis=1)
        return best

    def _logs(self, titles: Sequence[str], count: int) -> Scores:
        """Logarithms of the probabilities of the best categories; others have the least."""
        lines = fasttext_lines(titles, self._text)
        logs_NC = np.tile(self._least_C, (len(lines), 1))
        for start in range(0, len(lines), _BLOCK):
            part_NC = logs_NC[start : start + _BLOCK]
            rows, categories, shares = self._best(lines[start : start + _BLOCK], count)
            part_NC[rows, categories] = np.log(np.maximum(shares, _LEAST))
        return logs_NC

    def _best(self, lines: Sequence[str], count: int) -> tuple[Codes, Codes, Scores]:
        """Rows, categories and probabilities of the best categories of each line."""
        # `model.predict` fails with numpy 2.
        labels, shares = self._model.f.multilinePredict(lines, count, 0.0, "strict")
        rows = np.repeat(np.arange(len(lines)), [len(found) for found in labels])
        number = {f"{_LABEL}{category}": category for category in range(len(self._least_C))}
        categories = np.fromiter((number[one] for found in labels for one in found), np.int64, len(rows))
        return rows, categories, np.concatenate([np.asarray(found) for found in shares])

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.bin"
            self.save(path)
            return path.stat().st_size

    def save(self, path: Path) -> None:
        """Write the model in fastText's format."""
        self._model.save_model(str(path))


class FasterText(FastText):
    """fastertext, fastText in Rust, whose models have another interface."""

    def __init__(self, text: Text, seed: int) -> None:
        super().__init__(text, seed, "fastertext")

    def _load(self) -> None:
        import fastertext

        self._module = fastertext

    def _best(self, lines: Sequence[str], count: int) -> tuple[Codes, Codes, Scores]:
        labels_NK, shares_NK = self._model.batch([line.rstrip("\n") for line in lines], k=count)
        category = {
            number: int(label.removeprefix(_LABEL)) for number, label in self._model.get_labels().items()
        }
        rows, places = np.nonzero(labels_NK >= 0)
        found = labels_NK[rows, places].tolist()
        return rows, np.array([category[one] for one in found], np.int64), shares_NK[rows, places]
