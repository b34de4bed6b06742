"""The usual alternatives to our networks: real packages behind one interface."""

from __future__ import annotations

import pickle  # noqa: TID251, only to measure the size of a model
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import fasttext
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rows import Codes
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC

from titles.params import Params, Text
from titles.prepare.text import tokenise

Setting = Mapping[str, Any]

THREADS = 2  # or processes


class UnusableError(Exception):
    """A grid point gives no model."""


class Peer(Protocol):
    """A classifier that holds one model at a time: that of the last `fit`.

    grid: its settings, the most promising first, since the search has a time limit.
    """

    grid: Sequence[Setting]

    def learn_from(self, titles: Sequence[str], labels: Codes) -> None:
        """Take the training rows, and do the work that does not depend on the setting."""

    def fit(self, setting: Setting) -> None:
        """Train; raises UnusableError if the setting gives no model."""

    def predict(self, titles: Sequence[str]) -> Codes: ...

    def size(self) -> int:
        """Bytes of the model as its package stores it."""


def fasttext_lines(titles: Sequence[str], text: Text) -> list[str]:
    """Titles in fastText's input format, tokenised."""
    return [" ".join(words) + "\n" for words in tokenise(titles, text)]


class FastText:
    """fastText's supervised mode on words, word bigrams and character n-grams.

    Titles are tokenised as for our networks, since fastText itself only splits at spaces. It has no
    class weights. Its threads update shared weights without locks, so that runs differ slightly.
    """

    grid: Sequence[Setting] = (
        {"loss": "softmax", "lr": 0.5, "minn": 0, "maxn": 0},
        {"loss": "softmax", "lr": 0.2, "minn": 2, "maxn": 5},
        {"loss": "softmax", "lr": 0.5, "minn": 3, "maxn": 6},
        {"loss": "hs", "lr": 0.5, "minn": 0, "maxn": 0},
        {"loss": "softmax", "lr": 1.0, "minn": 0, "maxn": 0},
        {"loss": "softmax", "lr": 0.1, "minn": 3, "maxn": 6},
    )

    def __init__(self, text: Text, seed: int) -> None:
        self._text, self._seed = text, seed
        self._model: Any = None

    def learn_from(self, titles: Sequence[str], labels: Codes) -> None:
        rows = zip(labels.tolist(), fasttext_lines(titles, self._text), strict=True)
        self._lines_of_train = [f"__label__{label} {line}" for label, line in rows]

    def fit(self, setting: Setting) -> None:
        self._model = None
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.writelines(self._lines_of_train)
            file.flush()
            try:
                self._model = fasttext.train_supervised(
                    file.name,
                    epoch=25,
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

    def predict(self, titles: Sequence[str]) -> Codes:
        # `model.predict` fails with numpy 2.
        lines = fasttext_lines(titles, self._text)
        labels, _ = self._model.f.multilinePredict(lines, 1, 0.0, "strict")
        return np.array([int(best[0].removeprefix("__label__")) for best in labels], np.int64)

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.bin"
            self.save(path)
            return path.stat().st_size

    def save(self, path: Path) -> None:
        """Write the model in fastText's format."""
        self._model.save_model(str(path))


class Linear:
    """A linear classifier on TF-IDF of words, word bigrams and character n-grams.

    `train` takes features, labels and a setting, and returns (categories, features) coefficients and
    (categories,) intercepts.
    """

    def __init__(
        self,
        train: Callable[[csr_matrix, Codes, Setting], tuple[NDArray[Any], NDArray[Any]]],
        grid: Sequence[Setting],
        dtype: type[np.floating[Any]],
    ) -> None:
        self._train, self.grid = train, grid
        words: dict[str, Any] = {
            "strip_accents": "unicode",
            "sublinear_tf": True,
            "min_df": 2,
            "dtype": dtype,
        }
        self._features = FeatureUnion(
            [
                ("words", TfidfVectorizer(ngram_range=(1, 2), **words)),
                ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **words)),
            ]
        )

    def learn_from(self, titles: Sequence[str], labels: Codes) -> None:
        self._train_features = self._features.fit_transform(titles)
        self._labels = labels

    def fit(self, setting: Setting) -> None:
        self._model: tuple[NDArray[Any], ...] = ()  # free the previous model: two do not fit into memory
        self._model = (
            *self._train(self._train_features, self._labels, setting),
            np.unique(self._labels),
        )

    def predict(self, titles: Sequence[str]) -> Codes:
        coefficients, intercepts, categories = self._model
        scores = self._features.transform(titles) @ coefficients.T + intercepts
        best: Codes = categories[scores.argmax(axis=1)]
        return best

    def size(self) -> int:
        counter = _Counter()
        pickle.dump((self._features, self._model), counter, protocol=5)
        return counter.bytes


