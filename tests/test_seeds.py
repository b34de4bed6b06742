"""Experiments as git keeps them, and what is made of those that differ in the seed alone."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from titles.cli import main
from titles.experiments.seeds import summarise
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

    def build(name: str, seed: int, values: tuple[float, float, float], **changes: Any) -> str:
        code = changes.pop("code", "1")
        merged = {k: v | changes.get(k, {}) if isinstance(v, dict) else v for k, v in params.items()}
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
    assert list(cnn) == ["network", "n", "mean", "deviation", "low", "high", "seeds"]
    assert [row["network"] for row in (cnn, mlp, average)] == ["cnn", "mlp", "average"]
    assert (cnn["n"], cnn["seeds"]) == ("3", "1 2 3")
    half = 4.302653 * 0.0013**0.5 / 3**0.5
    assert float(cnn["mean"]) == pytest.approx(0.83)
    assert float(cnn["low"]) == pytest.approx(0.83 - half)
    assert float(mlp["deviation"]) == 0
    assert float(average["mean"]) == pytest.approx(0.8)
    assert main(["seeds"]) == 0
    assert "0.7404 .. 0.9196" in capsys.readouterr().out
    assert main(["seeds", "--md"]) == 0
    assert "| cnn       | 3   | 0.8300 | 0.0361" in capsys.readouterr().out


def test_what_differs_in_more_than_the_seed_stands_apart(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("b", 2, (0.6, 0.6, 0.6))
    add("c", 1, (0.5, 0.5, 0.5), cnn={"epochs": 99})
    add("d", 2, (0.3, 0.3, 0.3), cnn={"epochs": 99}, code="2")
    rows = [row for row in table(capsys) if row["network"] == "cnn"]
    assert [(row["cnn.epochs"], row["n"], float(row["mean"])) for row in rows] == [
        ("12", "2", pytest.approx(0.7)),
        ("99", "1", 0.5),
        ("99", "1", 0.3),
    ]
    assert len({row["code"] for row in rows}) == 2


def test_a_seed_that_ran_twice_counts_once(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("a", 1, (0.8, 0.8, 0.8))
    add("again", 1, (0.8, 0.8, 0.8))
    assert table(capsys)[0]["n"] == "1"


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
