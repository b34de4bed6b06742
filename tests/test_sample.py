import csv
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from statistics import mean, median

import pytest

from titles.data.documents import parse_yaml
from titles.datasets import catalogue, sample
from titles.datasets.sample import HEADER, generate, write_csv


@pytest.fixture(scope="module")
def rows():
    return list(generate(60_000, 2019))


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a.csv", "b.csv", "a.csv.gz", "b.csv.gz"):
        write_csv(500, 7, tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "a.csv").read_bytes()


def test_another_seed_gives_other_rows():
    assert list(generate(50, 1)) != list(generate(50, 2))


def test_another_process_and_hash_seed_give_the_same_rows():
    code = "from titles.datasets.sample import generate; print(ascii(list(generate(300, 5))))"
    prints = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert prints == [ascii(list(generate(300, 5))) + "\n"] * 2


def test_the_first_rows_do_not_depend_on_the_total(rows):
    assert list(generate(777, 2019)) == rows[:777]
    assert list(islice(generate(20_000_000, 2019), 10_050)) == rows[:10_050]


def test_every_row_fits_the_schema(rows):
    names = set(catalogue.by_hand().names)
    assert {row.label_quality for row in rows} == {"reliable", "unreliable"}
    assert {row.language for row in rows} == {"spanish", "portuguese"}
    assert {row.category for row in rows} | {row.true_category for row in rows} == names
    assert all(row.title == row.title.strip() and "\n" not in row.title for row in rows)


def test_category_names_are_unique_and_upper_case():
    names = catalogue.by_hand().names
    assert len(set(names)) == len(names) >= 130
    assert all(name == name.upper() for name in names)


def test_category_sizes_fall_like_zipf_with_a_tail(rows):
    sizes = sorted(Counter(row.true_category for row in rows).values(), reverse=True)
    assert 2_300 < sizes[0] < 3_500
    assert 20 <= sizes[-1] < 60
    expected = catalogue.by_hand().sizes
    assert expected == sorted(expected, reverse=True)


def test_titles_are_as_long_as_real_ones(rows):
    lengths = [len(row.title) for row in rows]
    assert 3 <= min(lengths) <= max(lengths) <= 120
    assert 45 < mean(lengths) < 51
    assert 50 <= median(lengths) <= 54
    assert 7 < mean(len(row.title.split()) for row in rows) < 8


def test_a_quarter_is_reliable_and_never_mislabelled(rows):
    reliable = [row for row in rows if row.label_quality == "reliable"]
    assert len(reliable) / len(rows) == pytest.approx(0.25, abs=0.01)
    assert all(row.category == row.true_category for row in reliable)


def test_a_sixth_of_the_unreliable_labels_is_wrong_mostly_within_the_cluster(rows):
    unreliable = [row for row in rows if row.label_quality == "unreliable"]
    wrong = [row for row in unreliable if row.category != row.true_category]
    assert 0.15 < len(wrong) / len(unreliable) < 0.2
    usual = Counter(row.category for row in wrong if row.true_category == "LAPTOP_BATTERIES")
    top = {name for name, _ in usual.most_common(4)}
    assert top & {"NOTEBOOKS", "LAPTOP_CHARGERS", "CELLPHONE_BATTERIES", "CAMERA_BATTERIES"}


def test_titles_repeat_exactly_and_some_under_another_label(rows):
    labels = defaultdict(set)
    for row in rows:
        labels[row.title].add(row.category)
    assert 0.02 < 1 - len(labels) / len(rows) < 0.04
    assert any(len(given) > 1 for given in labels.values())


def test_both_languages_fill_half_the_rows_and_most_categories(rows):
    assert mean(row.language == "spanish" for row in rows) == pytest.approx(0.5, abs=0.01)
    pairs = {(row.true_category, row.language) for row in rows}
    assert len(pairs) > 1.9 * len({row.true_category for row in rows})


def test_one_word_names_different_things_in_the_two_languages():
    kinds = catalogue.by_hand().kinds
    sells = {
        lang: {
            name
            for name, kind in zip(catalogue.by_hand().names, kinds[lang], strict=True)
            if "vaso" in kind.heads
        }
        for lang in ("es", "pt")
    }
    assert "DRINKING_GLASSES" in sells["es"]
    assert sells["pt"] == {"PLANT_POTS_AND_PLANTERS", "DECORATIVE_VASES"}


@pytest.mark.parametrize(
    ("thing", "part"), [("celular", "funda"), ("celular", "capa"), ("notebook", "mochila")]
)
def test_the_order_of_the_same_words_decides_the_category(rows, thing, part):
    sold = {"celular": "CELLPHONES", "notebook": "NOTEBOOKS"}[thing]
    orders = Counter(
        (row.true_category == sold, words.index(thing) < words.index(part))
        for row in rows
        if {thing, part} <= set(words := row.title.lower().split())
    )
    assert orders[True, True] > orders[True, False]
    assert orders[False, False] > orders[False, True]


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (-5, 1), (1, -1)])
def test_impossible_arguments_are_refused_before_the_first_row(tmp_path, count, seed):
    with pytest.raises(ValueError, match="must"):
        generate(count, seed)
    with pytest.raises(ValueError, match="must"):
        write_csv(count, seed, tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_leaves_nothing_beside_the_old_file(tmp_path, name, code):
    (tmp_path / "out.csv").write_text("old")
    command = [sys.executable, "-m", "titles.cli", "sample", "out.csv", "--rows", "90000000"]
    process = subprocess.Popen(
        command, cwd=tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)
    )
    while not list(tmp_path.glob(".out.csv.*/out.csv")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(60) == code
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


@pytest.mark.parametrize("truth", ["out.csv", "./a/../out.csv", "link"])
def test_both_files_need_names_of_their_own(tmp_path, monkeypatch, truth):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("link").symlink_to("out.csv")
    Path("out.csv").write_text("old")
    with pytest.raises(ValueError, match="cannot take both"):
        write_csv(10, 1, Path("out.csv"), Path(truth), progress=False)
    assert Path("out.csv").read_text() == "old"


def test_the_file_reads_back_row_by_row_with_its_truth(tmp_path, rows):
    write_csv(5_000, 2019, tmp_path / "out.csv.gz", tmp_path / "truth.csv", progress=False)
    with gzip.open(tmp_path / "out.csv.gz", "rt", encoding="utf-8", newline="") as file:
        header, *read = csv.reader(file)
    assert tuple(header) == HEADER
    assert [tuple(row) for row in read] == [row[:4] for row in rows[:5_000]]
    assert any('"' in row[0] for row in read)
    assert any("," in row[0] for row in read)
    truth = (tmp_path / "truth.csv").read_text("utf-8").splitlines()
    assert truth == ["true_category", *(row.true_category for row in rows[:5_000])]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_midway_leaves_the_folder_as_it_was(tmp_path, monkeypatch, error):
    def broken(*block):
        if block[-1] == 1:
            raise error
        return made(*block)

    made = sample._make
    (tmp_path / "out.csv").write_text("before")
    monkeypatch.setattr(sample, "_make", broken)
    with pytest.raises(error):
        write_csv(10_001, 1, tmp_path / "out.csv", tmp_path / "truth.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "before"


def test_the_committed_sample_is_what_its_command_writes(tmp_path):
    write_csv(60_000, 2019, tmp_path / "sample.csv.gz", progress=False)
    tracked = parse_yaml(Path("data/raw/sample.csv.gz.dvc").read_bytes())["outs"][0]["md5"]
    content = (tmp_path / "sample.csv.gz").read_bytes()
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == tracked
