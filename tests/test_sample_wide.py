"""The sample as wide as the challenge: its names, sizes and languages, and the same bytes always."""

import hashlib
import shutil
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from titles.cli import main
from titles.datasets import catalogue, phrases, shape
from titles.datasets.sample import HEADER, write_csv

ROWS = 120_000


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The listings, with their true categories."""
    folder = tmp_path_factory.mktemp("wide")
    write_csv(ROWS, 3, folder / "a.csv", folder / "t.csv", progress=False, categories=1588)
    found = pd.read_csv(folder / "a.csv", keep_default_na=False)
    assert tuple(found) == HEADER
    return found.join(pd.read_csv(folder / "t.csv"))


def test_sizes_are_the_challenges():
    sizes = np.array(shape.sizes())
    assert len(sizes) == 1588
    assert sizes.sum() == 20_000_000
    assert np.percentile(sizes, [0, 25, 50, 75, 100]).tolist() == [109, 5_043, 12_400, 19_105, 35_973]
    assert (np.diff(sizes) <= 0).all()


def test_each_language_has_half_the_rows_and_its_own_gaps():
    found = catalogue.wide()
    sizes = phrases.tables().sizes.T
    assert sizes.sum(1).tolist() == [10_000_000, 10_000_000]
    assert (sizes > 0).sum(1).tolist() == [1574, 1576]
    assert sizes.sum(0).tolist() == found.sizes
    for row, lang in zip(sizes, catalogue.LANGUAGES, strict=True):
        assert [bool(kind.heads) for kind in found.kinds[lang]] == (row > 0).tolist()


@pytest.mark.parametrize("count", [1, 2, 59, 60_000, 100_003])
@pytest.mark.parametrize("seed", [0, 7])
def test_an_order_has_every_number_once_in_parts_of_any_size(count, seed):
    order = shape.Order(count, seed)
    parts = np.concatenate([order.part(at, min(at + 9_999, count)) for at in range(0, count, 9_999)])
    assert np.array_equal(np.sort(parts), np.arange(count))
    assert count < 100 or not np.array_equal(parts, np.arange(count))


def test_an_order_looks_random():
    part = shape.Order(20_000_000, 5).part(3_000_000, 3_100_000)
    assert abs(np.corrcoef(part[1:], part[:-1])[0, 1]) < 0.02
    assert abs(part.mean() / 20_000_000 - 0.5) < 0.01
    assert not np.array_equal(part, shape.Order(20_000_000, 6).part(3_000_000, 3_100_000))


@pytest.mark.parametrize("count", [1, 999, 60_000, 20_000_000, 1_000_000_000])
def test_scaled_sizes_add_up_and_stay_in_proportion(count):
    weights = phrases.tables().sizes
    found = shape.scaled(weights, count)
    assert found.sum() == count
    assert np.abs(found - weights * (count / 20_000_000)).max() <= 1


def test_a_file_has_the_sizes_to_the_row(rows):
    names = catalogue.wide().names
    expected = shape.scaled(phrases.tables().sizes, ROWS).sum(1)
    sizes = rows.category.value_counts().reindex(names, fill_value=0)
    assert sizes.tolist() == expected.tolist()
    assert rows.language.value_counts().to_dict() == {"spanish": ROWS // 2, "portuguese": ROWS // 2}


def test_every_category_has_nouns_of_its_own():
    found = catalogue.wide()
    by_hand = set(catalogue.by_hand().names)
    for lang in catalogue.LANGUAGES:
        kinds = dict(zip(found.names, found.kinds[lang], strict=True))
        owners = Counter(head for kind in kinds.values() for head in set(kind.heads))
        for name, kind in kinds.items():
            assert len(set(kind.heads)) == len(kind.heads) != 1, name
            own = any(owners[head] == 1 for head in kind.heads)
            # Those by hand have attributes of their own, and may be known by them.
            assert own or not kind.heads or name in by_hand, name


def test_names_are_the_challenges_and_unique():
    found = catalogue.wide().names
    assert len(set(found)) == 1588
    assert set(catalogue.by_hand().names) < set(found)


def test_rows_are_as_hard_as_those_of_fewer_categories(rows):
    assert rows.label_quality.eq("reliable").mean() == pytest.approx(0.0592, abs=0.004)
    wrong = rows.category != rows.true_category
    assert not wrong[rows.label_quality == "reliable"].any()
    assert wrong.mean() == pytest.approx(0.18 * 0.94, abs=0.01)
    lengths = rows.title.str.len()
    assert 3 <= lengths.min() <= lengths.max() <= 120
    assert 45 < lengths.mean() < 51
    assert 50 <= lengths.median() <= 54
    assert 0.02 < rows.title.duplicated().mean() < 0.04
    assert rows[rows.duplicated("title", keep=False)].groupby("title").category.nunique().max() > 1
    assert (rows.title == rows.title.str.strip()).all()
    assert not rows.title.str.contains("\n|_|\0").any()


def test_wrong_labels_are_mostly_of_related_categories(rows):
    wrong = rows[rows.category != rows.true_category]
    found = catalogue.wide()
    place = {name: i for i, name in enumerate(found.names)}
    of, to = wrong.category.map(place), wrong.true_category.map(place)
    weights = found.confusions[of, to] / np.array(found.sizes)[to]
    assert (weights >= 100).mean() > 0.6


def test_a_listing_is_in_a_language_that_sells_its_kind(rows):
    found = catalogue.wide()
    sold = {
        (catalogue.LANGUAGES[lang], name)
        for lang, kinds in found.kinds.items()
        for name, kind in zip(found.names, kinds, strict=True)
        if kind.heads
    }
    assert set(zip(rows.language, rows.true_category, strict=True)) <= sold


def test_other_numbers_of_workers_and_formats_have_the_same_rows(tmp_path, rows):
    for name, workers in (("1.csv.gz", 1), ("2.csv.gz", 2), ("1.parquet", 1)):
        path = tmp_path / name
        write_csv(ROWS, 3, path, progress=False, categories=1588, workers=workers)
    assert (tmp_path / "1.csv.gz").read_bytes() == (tmp_path / "2.csv.gz").read_bytes()
    listings = rows[list(HEADER)]
    assert pd.read_csv(tmp_path / "1.csv.gz", keep_default_na=False).equals(listings)
    table = pq.read_table(tmp_path / "1.parquet")
    assert table.to_pydict() == listings.to_dict("list")


def test_other_workers_write_the_246_categories_to_the_same_bytes(tmp_path):
    for workers in (1, 2):
        write_csv(21_000, 3, tmp_path / f"{workers}.csv", progress=False, workers=workers)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_every_machine_writes_these_bytes(tmp_path):
    write_csv(60_000, 2019, tmp_path / "a.csv", progress=False, categories=1588)
    content = (tmp_path / "a.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("886124c849041a38")


def test_the_command_writes_both_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = "sample a.parquet --categories 1588 --rows 500 --workers 1 --truth t.csv"
    assert not main(arguments.split())
    assert pq.read_metadata("a.parquet").num_rows == 500
    assert len(Path("t.csv").read_text().splitlines()) == 501


def test_a_full_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_000_000_000))
    with pytest.raises(
        ValueError, match=r"about 1\.92GB are needed, 1\.00GB are free: 920MB are missing"
    ):
        write_csv(20_000_000, 1, tmp_path / "new" / "a.csv", progress=False, categories=1588)
    assert not list(tmp_path.iterdir())


def test_other_numbers_of_categories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="246 or 1588, not 500"):
        write_csv(10, 1, tmp_path / "a.csv", categories=500)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_the_workers_and_leaves_nothing(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from titles.datasets import sample
def interrupt(self, block):
    os.kill(os.getpid(), signal.SIGINT)
import tqdm
tqdm.tqdm.update = interrupt
sample.write_csv(5_000_000, 1, Path("a.csv"), categories=1588, workers=2)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=300, capture_output=True)
    assert done.returncode != 0
    assert b"KeyboardInterrupt" in done.stderr
    assert not list(tmp_path.iterdir())
