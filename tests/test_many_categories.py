"""Many categories and many files. A row costs about as much among 40,000 categories as among 4,000, but
for the products of the networks, whose output layers grow with the categories."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from titles.data.contract import SPLITS
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes
from titles.data.vocabulary import Vocabulary, read_labels
from titles.evaluation import metrics, predictions, tables
from titles.listings import sources
from titles.listings.chunks import Chunk
from titles.models.registry import load_params
from titles.prepare.preparation import prepare

ROOT = Path(__file__).parent.parent
FEW, MANY = 4_000, 40_000
ROWS = 4 * MANY
PARAMS = load_params(ROOT / "params.yaml")


def costs_about_the_same(few: Callable[[], None], many: Callable[[], None]) -> bool:
    """Whether `many` costs less than twice what `few` does, by the least processor time of each in up to
    eight turns: other processes on the same core add to it, half as much again and more. Work for each
    category and row would be ten times as much."""
    least = [math.inf, math.inf]
    for _ in range(8):
        for place, work in enumerate((few, many)):
            started = time.process_time()
            work()
            least[place] = min(least[place], time.process_time() - started)
        if least[1] < 2 * least[0]:
            return True
    return False


@pytest.mark.pipeline
def test_preparing_a_row_costs_the_same(tmp_path: Path) -> None:
    def preparing(categories: int) -> Callable[[], None]:
        source, folder = tmp_path / f"{categories}.csv", tmp_path / str(categories)
        rows = (f"mesa {row} de {row % 97},C{row % categories}" for row in range(ROWS))
        source.write_text("title,category\n" + "\n".join(rows))
        settings = PARAMS.prepare.model_copy(update={"source": str(source)})

        def work() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            prepare(settings, folder)
            assert len(read_labels(folder / "labels.txt")) == categories

        return work

    assert costs_about_the_same(preparing(FEW), preparing(MANY))


def outcomes(categories: int) -> dict[str, Outcomes]:
    random = np.random.default_rng(categories)
    labels_N = np.arange(MANY) % categories
    found = {}
    for name in ("cnn", "mlp", "average"):
        right_N = random.random(MANY) < 0.7
        predicted_N = np.where(right_N, labels_N, random.integers(0, categories, MANY))
        shares = random.random(MANY)
        found[name] = Outcomes(labels_N, predicted_N, shares, (~right_N).astype(np.int64), shares)
    return found


@pytest.mark.pipeline
def test_evaluating_a_title_costs_the_same(tmp_path: Path) -> None:
    titles = EncodedTitles.unlabelled(np.full(MANY, 2, np.int32), np.arange(1, MANY + 1), [])

    def evaluating(categories: int) -> Callable[[], None]:
        found, labels = outcomes(categories), [f"C{code}" for code in range(categories)]

        def work() -> None:
            tables.measures(found, found, found, found, PARAMS.evaluate, 1)
            tables.pairs(found, PARAMS.evaluate, 1)
            tables.by_group(found, titles)
            folder = tmp_path / str(categories)
            tables.write_tables(found, labels, PARAMS.evaluate, folder, {name: {} for name in found})

        return work

    assert costs_about_the_same(evaluating(FEW), evaluating(MANY))


def scores(rows_C: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    labels_N = np.repeat(np.arange(len(rows_C)), rows_C)
    return labels_N, (np.random.default_rng(3).random(len(labels_N)) < 0.8).astype(np.int8)


def test_categories_that_are_drawn_together_give_the_interval_of_those_drawn_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = scores(np.array([1, 2, 3, 5, 30] * 200))
    alone = metrics.bootstrap_interval(*given, samples=4000, seed=1)
    monkeypatch.setattr(metrics, "_MOST_STRATA", 10)
    together = metrics.bootstrap_interval(*given, samples=4000, seed=1)
    width = alone[1] - alone[0]
    assert together != alone
    assert together == pytest.approx(alone, abs=0.06 * width)


@pytest.mark.pipeline
def test_titles_of_more_than_65536_files_keep_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2**16 + 2
    chunks = (
        Chunk(f"{n}.csv", "", [n + 2], 1, [f"mesa {n}"], [f"C{n % 5}"], ["unspecified"], ["reliable"])
        for n in range(count)
    )
    monkeypatch.setattr(sources, "blocks", lambda *_: chunks)
    prepare(PARAMS.prepare, tmp_path)
    found = []
    for split in SPLITS:
        titles = EncodedTitles.open(tmp_path / split)
        assert len(titles.file_names) == count
        found += titles.places()
    assert sorted(line for _, line in found) == list(range(2, count + 2))
    assert all(name == f"{line - 2}.csv" for name, line in found)
    words, labels = Vocabulary.read(tmp_path / "vocabulary.tsv"), read_labels(tmp_path / "labels.txt")
    outcome = Outcomes(*(titles.labels.astype(kind) for kind in (int, int, float, int, float)))
    path = tmp_path / "predictions" / "test.parquet"
    predictions.write(path, titles, words, labels, {"mlp": outcome})
    with path.open("rb") as stream:
        read = predictions.read(stream)
    assert list(zip(read.files, read.lines_N.tolist(), strict=True)) == titles.places()
