"""Train fastText on the prepared rows of this folder for a number of seconds, and measure it.

    python benchmarks/scale_fasttext.py hs 3600   # in a folder where `prepare` has run

It writes fasttext_LOSS.bin and fasttext_LOSS.json.
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packages import fasttext_module
from tqdm import tqdm

from titles.data.contract import LABELS, PREPARED, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_file, read_lines, write_json
from titles.data.outcomes import balanced_accuracy
from titles.data.vocabulary import Vocabulary

fasttext = fasttext_module()
THREADS = 2
LINES = Path("fasttext.txt")
_BLOCK = 100_000  # rows
# Rows whose training tells how long an epoch takes.
_ROWS_TIMED = 200_000
_LEAST_SECONDS = 3
# Of the categories with the highest probability, the best after correction for their shares is chosen.
_CANDIDATES = 10
_MOST_EPOCHS = 100
SETTINGS = {"dim": 100, "wordNgrams": 2, "bucket": 2_000_000, "minCount": 1, "lr": 0.5}


def lines(split: EncodedTitles, words: Sequence[str]) -> Iterator[str]:
    """The words of titles, each title a line."""
    for start in range(0, len(split), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(split)))
        yield from (" ".join([words[word] for word in title]) + "\n" for title in split.lists(rows))


def write_train(words: Sequence[str]) -> None:
    if LINES.exists():
        return
    train = EncodedTitles.open(PREPARED / "train")
    with atomic_file(LINES) as partial, partial.open("w", encoding="utf-8") as out:
        found = zip(train.labels, lines(train, words), strict=True)
        for label, line in tqdm(found, "fastText's lines", len(train), disable=None):
            out.write(f"__label__{label} {line}")


def seconds_per_epoch(loss: str, rows: int) -> float:
    """The time of an epoch: how much longer several take than one, on some of the rows."""
    part = Path("fasttext_part.txt")
    with LINES.open(encoding="utf-8") as whole, part.open("w", encoding="utf-8") as out:
        out.writelines(islice(whole, _ROWS_TIMED))

    def timed(epochs: int) -> float:
        started = time.perf_counter()
        train(part, loss, epochs)
        return time.perf_counter() - started

    first, more, seconds = timed(1), 1, 0.0
    while seconds < _LEAST_SECONDS:
        more *= 3
        seconds = timed(1 + more) - first
    part.unlink()
    return seconds / more / min(rows, _ROWS_TIMED) * rows


def train(file: Path, loss: str, epochs: int) -> tuple[Any, float]:
    """A model, and its learning rate: version 0.9.3 diverges at some."""
    rate = SETTINGS["lr"]
    while True:
        given = SETTINGS | {"lr": rate, "loss": loss, "epoch": epochs, "thread": THREADS}
        try:
            return fasttext.train_supervised(str(file), verbose=0, **given), rate
        except RuntimeError as error:
            if "NaN" not in str(error) or rate < 0.05:
                raise
            rate /= 2


def predicted(
    model: Any, test: EncodedTitles, words: Sequence[str], share_C: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Categories of test titles: those of the highest probability, and of the highest after division by
    the shares of the categories in train."""
    plain, corrected = [], []
    texts = lines(test, words)
    while block := list(islice(texts, _BLOCK)):
        # `model.predict` fails with numpy 2.
        labels, chances = model.f.multilinePredict(block, _CANDIDATES, 0.0, "strict")
        for names, chance in zip(labels, chances, strict=True):
            found = np.array([int(name.removeprefix("__label__")) for name in names])
            plain.append(found[0])
            corrected.append(found[np.argmax(np.asarray(chance) / share_C[found])])
    return np.array(plain), np.array(corrected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("loss", choices=("hs", "softmax"))
    parser.add_argument("seconds", type=float, help="length of the training")
    options = parser.parse_args()
    words = Vocabulary.read(VOCABULARY).words
    split = EncodedTitles.open(PREPARED / "train")
    write_train(words)
    expected = seconds_per_epoch(options.loss, len(split))
    epochs = min(_MOST_EPOCHS, max(1, round(options.seconds / expected)))
    started = time.perf_counter()
    model, rate = train(LINES, options.loss, epochs)
    seconds = time.perf_counter() - started
    with atomic_file(Path(f"fasttext_{options.loss}.bin")) as partial:
        model.save_model(str(partial))
    share_C = np.bincount(split.labels, minlength=len(read_lines(LABELS))) / len(split)
    test = EncodedTitles.open(PREPARED / "test")
    plain_N, corrected_N = predicted(model, test, words, share_C)
    labels_N = np.asarray(test.labels, np.int64)
    result = {
        "plain": balanced_accuracy(labels_N, plain_N == labels_N),
        "corrected": balanced_accuracy(labels_N, corrected_N == labels_N),
        **{"epochs": epochs, "seconds": seconds, "lr": rate, "threads": THREADS},
    }
    write_json(Path(f"fasttext_{options.loss}.json"), result)


if __name__ == "__main__":
    main()
