"""Sets of categories: how they are chosen, what they cover, and `titles predict --cover`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from networks import LABEL_NAMES, NAMES, C, encoded
from saved_models import write_models
from titles.cli import main
from titles.evaluation import sets
from titles.models.parts import saved
from titles.models.parts.inference import evaluate
from titles.models.registry import AVERAGE, CLASSIFIERS, NETWORKS
from titles.predict.classifier import Classifier

CPU = torch.device("cpu")
TITLES = ["Word5  WORD3", "", "word9 word4 word4 word10", "word7 word8", "unheard word3", "word3"]


@pytest.mark.parametrize(
    ("rows", "level", "place"),
    [(19, 0.95, 19), (18, 0.95, 19), (99, 0.55, 55), (99, 0.99, 99), (98, 0.99, 99), (1, 0.5, 1)],
)
def test_the_place_of_a_threshold_is_exact(rows: int, level: float, place: int) -> None:
    assert sets.rank(rows, level) == place


def test_a_threshold_covers_as_many_calibration_rows_as_its_place_says() -> None:
    random = np.random.default_rng(1)
    true_N = random.integers(0, 40, 500).astype(np.float32) / 41  # with ties
    group_N = random.integers(0, 2, 500)
    levels = [0.5, 0.9, 0.99]
    for level, found in zip(levels, sets.thresholds(true_N, group_N, levels), strict=True):
        for group, threshold in enumerate(found):
            scores = true_N[group_N == group]
            needed = sets.rank(len(scores), level)
            assert np.sum(scores >= np.float32(threshold)) >= needed
            assert np.sum(scores > np.float32(threshold)) < needed


def test_groups_are_by_size_and_have_rows_enough_for_the_highest_level() -> None:
    random = np.random.default_rng(2)
    train_C = random.permutation(np.arange(100) ** 2)
    rows_C = train_C // 10
    group_C = sets.groups(train_C, rows_C)
    by_size = group_C[np.argsort(train_C)]
    assert np.all(np.diff(by_size) >= 0)
    found = np.bincount(group_C, rows_C)
    assert 5 < len(found) <= 10
    assert found.min() >= 99
    # The rarest two tenths have too few by themselves; the others are tenths.
    assert np.bincount(group_C)[-1] == 10
    assert np.bincount(group_C)[0] > 10


@pytest.mark.parametrize("rows", [0, 1, 98])
def test_too_few_rows_make_one_group(rows: int) -> None:
    train_C = np.arange(1, 31)
    rows_C = np.zeros(30, np.int64)
    rows_C[-1] = rows
    assert set(sets.groups(train_C, rows_C).tolist()) == {0}


def test_what_is_left_over_goes_to_the_last_group() -> None:
    rows_C = np.array([100, 100, 10])
    assert sets.groups(np.array([1, 2, 3]), rows_C).tolist() == [0, 1, 1]


def simulated(rows: int, categories: int) -> tuple[Any, Any, Any]:
    """Scores and labels of a classifier that knows rare categories less well, and rows in train."""
    random = np.random.default_rng(3)
    share_C = np.geomspace(1, 12, categories)
    share_C /= share_C.sum()
    labels_N = random.choice(categories, rows, p=share_C)
    skill_C = np.linspace(2.0, 4.0, categories)
    logits_NC = random.normal(size=(rows, categories)) + np.log(share_C) / 2
    logits_NC[np.arange(rows), labels_N] += skill_C[labels_N] * random.gamma(4, 0.25, rows)
    odds_NC = np.exp(logits_NC)
    probability_NC = (odds_NC / odds_NC.sum(axis=1, keepdims=True)).astype(np.float32)
    return sets.scores(probability_NC), labels_N, (share_C * 1e6).astype(np.int64)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_categories_of_all_sizes_are_covered_over_many_splits(level: float) -> None:
    score_NC, labels_N, train_C = simulated(24_000, 40)
    accuracy = np.mean(score_NC[np.arange(len(labels_N)), labels_N] == 1)
    assert accuracy < level - 0.05  # else sets of one category would cover more
    random = np.random.default_rng(4)
    tenth_C = sets.tenth_of(train_C)
    covered: list[Any] = []
    of_all: list[Any] = []
    for _ in range(20):
        order = random.permutation(len(labels_N))
        ours, others = order[:12_000], order[12_000:]
        true_N = score_NC[ours, labels_N[ours]]
        one_group = np.zeros(40, np.int64)
        for group_C, found in (
            (sets.groups(train_C, np.bincount(labels_N[ours], minlength=40)), covered),
            (one_group, of_all),
        ):
            (threshold_G,) = sets.thresholds(true_N, group_C[labels_N[ours]], [level])
            threshold_C = np.array(threshold_G, np.float32)[group_C]
            hit_N = score_NC[others, labels_N[others]] >= threshold_C[labels_N[others]]
            found.append(
                [
                    hit_N.mean(),
                    sets.means(hit_N, labels_N[others], 40).mean(),
                    *sets.means(hit_N, tenth_C[labels_N[others]], 10),
                ]
            )
    assert np.mean(covered, axis=0) == pytest.approx(np.full(12, level), abs=0.01)
    # One threshold for all covers as many titles, and leaves the rare categories out.
    rows, categories, rarest, *_ = np.mean(of_all, axis=0)
    assert rows == pytest.approx(level, abs=0.01)
    assert categories < level - 0.02
    assert rarest < level - 0.05


# -- the file


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_models(tmp_path_factory.mktemp("trained") / "models")
    made(folder).write(folder / "sets.json")
    return folder


def made(folder: Path) -> sets.Sets:
    """Two groups and three levels; the thresholds of each model are other ones."""
    tables = {
        name: [[0.3 - shift, 0.26 - shift], [0.2 - shift, 0.25 - shift], [0.0, 0.1 - shift]]
        for name, shift in zip(CLASSIFIERS, (0.0, 0.01, 0.02), strict=True)
    }
    networks = {name: sets.fingerprint(folder / name) for name in NAMES}
    return sets.Sets(
        levels=[0.5, 0.9, 0.95], groups=[0, 1, 1, 0], rows=[30, 40], thresholds=tables, networks=networks
    )


def folders(models: Path, name: str) -> list[Path]:
    return [models / each for each in (NAMES if name == AVERAGE else [name])]


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.5, [0.3, 0.26]), (0.51, [0.2, 0.25]), (0.9, [0.2, 0.25]), (0.95, [0, 0.1])],
)
def test_the_lowest_level_that_is_enough_is_used(
    models: Path, level: float, expected: list[float]
) -> None:
    name = CLASSIFIERS[0]
    found = sets.Sets.read(models / "sets.json").of(name, folders(models, name), level)
    assert found.dtype == np.float32
    one, other = np.array(expected, np.float32).tolist()
    assert found.tolist() == [one, other, other, one]


def test_a_level_that_is_not_proven_is_refused_with_the_most_that_is(models: Path) -> None:
    found = sets.Sets.read(models / "sets.json")
    with pytest.raises(ValueError, match=r"^0.99 cannot be covered: 0.95 is the most that 30 titles"):
        found.of(AVERAGE, folders(models, AVERAGE), 0.99)
    none = found.model_copy(update={"levels": [], "thresholds": {name: [] for name in CLASSIFIERS}})
    with pytest.raises(ValueError, match=r"too few titles: see prepare.calibration_share"):
        none.of(AVERAGE, folders(models, AVERAGE), 0.5)


def test_sets_are_those_of_the_networks_that_were_evaluated(models: Path, tmp_path: Path) -> None:
    other = write_models(tmp_path / "models")
    path = other / "cnn/model.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"temperature": 1', '"temperature": 2'))
    found = sets.Sets.read(models / "sets.json")
    for name in ("cnn", AVERAGE):
        with pytest.raises(ValueError, match=r"not those of .*models/cnn: `dvc repro evaluate`"):
            found.of(name, folders(other, name), 0.9)
    found.of("mlp", folders(other, "mlp"), 0.9)
    with pytest.raises(ValueError, match="no sets of answers for the model average of cnn"):
        found.of(AVERAGE, [models / "cnn"], 0.9)
    with pytest.raises(ValueError, match="no sets of answers for the model gru"):
        found.of("gru", [models / "gru"], 0.9)


DAMAGE = {
    "levels": [[0.9, 0.5, 0.95], [0.5, 0.9, 1.0], ["0.5"], 3],
    "groups": [[0, 1, 1, 2], [0, 1, 1, -1], [0.5]],
    "rows": [[30], None],
    "thresholds": [{"cnn": [[0.1, 0.2]]}, {"cnn": [[0.1], [0.1], [0.1]]}, {"cnn": [[0.1, 2.0]] * 3}],
    "networks": [{"cnn": 5}, []],
    "more": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in DAMAGE for value in DAMAGE[key]])
def test_a_damaged_file_is_told_in_one_line(models: Path, tmp_path: Path, key: str, value: Any) -> None:
    values = json.loads((models / "sets.json").read_text(encoding="utf-8")) | {key: value}
    path = tmp_path / "sets.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sets\.json is damaged: .") as told:
        sets.Sets.read(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"levels": NaN}'])
def test_what_is_no_such_file_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sets.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"sets\.json (is damaged|cannot be read)") as told:
        sets.Sets.read(path)
    assert "\n" not in str(told.value)


# -- predictions


def test_evaluation_and_prediction_have_the_same_probabilities_to_the_last_digit(models: Path) -> None:
    found: dict[str, Any] = {name: np.empty((8, C), np.float32) for name in CLASSIFIERS}

    def seen(rows: Any, probabilities: Any) -> None:
        for name, probability_BC in zip(CLASSIFIERS, probabilities, strict=True):
            found[name][rows] = probability_BC.numpy()

    read = [saved.read(models / name, NETWORKS) for name in NAMES]
    networks = [model.network for model in read]
    evaluate(networks, encoded(), CPU, 3, saved.weights(read), seen)
    for name in CLASSIFIERS:
        expected = Classifier.read(models, name, CPU).probabilities(encoded())
        assert found[name].tolist() == expected.tolist()


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_a_set_has_the_categories_at_their_thresholds_the_likeliest_first(
    models: Path, name: str, level: float
) -> None:
    classifier = Classifier.read(models, name, CPU)
    threshold_C = sets.Sets.read(models / "sets.json").of(name, folders(models, name), level)
    probability_NC = classifier.probabilities(classifier.encode(TITLES))
    found = [*classifier.sets(TITLES, threshold_C).rows()]
    for title, chances, (codes, shares) in zip(TITLES, probability_NC, found, strict=True):
        ranking = sorted(range(C), key=lambda code: (-chances[code], code))
        expected = [c for c in ranking if chances[c] >= threshold_C[c] or c == ranking[0]]
        assert codes == (expected if title else [])
        assert shares == [chances[c] for c in codes]
    assert classifier.sets([], threshold_C).ends_N.tolist() == []
    alone = [next(classifier.sets([title], threshold_C).rows()) for title in TITLES]
    assert alone == found


def test_a_threshold_of_one_leaves_the_likeliest_and_of_zero_all(models: Path) -> None:
    classifier = Classifier.read(models, "cnn", CPU)
    top = classifier.top(TITLES, 1).categories_NK[:, 0].tolist()
    one = classifier.sets(TITLES, np.ones(C, np.float32))
    assert [codes for codes, _ in one.rows()] == [[code] if code >= 0 else [] for code in top]
    everything = classifier.sets(TITLES, np.zeros(C, np.float32))
    assert [sorted(codes) for codes, _ in everything.rows()] == [
        list(range(C)) if title else [] for title in TITLES
    ]


def test_of_equal_probabilities_one_is_the_likeliest() -> None:
    scores = sets.scores(np.array([[0.25, 0.25, 0.25, 0.25]], np.float32))
    assert scores.tolist() == [[1, 0.25, 0.25, 0.25]]


@pytest.fixture
def predict(models: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    def run(*arguments: Any) -> tuple[int | None, bytes, str]:
        code = main(["predict", "--models", str(models), *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def expected_sets(models: Path, level: float) -> list[list[str]]:
    threshold_C = sets.Sets.read(models / "sets.json").of(AVERAGE, folders(models, AVERAGE), level)
    found = Classifier.read(models, AVERAGE, CPU).sets(TITLES, threshold_C)
    return [[LABEL_NAMES[code] for code in codes] for codes, _ in found.rows()]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_sets_are_written_in_each_format(predict: Any, models: Path, tmp_path: Path, kind: str) -> None:
    file, out = tmp_path / "titles.csv", tmp_path / f"found.{kind}"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["title", "price"], *([title, 5] for title in TITLES)])
    code, _, told = predict("--file", file, "--cover", 0.9, "--out", out)
    assert code == 0
    assert "categories per title on average; 1 without a category: empty title 1" in told
    if kind == "csv":
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert all(row["size"] == str(row["categories"].count("|") + 1) for row in rows if row["title"])
        for row in rows:
            row["categories"] = row["categories"].split("|") if row["size"] else None
            row["size"] = int(row["size"]) if row["size"] else None
    elif kind == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pq.read_table(out).to_pylist()
    assert list(rows[0]) == ["row", "title", "price", "categories", "size", "problem"]
    found = expected_sets(models, 0.9)
    assert len({len(one) for one in found}) > 2
    assert [row["categories"] for row in rows] == [one or None for one in found]
    assert [row["size"] for row in rows] == [len(one) or None for one in found]


def test_names_with_a_bar_or_quotes_are_quoted_in_csv(tmp_path: Path) -> None:
    from titles.predict.files import _line

    names = ("plain", "a|b", 'c"d', "e,f", "", " g ")
    (found,) = csv.reader(io.StringIO(_line(names)), delimiter="|")
    assert tuple(found) == names
    assert _line(("A", "B")) == "A|B"


def test_a_table_shows_the_categories_of_a_set(predict: Any, models: Path) -> None:
    _, out, _ = predict(TITLES[0], "--cover", 0.9, "--out-format", "table")
    found = out.decode()
    assert [name for name in LABEL_NAMES if name in found] == sorted(expected_sets(models, 0.9)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cover", 0.9, "--top", 5], "--cover and --top exclude each other"),
        (["--cover", 0.9, "--at-least", 0.5], "--cover and --at-least exclude each other"),
        (["--cover", 0.49], "'0.49' is not a number from 0.5 to 0.99"),
        (["--cover", 1], "'1' is not a number from 0.5 to 0.99"),
        (["--cover", "nan"], "'nan' is not a number from 0.5 to 0.99"),
    ],
)
def test_bad_usage_ends_with_2(
    capsys: pytest.CaptureFixture[str], options: list[Any], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "word3", *map(str, options)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cover", 0.99], "0.99 cannot be covered: 0.95 is the most that 30 titles"),
        (["--cover", 0.9, "--models", "nowhere"], "nowhere/sets.json is missing"),
    ],
)
def test_what_cannot_be_covered_is_told_and_ends_with_1(
    predict: Any, options: list[Any], message: str
) -> None:
    code, out, told = predict("word3", *options)
    assert (code, out) == (1, b"")
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("name", ["categories", "size"])
def test_a_column_that_the_output_needs_is_not_written_over(
    predict: Any, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "titles.csv"
    file.write_text(f"title,{name}\nword3,x\n")
    code, _, told = predict("--file", file, "--cover", 0.9)
    assert code == 1
    assert f"the listing has a column '{name}', which the output needs" in told
    assert predict("--file", file)[0] == 0
