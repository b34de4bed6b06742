"""TF-IDF and a linear support vector machine on the very rows of the pipeline's splits.

Calibrates the sample, and is the peer to beat: `make bench` after `make run`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC

from titles import sources
from titles.contract import LABELS, METRICS, PREPARED
from titles.data import EncodedTitles
from titles.metrics import bootstrap_interval
from titles.outcomes import balanced_accuracy
from titles.params import Params, load_params
from titles.vocabulary import read_labels


def titles_of(params: Params, *splits: EncodedTitles) -> list[list[str]]:
    """The titles of each split as they stand in the source, found by their lines."""
    if Path(params.prepare.source).is_dir():
        raise SystemExit("a folder of files has many lines of the same number: name one CSV file")
    found: dict[int, str] = {}
    wanted = {int(line) for split in splits for line in split.lines}
    for chunk in sources.read(
        Path(params.prepare.source), params.prepare.language, params.prepare.max_title_chars
    ):
        found |= {
            line: title for line, title in zip(chunk.lines, chunk.titles, strict=True) if line in wanted
        }
    return [[found[int(line)] for line in split.lines] for split in splits]


def words() -> TfidfVectorizer:
    return TfidfVectorizer(strip_accents="unicode", sublinear_tf=True, ngram_range=(1, 2), min_df=2)


def words_and_letters() -> FeatureUnion:
    letters = TfidfVectorizer(
        strip_accents="unicode", sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5), min_df=2
    )
    return FeatureUnion([("words", words()), ("letters", letters)])


def main() -> None:
    params = load_params()
    train, test = (EncodedTitles.open(PREPARED / name) for name in ("train", "test"))
    train_titles, test_titles = titles_of(params, train, test)
    test_labels = np.asarray(test.labels, np.int64)
    categories = len(read_labels(LABELS))
    print(f"{len(train)} titles to learn from, {len(test)} to judge by, {categories} categories\n")
    print("| classifier | balanced accuracy | 95 % interval | seconds |")
    print("|---|---|---|---|")
    for name, make in (("words 1-2", words), ("words 1-2, letters 2-5", words_and_letters)):
        for cost in (0.1, 1.0):
            started = time.perf_counter()
            features = make()
            # The same seed as the pipeline's; LinearSVC shuffles.
            machine = LinearSVC(C=cost, class_weight="balanced", random_state=params.seed)
            machine.fit(features.fit_transform(train_titles), train.labels)
            right = machine.predict(features.transform(test_titles)) == test_labels
            seconds = time.perf_counter() - started
            score = balanced_accuracy(test_labels, right)
            low, high = bootstrap_interval(
                test_labels, right.astype(np.int8), params.evaluate.bootstrap_samples, params.seed
            )
            title = f"TF-IDF {name}, linear SVM C={cost}"
            print(f"| {title} | {score:.4f} | {low:.4f} .. {high:.4f} | {seconds:.0f} |")
    scores = json.loads((METRICS / "evaluate.json").read_text(encoding="utf-8"))
    for name in ("cnn", "mlp", "average"):
        own = scores[name]
        interval = f"{own['balanced_accuracy_low']:.4f} .. {own['balanced_accuracy_high']:.4f}"
        print(f"| {name} of the last run | {own['balanced_accuracy']:.4f} | {interval} | |")


if __name__ == "__main__":
    main()