class _Counter:
    bytes = 0

    def write(self, part: Any) -> None:
        self.bytes += memoryview(part).nbytes


def _one_vs_rest(
    make: Callable[[Mapping[bool, float]], Any], prefer: str, features: csr_matrix, labels: Codes
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fit a linear model with class_weight="balanced", one category against the rest, in parallel.

    The weights are those of "balanced" over all categories. On the binary problems of one category
    against the rest, "balanced" would give far larger weights.

    Args:
        make: makes a classifier from the weights of the classes True and False.
        prefer: "threads" or "processes".
    """
    categories, rows_C = np.unique(labels, return_counts=True)
    weight_C = len(labels) / len(categories) / rows_C
    classifiers = [make({True: weight, False: 1.0}) for weight in weight_C.tolist()]
    # Few tasks, since each copies the labels; more than workers, since some categories take longer.
    tasks = np.array_split(np.arange(len(categories)), 4 * THREADS)
    fitted = Parallel(THREADS, prefer=prefer)(
        delayed(_fit)([classifiers[place] for place in task], features, labels, categories[task])
        for task in tasks
    )
    coefficients, intercepts = zip(*fitted, strict=True)
    return np.concatenate(coefficients), np.concatenate(intercepts)


def _fit(
    classifiers: Sequence[Any], features: csr_matrix, labels: Codes, categories: Codes
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fit each classifier with its category against the rest."""
    for classifier, category in zip(classifiers, categories, strict=True):
        classifier.fit(features, labels == category)
    return np.vstack([m.coef_ for m in classifiers]), np.concatenate([m.intercept_ for m in classifiers])


def _fasttext(params: Params) -> Peer:
    return FastText(params.prepare.text, params.seed)


def _linear_svm(params: Params) -> Peer:
    def train(features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        def make(weights: Mapping[bool, float]) -> LinearSVC:
            return LinearSVC(class_weight=weights, random_state=params.seed, **setting)

        # Threads share liblinear's random generator, so that last digits differ between runs.
        return _one_vs_rest(make, "threads", features, labels)

    # liblinear computes in float64 and would convert the features for each category.
    return Linear(train, [{"C": cost} for cost in (0.1, 0.3, 1.0)], np.float64)


def _linear_sgd(params: Params) -> Peer:
    def train(features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        def make(weights: Mapping[bool, float]) -> SGDClassifier:
            fixed = {"average": True, "max_iter": 10, "tol": None, "random_state": params.seed}
            return SGDClassifier(class_weight=weights, **fixed, **setting)

        # The threads of its own n_jobs block each other.
        return _one_vs_rest(make, "processes", features, labels)

    grid = [
        {"loss": loss, "alpha": alpha}
        for alpha in (1e-5, 1e-6)
        for loss in ("modified_huber", "log_loss")
    ]
    return Linear(train, grid, np.float32)


PEERS: dict[str, Callable[[Params], Peer]] = {
    "fasttext": _fasttext,
    "svm": _linear_svm,
    "sgd": _linear_sgd,
}
