"""The names of all classifiers that are compared."""

from __future__ import annotations

from typing import NamedTuple

OURS = {"cnn": "CNN", "mlp": "MLP", "average": "CNN and MLP averaged"}


class Alternative(NamedTuple):
    """The names of a peer; `borrowed`: whether it learned from other text before."""

    title: str
    short: str
    borrowed: bool = False


PEERS = {
    "fasttext": Alternative("fastText", "fastText"),
    "turbo": Alternative("fastText-turbo", "turbo"),
    "fastertext": Alternative("fastertext", "fastertext"),
    "svm": Alternative("TF-IDF words and characters, linear SVM", "SVM"),
    "sgd": Alternative("TF-IDF words and characters, SGD", "SGD"),
    "logistic": Alternative("TF-IDF words and characters, logistic regression", "logistic"),
    "bayes": Alternative("TF-IDF words and characters, complement naive Bayes", "Bayes"),
    "wabbit": Alternative("Vowpal Wabbit, one against all", "VW"),
    "napkin": Alternative("TF-IDF words and characters, napkinXC", "napkinXC"),
    "encoder": Alternative("sentence encoder, logistic regression", "encoder", borrowed=True),
    "hybrid": Alternative("TF-IDF and sentence encoder, linear SVM", "TF-IDF + encoder", borrowed=True),
}
