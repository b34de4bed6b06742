"""Linear classifiers of scikit-learn on TF-IDF of words, word bigrams and character n-grams."""

from __future__ import annotations

import pickle  # noqa: TID251, only to measure the size of a model
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from peers import THREADS, Peer, Scores, Setting
from rows import Codes
from scipy.sparse import csr_matrix
from scipy.special import log_expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC

Weights = Mapping[bool, float] | None
# Non-zero values of features above which categories are fitted one after the other: liblinear copies the
# features for each, with 16 bytes a value.
MOST_VALUES = 150_000_000


def tfidf(dtype: type[np.floating[Any]]) -> FeatureUnion:
    words: dict[str, Any] = {
        "strip_accents": "unicode",
        "sublinear_tf": True,
        "min_df": 2,
        "dtype": dtype,
    }
    return FeatureUnion(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), **words)),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **words)),
        ]
    )


class Linear(Peer):
    """A linear classifier on TF-IDF; a subclass trains it.

    Its model is (categories, features) coefficients, (categories,) intercepts and the categories.
    """

    dtype: type[np.floating[Any]] = np.float64

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tfidf = tfidf(self.dtype)

    def learn_from(self, titles: Sequence[str], labels: Codes, categories: int) -> None:
        self._tfidf.fit(titles)
        self._train_features = self.features(titles)
        self._labels, self._count = labels, categories

    def features(self, titles: Sequence[str]) -> csr_matrix:
        found: csr_matrix = self._tfidf.transform(titles)
        return found

    def fit(self, setting: Setting) -> None:
        self._model: tuple[NDArray[Any], ...] = ()  # free the previous model: two do not fit into memory
        found = self.train(self._train_features, self._labels, setting)
        self._model = (*found, np.unique(self._labels))
        self._setting = setting

    def train(
        self, features: csr_matrix, labels: Codes, setting: Setting
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Coefficients and intercepts."""
        raise NotImplementedError

    def scores(self, titles: Sequence[str]) -> Scores:
        coefficients, intercepts, categories = self._model
        found = self.features(titles) @ coefficients.T + intercepts
        if self.is_probabilistic(self._setting):
            found = self.logs(found)
        scores_NC = np.full((len(titles), self._count), -np.inf, found.dtype)
        scores_NC[:, categories] = found
        return scores_NC

    def logs(self, decisions: Scores) -> Scores:
        """Logarithms of probabilities, each category's against the rest."""
        found: Scores = log_expit(decisions)
        return found

    def size(self) -> int:
        return pickled_size((self._tfidf, self._model))


class _Counter:
    bytes = 0

    def write(self, part: Any) -> None:
        self.bytes += memoryview(part).nbytes


def pickled_size(model: Any) -> int:
    """Bytes of a pickle, which is not written."""
    counter = _Counter()
    pickle.dump(model, counter, protocol=5)
    return counter.bytes


def one_vs_rest(
    make: Callable[[Weights], Any], prefer: str, features: csr_matrix, labels: Codes, weights: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fit a binary linear model of each category against the rest, in parallel.

    Args:
        make: makes a classifier from the weights of the classes True and False.
        prefer: "threads" or "processes".
        weights: "none", or "balanced": those of scikit-learn's "balanced" over all categories, which
            on each binary problem would give far larger weights.
    """
    categories, rows_C = np.unique(labels, return_counts=True)
    weight_C = len(labels) / len(categories) / rows_C
    given = [None if weights == "none" else {True: w, False: 1.0} for w in weight_C.tolist()]
    classifiers = list(map(make, given))
    # Few tasks, since each copies the labels; more than workers, since some categories take longer.
    tasks = np.array_split(np.arange(len(categories)), 4 * THREADS)
    workers = THREADS if features.nnz <= MOST_VALUES else 1
    fitted = Parallel(workers, prefer=prefer)(
        delayed(_fit)([classifiers[place] for place in task], features, labels, categories[task])
        for task in tasks
        if len(task)
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


class Svm(Linear):
    grid: Sequence[Setting] = (
        {"C": 0.3, "weights": "balanced"},
        {"C": 1.0, "weights": "balanced"},
        {"C": 0.1, "weights": "balanced"},
        {"C": 1.0, "weights": "none"},
        {"C": 0.3, "weights": "none"},
    )
    # liblinear computes in float64 and would convert the features for each category.
    dtype = np.float64

    def is_probabilistic(self, setting: Setting) -> bool:
        return False

    def train(self, features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        def make(weights: Weights) -> LinearSVC:
            return LinearSVC(C=setting["C"], class_weight=weights, random_state=self._seed)

        # Threads share liblinear's random generator, so that last digits differ between runs.
        return one_vs_rest(make, "threads", features, labels, setting["weights"])


class Sgd(Linear):
    grid: Sequence[Setting] = (
        {"loss": "log_loss", "alpha": 1e-5, "weights": "balanced"},
        {"loss": "log_loss", "alpha": 1e-6, "weights": "balanced"},
        {"loss": "log_loss", "alpha": 1e-5, "weights": "none"},
        {"loss": "modified_huber", "alpha": 1e-5, "weights": "balanced"},
        {"loss": "modified_huber", "alpha": 1e-6, "weights": "balanced"},
    )
    dtype = np.float32

    def is_probabilistic(self, setting: Setting) -> bool:
        return bool(setting["loss"] == "log_loss")

    def train(self, features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        def make(weights: Weights) -> SGDClassifier:
            fixed = {"average": True, "max_iter": 10, "tol": None, "random_state": self._seed}
            chosen = {"loss": setting["loss"], "alpha": setting["alpha"]}
            return SGDClassifier(class_weight=weights, **fixed, **chosen)

        # The threads of its own n_jobs block each other.
        return one_vs_rest(make, "processes", features, labels, setting["weights"])


class Logistic(Linear):
    grid: Sequence[Setting] = (
        {"C": 30.0, "weights": "none"},
        {"C": 10.0, "weights": "balanced"},
        {"C": 3.0, "weights": "balanced"},
    )

    def train(self, features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        def make(weights: Weights) -> LogisticRegression:
            # The dual of liblinear suits far more features than rows of a category.
            fixed = {"solver": "liblinear", "dual": True, "tol": 0.01, "random_state": self._seed}
            return LogisticRegression(C=setting["C"], class_weight=weights, **fixed)

        return one_vs_rest(make, "threads", features, labels, setting["weights"])


class Bayes(Linear):
    """Complement naive Bayes (Rennie et al. 2003)."""

    grid: Sequence[Setting] = tuple(
        {"alpha": alpha, "norm": norm} for norm in (False, True) for alpha in (0.1, 0.3, 1.0, 0.03)
    )

    def train(self, features: csr_matrix, labels: Codes, setting: Setting) -> tuple[Any, Any]:
        model = ComplementNB(**setting).fit(features, labels)
        return model.feature_log_prob_, np.zeros(len(model.classes_))

    def logs(self, decisions: Scores) -> Scores:
        return decisions


KINDS = {"svm": Svm, "sgd": Sgd, "logistic": Logistic, "bayes": Bayes}
