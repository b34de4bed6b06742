"""How far data is from that which models learnt from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from documents import commands, read, sections
from small_project import copy, ran, run
from titles.data.contract import NO_REFERENCE
from titles.data.files import atomic_folder
from titles.models.registry import load_params
from titles.params import Prepare
from titles.prepare import drift
from titles.prepare.preparation import prepare

ROOT = Path(__file__).parent.parent
NOUNS = {"TABLES": "mesa", "CASES": "funda", "PHONES": "celular", "SHIPS": "barco"}
SHARES = ("categories", "languages", "unknown_words", "rejected")


def settings(**changes: Any) -> Prepare:
    changes = {"min_rows": 1, "min_count": 1, "strip_accents": True} | changes
    return load_params(ROOT / "params.yaml").prepare.model_copy(update=changes)


def write(path: Path, counts: dict[str, int], language: str = "spanish", more: str = "") -> str:
    """A catalogue with so many rows of each category; `more` are further words of each title."""
    rows = [
        f"{NOUNS.get(category, 'otro')} n{category}{number}{more},reliable,{language},{category}\n"
        for category, count in counts.items()
        for number in range(count)
    ]
    path.write_text("title,label_quality,language,category\n" + "".join(rows), encoding="utf-8")
    return str(path)


def prepared(tmp_path: Path, name: str, source: str, **changes: Any) -> dict[str, Any]:
    with atomic_folder(tmp_path / name) as folder:
        return prepare(settings(source=source, **changes), folder)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """The profile of 60 tables and 40 cases, two words a title."""
    source = write(tmp_path / "old.csv", {"TABLES": 60, "CASES": 40})
    metrics = prepared(tmp_path, "old", source)
    assert "drift" not in metrics
    return str(tmp_path / "old/profile.json")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines on stderr, without that on parameters that the rows leave without effect."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if not line.startswith("note: without effect in this run: ")]


def test_a_profile_counts_the_rows_that_are_used(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", {"TABLES": 50, "CASES": 30, "SHIPS": 2})
    with Path(source).open("a", encoding="utf-8") as stream:
        stream.write(",reliable,spanish,TABLES\n")  # no title
        stream.write("mesa nTABLES1!,reliable,spanish,TABLES\n")  # a duplicate
        for number in range(16):
            category = ("CASES", "TABLES")[number % 2]
            stream.write(f"a b c d e f k{number},reliable,portuguese,{category}\n")
    metrics = prepared(tmp_path, "a", source, min_rows=3)
    profile = json.loads((tmp_path / "a/profile.json").read_text(encoding="utf-8"))
    assert profile == {
        "rows": 96,
        "categories": {"CASES": 0.395833, "TABLES": 0.604167},
        "languages": {"spanish": 0.833333, "portuguese": 0.166667},
        "unknown_words": metrics["unknown_words"]["validation"],
        "title_words": {"p05": 2, "p25": 2, "p50": 2, "p75": 2, "p95": 7},
        "rejected": 0.04,
    }
    prepared(tmp_path, "b", source, min_rows=3, language="portuguese", test_fraction=0.2)
    of_one = json.loads((tmp_path / "b/profile.json").read_text(encoding="utf-8"))
    assert of_one["languages"] == {"portuguese": 1.0}
    assert of_one["rejected"] == pytest.approx(1 / 17, abs=1e-6)


def test_the_same_data_does_not_drift(
    tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = prepared(tmp_path, "new", str(tmp_path / "old.csv"), reference=reference)
    assert set(metrics["drift"].values()) == {0}
    assert told(capsys) == []
    # With or without a reference, what is written is the same: nothing has to be trained again.
    for file in ("profile.json", "vocabulary.tsv", "train/word_ids.npy"):
        assert (tmp_path / "new" / file).read_bytes() == (tmp_path / "old" / file).read_bytes()


def test_each_change_shows_in_its_figure_and_past_its_threshold_in_a_warning(
    tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"TABLES": 30, **{f"NEW{number:02}": 2 for number in range(35)}}
    source = write(tmp_path / "new.csv", counts, "portuguese", " de tres palabras")
    with Path(source).open("a", encoding="utf-8") as stream:
        stream.write(",reliable,portuguese,TABLES\n" * 25)
    metrics = prepared(tmp_path, "new", source, reference=reference)
    profile = json.loads((tmp_path / "new/profile.json").read_text(encoding="utf-8"))
    assert metrics["drift"] | {"unknown_words": None} == {
        "categories": 0.7,  # 0.3 in common, of TABLES
        "new_categories": 35,
        "vanished_categories": 1,
        "languages": 1.0,
        "unknown_words": None,
        "length": 3,
        "rejected": 0.2,
    }
    before = json.loads(Path(reference).read_text(encoding="utf-8"))
    rise = profile["unknown_words"] - before["unknown_words"]
    assert metrics["drift"]["unknown_words"] == pytest.approx(rise, abs=1e-6)
    lines = told(capsys)
    assert [re.findall(r"prepare\.drift_(\w+)", line)[0] for line in lines] == [
        "categories",
        "languages",
        "length",
        "rejected",
    ]
    assert lines[0] == (
        f"warning: the data differs from {reference}: categories 0.7, past prepare.drift_categories = "
        f"0.1; new: {', '.join(f'NEW{n:02}' for n in range(10))} and 25 more; vanished: CASES"
    )
    assert "new: portuguese; vanished: spanish" in lines[1]

    loose = {f"drift_{name}": 1.0 for name in SHARES} | {"drift_length": 3}
    again = prepared(tmp_path, "new", source, reference=reference, **loose)
    assert again == metrics
    assert told(capsys) == []


def test_more_unknown_words_are_told(
    tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "new.csv"
    write(source, {"TABLES": 60, "CASES": 40})
    rows = source.read_text(encoding="utf-8").splitlines()
    # The category's own word is drawn from many, too.
    changed = [re.sub(r"^(mesa|funda) ", rf"w{number} ", row) for number, row in enumerate(rows)]
    source.write_text("\n".join(changed) + "\n", encoding="utf-8")
    drifted = prepared(tmp_path, "new", str(source), reference=reference)["drift"]
    assert drifted["unknown_words"] == 0.5
    assert drifted["categories"] == 0
    assert "unknown_words 0.5, past prepare.drift_unknown_words = 0.02" in capsys.readouterr().err


def test_fewer_unknown_words_and_fewer_rejected_rows_are_no_harm() -> None:
    worse = profile(unknown_words=0.4, rejected=0.5)
    better = profile(unknown_words=0.1, rejected=0.1)
    figures = drift.compare(better, worse)
    assert (figures["unknown_words"], figures["rejected"]) == (-0.3, -0.4)
    assert drift.warnings(figures, better, worse, settings()) == []
    without = drift.compare(profile(unknown_words=None), worse)
    assert "unknown_words" not in without
    assert drift.warnings(without, profile(unknown_words=None), worse, settings()) == []


def profile(**changes: Any) -> drift.Profile:
    values: dict[str, Any] = {
        "rows": 9,
        "categories": {"A": 1.0},
        "languages": {"spanish": 1.0},
        "unknown_words": 0.1,
        "title_words": drift.quantiles(np.arange(1, 10)),
        "rejected": 0.0,
    }
    return drift.Profile(**values | changes)


def test_the_distance_of_chance_alone_is_what_the_page_says() -> None:
    """0.4 * sqrt(categories / rows of one + categories / rows of the other), see docs/drift.md."""
    generator = np.random.default_rng(3)
    names = [str(number) for number in range(250)]
    one, other = (drift.shares(names, generator.integers(0, 250, 20_000)) for _ in range(2))
    distance = drift.compare(profile(categories=one), profile(categories=other))["categories"]
    assert distance == pytest.approx(0.4 * np.sqrt(2 * 250 / 20_000), rel=0.2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("", "not a profile of data"),
        ("{}", "not a profile of data: Field required"),
        (profile().model_dump_json().replace('"rows":9', '"rows":-9'), "not a profile of data: Input"),
        (profile().model_dump_json().replace("p05", "p06"), "title_words must have p05"),
        (profile().model_dump_json().replace('"A":1.0', '"A":NaN'), "not a profile of data"),
    ],
)
def test_a_reference_that_is_no_profile_is_refused_before_any_work(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "reference.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"prepare\.reference is .*reference\.json") as caught:
        prepared(tmp_path, "new", str(tmp_path / "no.csv"), reference=str(file))
    assert reason in str(caught.value)
    assert "Name a copy of data/prepared/profile.json, made when the models" in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_the_file_that_stands_for_no_reference_is_the_default() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert values["prepare"]["reference"] == NO_REFERENCE
    assert (ROOT / NO_REFERENCE).is_file()
    assert drift.read(NO_REFERENCE) is None


@pytest.mark.pipeline
@pytest.mark.endures
def test_the_commands_of_the_page_do_what_it_says(base: Path, tmp_path: Path) -> None:
    tmp_path = copy(base, tmp_path / "project")
    (tmp_path / "data/raw/new.csv").write_text(
        "title,category\n" + "".join(f"palabra{n} otra{n % 7},C{n % 3}\n" for n in range(300)),
        encoding="utf-8",
    )
    blocks = [
        text for one in sections(read("docs/drift.md")) for kind, text in one.blocks if kind == "bash"
    ]
    lines = [line for block in blocks for line in commands(block)]
    printed = ""
    for line in lines:
        # Training on it is what other tests do.
        line = re.sub(r"dvc exp run(.*)", r"dvc exp run\1 prepare", line)
        printed += run(tmp_path, "bash", "-c", line)
    assert ran(printed) == ["prepare"]
    assert "warning: the data differs from data/reference.json: categories 1, past" in printed
    assert "vanished: " in printed
    drifted = json.loads((tmp_path / "metrics/prepare.json").read_text(encoding="utf-8"))["drift"]
    assert drifted["new_categories"] == 3
    assert "drift.categories" in printed  # of dvc metrics show


def test_spellings_of_a_category_are_no_drift(
    tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = json.loads(Path(reference).read_text(encoding="utf-8"))
    profile["categories"] = {"ROPA BEBÉ": 0.3, "ROPA BEBE\u0301": 0.2, "MESA\u00a0": 0.1, "CASES": 0.4}
    Path(reference).write_text(json.dumps(profile), encoding="utf-8")
    read_again = drift.read(reference)
    assert read_again
    assert read_again.categories == {"ROPA BEBÉ": 0.5, "MESA": 0.1, "CASES": 0.4}
    names = ["ROPA  BEBÉ"] * 25 + ["ROPA BEBE\u0301"] * 25 + ["CASES"] * 40 + ["MESA"] * 10
    rows = "".join(f"nombre n{number},,spanish,{name}\n" for number, name in enumerate(names))
    source = tmp_path / "a.csv"
    source.write_text("title,id,language,category\n" + rows, encoding="utf-8")
    capsys.readouterr()
    metrics = prepared(tmp_path, "a", str(source), reference=reference)
    assert metrics["drift"]["categories"] == 0
    assert metrics["drift"]["new_categories"] == metrics["drift"]["vanished_categories"] == 0
    (line,) = told(capsys)
    assert line.startswith("note: 50 rows have a category in another spelling")
    assert "'ROPA  BEB\\xc9' as 'ROPA BEBÉ' (25)" in line
    assert "'ROPA BEBE\\u0301' as 'ROPA BEBÉ' (25)" in line
