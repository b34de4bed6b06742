"""Packages made for many categories: Vowpal Wabbit and napkinXC."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import packages
from peers import THREADS, Peer, Scores, Setting
from peers_linear import pickled_size, tfidf
from rows import Codes

from titles.params import Text
from titles.prepare.text import tokenise

_SPECIAL = re.compile(r"[:|\s]")  # in Vowpal Wabbit's format
_LEAST = 1e-12  # probability, of which a logarithm is taken


class Wabbit(Peer):
    """Vowpal Wabbit's reduction to one logistic regression per category (`--oaa --probabilities`), on
    hashed words, word bigrams and character n-grams.

    Titles are tokenised as for our networks, since it only splits at spaces.
    """

    grid: Sequence[Setting] = (
        {"passes": 5, "learning_rate": 0.5, "characters": True, "weights": "none"},
        {"passes": 10, "learning_rate": 0.5, "characters": False, "weights": "none"},
        {"passes": 5, "learning_rate": 0.5, "characters": True, "weights": "balanced"},
        {"passes": 10, "learning_rate": 0.5, "characters": True, "weights": "none"},
        {"passes": 5, "learning_rate": 2.0, "characters": True, "weights": "none"},
    )

    def __init__(self, text: Text, seed: int) -> None:
        packages.use("vowpalwabbit")
        import vowpalwabbit

        self._module, self._text, self._seed = vowpalwabbit, text, seed
        self._folder = tempfile.TemporaryDirectory()

    @property
    def _file(self) -> Path:
        return Path(self._folder.name) / "model.vw"

    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        self._titles, self._labels, self._count = titles, labels, categories

    def fit(self, setting: Setting) -> None:
        self._characters = bool(setting["characters"])
        rows_C = np.bincount(self._labels, minlength=self._count)
        seen = np.count_nonzero(rows_C)
        weight_C = np.ones(self._count)
        if setting["weights"] == "balanced":
            weight_C = len(self._labels) / seen / np.maximum(rows_C, 1)
        # It learns in the order of the file: sources can be sorted by category.
        order = np.random.default_rng(self._seed).permutation(len(self._labels))
        data = Path(self._folder.name) / "train.txt"
        lines = list(self._lines(self._titles))
        with data.open("w", encoding="utf-8") as file:
            for row in order.tolist():
                label = int(self._labels[row])
                file.write(f"{label + 1} {weight_C[label]:.6g} {lines[row]}\n")
        options = {
            "data": data,
            "final_regressor": self._file,
            "oaa": self._count,
            "loss_function": "logistic",
            "ngram": "w2",
            "bit_precision": 25,
            "passes": setting["passes"],
            "learning_rate": setting["learning_rate"],
            "random_seed": self._seed,
            "cache_file": data.with_suffix(".cache"),
        }
        flags = ["--probabilities", "--kill_cache", "--holdout_off", "--quiet"]
        given = [f"--{name}={value}" for name, value in options.items()]
        self._module.Workspace(arg_list=[*given, *flags]).finish()

    def scores(self, titles: Sequence[str]) -> Scores:
        model = self._module.Workspace(
            # Without --probabilities, which is not kept in the file, it gives only the best category.
            arg_list=[f"--initial_regressor={self._file}", "--testonly", "--probabilities", "--quiet"]
        )
        try:
            shares_NC = np.array([model.predict(line) for line in self._lines(titles)], np.float32)
        finally:
            model.finish()
        logs_NC = np.log(np.maximum(shares_NC, _LEAST))
        logs_NC[:, np.bincount(self._labels, minlength=self._count) == 0] = -np.inf
        return logs_NC

    def _lines(self, titles: Sequence[str]) -> Iterator[str]:
        for words in tokenise(titles, self._text):
            clean = [_SPECIAL.sub("_", word) for word in words]
            line = f"|w {' '.join(clean)}"
            if self._characters:
                padded = [f"_{word}_" for word in clean]
                grams = (
                    w[at : at + n] for w in padded for n in (3, 4, 5) for at in range(len(w) - n + 1)
                )
                line += f" |c {' '.join(grams)}"
            yield line

    def size(self) -> int:
        return self._file.stat().st_size


class Napkin(Peer):
    """napkinXC's label trees (Jasinska-Kobus et al. 2020) and one against the rest, on TF-IDF."""

    grid: Sequence[Setting] = (
        {"model": "OVR", "C": 10.0},
        {"model": "PLT", "C": 10.0},
        {"model": "OVR", "C": 30.0},
        {"model": "HSM", "C": 10.0},
        {"model": "PLT", "C": 30.0},
    )

    def __init__(self, seed: int) -> None:
        packages.use("napkinxc")
        from napkinxc import models

        self._models: Any = models
        self._seed, self._tfidf = seed, tfidf(np.float32)
        self._folder = tempfile.TemporaryDirectory()
        self._model: Any = None

    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        self._train_features = self._tfidf.fit_transform(titles)
        self._labels, self._count = labels, categories

    def fit(self, setting: Setting) -> None:
        self._model = None
        kind = getattr(self._models, setting["model"])
        seed = {} if setting["model"] == "OVR" else {"seed": self._seed}
        self._model = kind(
            self._folder.name, liblinear_c=setting["C"], threads=THREADS, verbose=0, **seed
        )
        self._model.fit(self._train_features, self._labels.tolist())

    def scores(self, titles: Sequence[str]) -> Scores:
        found = self._model.predict_proba(self._tfidf.transform(titles), top_k=self._count)
        logs_NC = np.full((len(titles), self._count), np.log(_LEAST), np.float32)
        logs_NC[:, np.bincount(self._labels, minlength=self._count) == 0] = -np.inf
        for row, best in enumerate(found):
            for category, share in best:
                logs_NC[row, category] = np.log(max(share, _LEAST))
        return logs_NC

    def size(self) -> int:
        files = Path(self._folder.name).iterdir()
        return pickled_size(self._tfidf) + sum(file.stat().st_size for file in files)
