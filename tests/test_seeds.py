"""Experiments as git keeps them, and what is made of those that differ in nothing but seeds."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from titles.cli import main
from titles.experiments.seeds import Key, _by_split, _summary, _verdict
from titles.experiments.spread import components, summarise
from titles.experiments.store import experiments, find, head

ROOT = Path(__file__).parent.parent
Add = Callable[..., str]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Adds an experiment with balanced accuracies of the CNN, MLP and average to a repository."""
    monkeypatch.chdir(tmp_path)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "src").mkdir()
    (tmp_path / "src/code.py").write_text("1")
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "base")
    base = git(tmp_path, "rev-parse", "HEAD")

    def build(
        name: str, seed: int, values: tuple[float, float, float], split: int | None = 7, **changes: Any
    ) -> str:
        code = changes.pop("code", "1")
        changes["prepare"] = {"split_seed": split} | changes.get("prepare", {})
        merged = {k: v | changes.get(k, {}) if isinstance(v, dict) else v for k, v in params.items()}
        if split is None:
            del merged["prepare"]["split_seed"]
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(merged | {"seed": seed}))
        (tmp_path / "src/code.py").write_text(code)
        measured = {
            network: {"balanced_accuracy": value, "loss": 1 - value}
            for network, value in zip(("cnn", "mlp", "average"), values, strict=True)
        }
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / "metrics/details.json").write_text(json.dumps({"models": measured}))
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", name)
        git(tmp_path, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", "HEAD")
        revision = git(tmp_path, "rev-parse", "HEAD")
        git(tmp_path, "reset", "-q", "--hard", base)
        return revision

    return build


def table(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, str]]:
    assert main(["seeds", "--csv", *options]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_a_summary_is_the_one_computed_by_hand() -> None:
    # 0.80, 0.82, 0.87: mean 0.83; squares of deviations 0.0009, 0.0001, 0.0016, so that the deviation is
    # the root of 0.0026 / 2 = 0.0013; t of 2 degrees of freedom at 97.5 % is 4.302653.
    n, mean, deviation, low, high = summarise([0.80, 0.82, 0.87])
    half = 4.302653 * 0.0013**0.5 / 3**0.5
    assert n == 3
    assert mean == pytest.approx(0.83)
    assert deviation == pytest.approx(0.0013**0.5)
    assert (low, high) == pytest.approx((0.83 - half, 0.83 + half))
    assert summarise([0.5]) == (1, 0.5, None, None, None)
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_seeds_are_summarised_by_network(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("a", 1, (0.80, 0.5, 0.9))
    add("b", 2, (0.82, 0.5, 0.9))
    add("c", 3, (0.87, 0.5, 0.6))
    cnn, mlp, average = table(capsys)
    assert list(cnn) == [
        *("experiment", "network", "splits", "runs", "mean", "deviation", "low", "high"),
        *("seed_deviation", "split_deviation", "seeds"),
    ]
    assert cnn["experiment"] == "a"
    assert [row["network"] for row in (cnn, mlp, average)] == ["cnn", "mlp", "average"]
    assert (cnn["splits"], cnn["runs"], cnn["seeds"]) == ("7", "3", "1 2 3")
    assert float(cnn["seed_deviation"]) == pytest.approx(0.0013**0.5)
    assert cnn["split_deviation"] == ""
    half = 4.302653 * 0.0013**0.5 / 3**0.5
    assert float(cnn["mean"]) == pytest.approx(0.83)
    assert float(cnn["low"]) == pytest.approx(0.83 - half)
    assert float(mlp["deviation"]) == 0
    assert float(average["mean"]) == pytest.approx(0.8)
    assert main(["seeds"]) == 0
    told = capsys.readouterr().out
    assert "0.7404 .. 0.9196" in told
    assert "not measured" in told
    assert main(["seeds", "--md"]) == 0
    assert "| cnn       | 7        | 3      | 0.8300 | 0.0361" in capsys.readouterr().out


def test_what_differs_in_more_than_the_seed_stands_apart(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("b", 2, (0.6, 0.6, 0.6))
    add("c", 1, (0.5, 0.5, 0.5), cnn={"epochs": 99})
    add("d", 2, (0.3, 0.3, 0.3), cnn={"epochs": 99}, code="2")
    rows = [row for row in table(capsys) if row["network"] == "cnn"]
    assert [(row["cnn.epochs"], row["runs"], float(row["mean"])) for row in rows] == [
        ("auto", "2", pytest.approx(0.7)),
        ("99", "1", 0.5),
        ("99", "1", 0.3),
    ]
    assert len({row["code"] for row in rows}) == 2


def test_settings_that_ran_once_stand_apart_from_those_with_a_spread(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("a2", 2, (0.6, 0.6, 0.6))
    add("wide", 1, (0.51, 0.52, 0.53), cnn={"epochs": 99})
    add("deep", 5, (0.41, 0.42, 0.43), mlp={"epochs": 77})
    assert main(["seeds"]) == 0
    spread, _, single = capsys.readouterr().out.partition("One run each, which shows no spread:")
    assert "0.7000" in spread
    assert not {"wide", "deep", "0.5100", "99", "77"} & set(spread.split())
    rows = [line.split() for line in single.strip().splitlines()]
    assert rows[0] == [
        "experiment",
        "cnn.epochs",
        "mlp.epochs",
        "cnn",
        "mlp",
        "average",
        "split",
        "seed",
    ]
    assert sorted(rows[2:]) == [
        ["deep", "auto", "77", "0.4100", "0.4200", "0.4300", "7", "5"],
        ["wide", "99", "auto", "0.5100", "0.5200", "0.5300", "7", "1"],
    ]
    # In CSV all are in one table, and `runs` tells them apart.
    assert [row["runs"] for row in table(capsys) if row["network"] == "cnn"] == ["2", "1", "1"]


def test_without_two_seeds_of_any_settings_no_spread_is_shown(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("wide", 1, (0.5, 0.5, 0.5), cnn={"epochs": 99})
    assert main(["seeds"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("No settings ran with two seeds or more, so that no spread is known.")
    assert "95 % interval" not in told


def test_two_settings_in_a_summary_are_compared_in_pairs(
    compared: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seeds", "--metric", "accuracy"]) == 1
    capsys.readouterr()
    assert main(["seeds"]) == 0
    told = capsys.readouterr().out
    line = (
        "nine is the same as five in all 2 splits of equal seeds: balanced_accuracy of the average of "
    )
    assert f"\n{line}all networks.\n" in told
    assert "titles seeds five nine" in told
    compared("third", 1, (0.5, 0.5, 0.5), cnn={"epochs": 3})
    compared("third-2", 2, (0.5, 0.5, 0.5), cnn={"epochs": 3})
    assert main(["seeds"]) == 0
    told = capsys.readouterr().out
    assert line not in told
    assert "To compare two in pairs of equal seeds: titles seeds five nine" in told


def test_two_settings_without_equal_seeds_are_said_to_have_none(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        add(f"five{seed}", seed, (0.8, 0.5, 0.6), cnn={"epochs": 5})
        add(f"nine{seed}", seed + 2, (0.8, 0.5, 0.6), cnn={"epochs": 9})
    assert main(["seeds"]) == 0
    assert "five1 and nine1 have no runs with equal seeds to compare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "values", "verdict"),
    [
        (
            "balanced_accuracy",
            (0.10, 0.11, 0.12),
            "nine1 is better than five1, +0.1100 (95 % interval +0.0",
        ),
        ("loss", (0.10, 0.11, 0.12), "nine1 is better than five1, -0.1100 (95 % interval -0.1"),
        ("balanced_accuracy", (-0.1, -0.11, -0.12), "nine1 is worse than five1, -0.1100 (95 % interval"),
        ("loss", (-0.1, -0.11, -0.12), "nine1 is worse than five1, +0.1100 (95 % interval"),
        ("balanced_accuracy", (0.1, -0.1, 0), "nine1 is not distinguishable from five1, +0.0000 (95 %"),
        ("balanced_accuracy", (0, 0, 0), "nine1 is the same as five1 in all 3 pairs of equal seeds: "),
        (
            "balanced_accuracy",
            (0.1,),
            "nine1 and five1 cannot be told apart by one pair of runs, +0.1000: ",
        ),
    ],
)
def test_a_comparison_opens_with_one_sentence_on_the_average(
    add: Add, capsys: pytest.CaptureFixture[str], metric: str, values: tuple[float, ...], verdict: str
) -> None:
    for seed, more in enumerate(values, 1):
        add(f"five{seed}", seed, (0.5, 0.5, 0.5), cnn={"epochs": 5})
        add(f"nine{seed}", seed, (0.9, 0.1, 0.5 + more), cnn={"epochs": 9})
    assert main(["seeds", "five1", "nine1", "--metric", metric]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(verdict)
    assert f"{metric} of the average of all networks" in first


def test_a_seed_that_ran_twice_counts_once(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("again", 1, (0.8, 0.8, 0.8))
    assert table(capsys)[0]["runs"] == "1"


def test_equal_numbers_are_equal_however_they_are_written(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8), cnn={"logit_adjustment": 1, "weight_decay": "1e-5"})
    add("b", 2, (0.8, 0.8, 0.8), cnn={"logit_adjustment": 1.0, "weight_decay": 0.00001})
    assert table(capsys)[0]["runs"] == "2"


def test_two_runs_that_should_be_equal_and_are_not_are_named(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("again", 1, (0.7, 0.8, 0.8))
    assert main(["seeds", "--csv"]) == 0
    told = capsys.readouterr()
    assert "warning: a and again have the same settings and seeds, but other scores" in told.err
    assert next(csv.DictReader(told.out.splitlines()))["mean"] == "0.7"


def test_components_are_those_computed_by_hand() -> None:
    # Squares within: 2 * 0.01^2 + 2 * 0.02^2 = 0.001, over 2 degrees of freedom. Means 0.81 and 0.92, so
    # that 4 * 0.055^2 = 0.0121 is the mean square between, of splits of 2 runs.
    found = components({1: [0.80, 0.82], 2: [0.90, 0.94]})
    assert found.seed == pytest.approx(0.0005**0.5)
    assert found.split == pytest.approx(((0.0121 - 0.0005) / 2) ** 0.5)
    # Means that differ by less than chance: no variance between splits.
    assert components({1: [0.8, 0.9], 2: [0.81, 0.89]}).split == 0
    assert components({1: [0.8, 0.9]}) == (pytest.approx(0.005**0.5), None)
    assert components({1: [0.8], 2: [0.9]}) == (None, None)


def test_components_are_found_again_in_unequal_numbers_of_runs() -> None:
    chance = random.Random(1)
    values = {}
    for split in range(3000):
        level = chance.gauss(0.9, 0.05)
        values[split] = [chance.gauss(level, 0.02) for _ in range(chance.randint(1, 4))]
    assert components(values) == (pytest.approx(0.02, rel=0.03), pytest.approx(0.05, rel=0.03))


def test_the_worth_of_the_seed_and_that_of_the_split_stand_apart(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, seed, value in ((1, 5, 0.80), (1, 6, 0.82), (2, 5, 0.90), (2, 6, 0.94), (3, 5, 0.85)):
        add(f"run-{split}-{seed}", seed, (value, value, value), split)
    first, second, overall = [row for row in table(capsys) if row["network"] == "cnn"]
    assert (first["splits"], first["runs"], first["split_deviation"]) == ("1", "2", "")
    assert float(first["deviation"]) == float(first["seed_deviation"]) == pytest.approx(0.0002**0.5)
    assert (second["splits"], float(second["mean"])) == ("2", pytest.approx(0.92))
    assert (overall["splits"], overall["runs"], overall["seeds"]) == ("1 2 3", "5", "5 6")
    # The mean of the means of the splits, and its interval from their deviation.
    expected = summarise([0.81, 0.92, 0.85])
    shown = tuple(float(overall[name]) for name in ("mean", "deviation", "low", "high"))
    assert shown == pytest.approx(expected[1:])
    spread = components({1: [0.80, 0.82], 2: [0.90, 0.94], 3: [0.85]})
    assert (float(overall["seed_deviation"]), float(overall["split_deviation"])) == pytest.approx(spread)


def test_one_run_on_each_split_measures_neither(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("a", 1, (0.80, 0.8, 0.8), 1)
    add("b", 2, (0.84, 0.8, 0.8), 2)
    cnn = table(capsys)[0]
    assert (cnn["splits"], cnn["runs"]) == ("1 2", "2")
    assert float(cnn["mean"]) == pytest.approx(0.82)
    assert (cnn["seed_deviation"], cnn["split_deviation"]) == ("", "")


def pairs(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, str]]:
    return table(capsys, "five", "nine", *options)


@pytest.fixture
def compared(add: Add) -> Add:
    """Settings `five` and `nine`, with three common pairs of seeds and one run more each."""
    for split, seed, one, other in ((7, 1, 0.80, 0.82), (7, 2, 0.90, 0.93), (8, 1, 0.70, 0.71)):
        name = "" if (split, seed) == (7, 1) else f"-{split}-{seed}"
        add(f"five{name}", seed, (one, 0.5, 0.6), split, cnn={"epochs": 5})
        add(f"nine{name}", seed, (other, 0.5, 0.6), split, cnn={"epochs": 9})
    add("five-more", 3, (0.1, 0.1, 0.1), cnn={"epochs": 5})
    add("nine-more", 4, (0.2, 0.2, 0.2), cnn={"epochs": 9})
    return add


def test_two_settings_are_compared_by_pairs_of_seeds(
    compared: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    cnn, mlp, _ = pairs(capsys)
    expected = summarise([0.025, 0.01])  # means of the pairs on each split
    assert (cnn["pairs"], cnn["splits"], cnn["seeds"]) == ("3", "7 8", "1 2")
    assert (float(cnn["mean of five"]), float(cnn["mean of nine"])) == pytest.approx((0.775, 0.7925))
    shown = tuple(float(cnn[name]) for name in ("difference", "deviation", "low", "high"))
    assert shown == pytest.approx(expected[1:])
    spread = components({7: [0.02, 0.03], 8: [0.01]})
    assert float(cnn["split_deviation"]) == pytest.approx(spread.split)
    assert float(mlp["difference"]) == 0
    assert main(["seeds", "nine-8-1", "five-more"]) == 0
    told = capsys.readouterr().out
    assert "five-more minus nine-8-1, balanced_accuracy. They differ in: cnn.epochs 9 -> 5." in told
    interval = "-0.0175 (95 % interval -0.1128 to +0.0778, 2 splits of equal seeds)"
    assert f"\ncnn: five-more is not distinguishable from nine-8-1, {interval}.\n" in told
    assert "\nmlp: five-more is the same as nine-8-1 in all 2 splits of equal seeds.\n" in told
    left = "seed 4 on split 7 of nine-8-1; seed 3 on split 7 of five-more."
    assert f"Left out, as the other has no run with these seeds: {left}" in told


@pytest.mark.parametrize(("splits", "seeds"), [(2, 2), (3, 3), (3, 10), (10, 3), (1, 3)])
def test_without_a_difference_one_is_called_better_in_5_percent_of_all_cases(
    splits: int, seeds: int
) -> None:
    chance, called = random.Random(1), 0
    for _ in range(1000):
        found = {}
        for split in range(splits):
            level = chance.gauss(0, 0.01) if splits > 1 else 0.0
            found |= {Key(split, seed): chance.gauss(level, 0.01) for seed in range(seeds)}
        told = _verdict(_summary(_by_split(found)), "", "one", "other", "accuracy")
        called += "is better" in told or "is worse" in told
    assert called <= 75  # 50 are expected; 75 are 3.6 standard deviations more


def test_splits_by_words_and_by_titles_do_not_pair(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """The parameters of an older version have no split seed."""
    for seed in (1, 2):
        add(f"old{seed}", seed, (0.8, 0.5, 0.6), None)
        add(f"other{seed}", seed, (0.9, 0.5, 0.6), None, cnn={"epochs": 9})
        add(f"new{seed}", seed, (0.8, 0.5, 0.6), seed, cnn={"epochs": 5})
    assert main(["seeds", "old1", "new1"]) == 1
    assert "old1 has seed 1 on split 1, by words, seed 2 on split 2, by words" in capsys.readouterr().err
    row = table(capsys, "old1", "other1")[0]
    assert (row["pairs"], row["splits"]) == ("2", "1, by words 2, by words")
    # Among those, the words decided the test titles; now they do not.
    add("zero", 1, (0.8, 0.5, 0.6), None, prepare={"digits": "zero"})
    assert main(["seeds", "old1", "zero"]) == 0
    assert "may differ, as do prepare.digits." in capsys.readouterr().out
    add("zero-now", 1, (0.8, 0.5, 0.6), 1, prepare={"digits": "zero"})
    assert main(["seeds", "new1", "zero-now"]) == 0
    assert "may differ" not in capsys.readouterr().out


def test_the_better_one_is_that_of_the_greater_score_and_the_smaller_loss(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in ((1, 0.80), (2, 0.70), (3, 0.90)):
        drift = {"drift_length": 3}
        add(f"low{seed}", seed, (value, 0.5, 0.5), mlp={"epochs": 5}, prepare=drift)
        add(f"high{seed}", seed, (value + 0.1 + seed / 1000, 0.5, 0.5), mlp={"epochs": 9})
    for metric in ("balanced_accuracy", "loss"):
        assert main(["seeds", "low1", "high1", "--metric", metric]) == 0
        told = capsys.readouterr().out
        assert "cnn: high1 is better than low1, " in told
        assert "test titles of a pair may differ" not in told


def test_one_pair_is_said_to_have_no_interval_and_none_is_an_error(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("five", 1, (0.8, 0.5, 0.6), prepare={"min_rows": 5, "min_count": 5})
    add("nine", 1, (0.9, 0.5, 0.6), prepare={"min_rows": 9, "min_count": 9})
    add("far", 1, (0.9, 0.5, 0.6), 8, prepare={"min_count": 8})
    assert main(["seeds", "five", "nine"]) == 0
    told = capsys.readouterr().out
    assert "cannot be told apart by one pair of runs, +0.1000." in told
    assert "The test titles of a pair may differ, as do prepare.min_rows." in told
    assert pairs(capsys)[0]["low"] == ""
    for names, message in (
        (
            ("five", "far"),
            "no run of five has the seeds of a run of far: five has seed 1 on split 7, far",
        ),
        (("five", "five"), "differ in nothing but their seeds"),
        (("five",), "name two experiments to compare, or none"),
        (("five", "nine", "--rev", "HEAD"), "--rev is for a summary"),
        (("five", "HEAD"), "metrics/details.json"),
        (("five", "workspace"), "the workspace is no experiment yet"),
        (("five", "nine", "--metric", "top_3"), "have no pair of runs with top_3"),
    ):
        assert main(["seeds", *names]) == 1
        assert message in capsys.readouterr().err


def test_an_experiment_that_cannot_be_read_is_left_out_with_a_line(
    add: Add, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = add("whole", 1, (0.8, 0.8, 0.8))
    base = git(tmp_path, "rev-parse", "HEAD")
    for name, file, content in (
        ("damaged", "metrics/details.json", "{"),
        ("empty", "metrics/details.json", "{}"),
        ("list", "metrics/details.json", "[1]"),
        ("odd", "params.yaml", "- a"),
        ("bare", "params.yaml", "cnn: {epochs: 3}"),
    ):
        git(tmp_path, "checkout", "-q", whole)
        (tmp_path / file).write_text(content)
        git(tmp_path, "commit", "-qam", name)
        git(tmp_path, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", "HEAD")
        git(tmp_path, "checkout", "-q", "main")
    assert main(["seeds", "--csv"]) == 0
    told = capsys.readouterr()
    assert [row["runs"] for row in csv.DictReader(told.out.splitlines())] == ["1"] * 3
    for name in ("damaged", "empty", "list", "odd", "bare"):
        assert f"warning: {name} is left out: " in told.err
    assert "its params.yaml has no prepare.split_seed" in told.err


@pytest.mark.parametrize("seed", [None, "abc", "1", True, 1.5, [1], float("nan"), "1, by words"])
@pytest.mark.parametrize("split", [7, None])
def test_a_seed_that_is_no_number_leaves_its_experiment_out(
    add: Add, capsys: pytest.CaptureFixture[str], seed: Any, split: int | None
) -> None:
    add("whole", 1, (0.8, 0.8, 0.8))
    add("odd", seed, (0.7, 0.7, 0.7), split)
    assert main(["seeds", "--csv"]) == 0
    told = capsys.readouterr()
    assert [row["seeds"] for row in csv.DictReader(told.out.splitlines())] == ["1"] * 3
    assert told.err.startswith("warning: odd is left out: ")
    assert main(["seeds", "whole", "odd"]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("split", [None, "x", "7", True, [7], "1, by words "])
def test_a_split_seed_that_is_no_number_leaves_its_experiment_out(
    add: Add, capsys: pytest.CaptureFixture[str], split: Any
) -> None:
    add("whole", 1, (0.8, 0.8, 0.8))
    add("odd", 1, (0.7, 0.7, 0.7), prepare={"split_seed": split})
    assert main(["seeds", "--csv"]) == 0
    told = capsys.readouterr()
    assert [row["runs"] for row in csv.DictReader(told.out.splitlines())] == ["1"] * 3
    assert told.err.startswith("warning: odd is left out: ")


def test_settings_of_any_form_are_grouped_and_compared(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"a": [[1, 2], {"b": None}], "c": date(2020, 1, 1), "d": float("nan"), "e": [], 3: {4: [5]}}
    for seed in (1, 2):
        add(f"odd{seed}", seed, (0.8, 0.8, 0.8), cnn=odd)
        add(f"other{seed}", seed, (0.8, 0.8, 0.8), cnn=odd | {"a": [[1, 3]]})
    assert [row["runs"] for row in table(capsys)] == ["2"] * 6
    assert table(capsys, "odd1", "other1")[0]["pairs"] == "2"


def test_a_parameter_that_others_have_is_told_and_shown_as_not_set(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("before", 1, (0.8, 0.8, 0.8))
    add("after", 1, (0.8, 0.8, 0.8), cnn={"brand_new": 3})
    assert main(["seeds"]) == 0
    told = capsys.readouterr()
    assert "warning: before has no cnn.brand_new: its version did not know" in told.err
    assert "not set" in told.out


def test_another_metric_can_be_asked_for(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("a", 1, (0.8, 0.7, 0.6))
    assert float(table(capsys, "--metric", "loss")[0]["mean"]) == pytest.approx(0.2)


def test_without_experiments_the_command_that_makes_some_is_told(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seeds"]) == 1
    assert "dvc exp run --queue -S 'seed=1,2,3'" in capsys.readouterr().err


def test_an_experiment_is_found_by_name_and_by_revision(add: Add) -> None:
    revision = add("a", 1, (0.8, 0.8, 0.8))
    assert find("a") == find(revision[:8])
    assert find("a").commit == revision
    assert find("main").commit == find("HEAD").commit == head()
    assert [found.name for found in experiments(head())] == ["a"]
    with pytest.raises(ValueError, match="no experiment, branch, tag or commit named 'nope'"):
        find("nope")
    with pytest.raises(ValueError, match="'--all'"):
        find("--all")
