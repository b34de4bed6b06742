"""Reports of real DVC experiments, beside what DVC and git themselves say of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import small_project
from test_report import cells
from titles.evaluation.metrics import balanced_accuracy
from titles.experiments.report.comparison import compare
from titles.experiments.report.experiment import load

pytestmark = pytest.mark.pipeline

run = small_project.run


@pytest.fixture(scope="module")
def experiments(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.copy(base, tmp_path_factory.mktemp("report") / "project")


@pytest.fixture
def clone(experiments: Path, tmp_path: Path) -> Path:
    """The project on another machine, where nothing was pulled."""
    run(tmp_path, "git", "clone", "-q", str(experiments), "clone")
    return tmp_path / "clone"


def report(folder: Path, *arguments: str, fails: bool = False) -> str:
    return run(folder, sys.executable, "-m", "titles.cli", "report", *arguments, fails=fails)


def gate(folder: Path, *arguments: str, code: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "titles.cli", "gate", *arguments],
        cwd=folder,
        env=small_project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code == 3 else done.stdout


def scores(folder: Path, revision: str) -> dict[str, Any]:
    text = run(folder, "git", "show", f"{revision}:metrics/details.json")
    found: dict[str, Any] = json.loads(text)["models"]
    return found


def revision(folder: Path, name: str) -> str:
    listed = run(folder, "dvc", "exp", "list", "--sha-only").split()
    names = run(folder, "dvc", "exp", "list", "--name-only").split()
    return listed[names.index(name)]


def tables(folder: Path, file: str = "report.md") -> list[list[str]]:
    return cells((folder / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reported(experiments: Path) -> list[list[str]]:
    before = run(experiments, "git", "rev-parse", "HEAD")
    told = report(experiments, "main", "narrow", "slow", "--model", "cnn")
    assert told.endswith("written: report.html, report.md\n")
    # Nothing was checked out.
    assert run(experiments, "git", "rev-parse", "HEAD") == before
    assert run(experiments, "git", "status", "--porcelain") == ""
    run(experiments, "dvc", "status", "-q")
    return tables(experiments)


@pytest.mark.parametrize("name", ["main", "narrow", "slow"])
def test_scores_are_those_that_git_holds_of_the_experiment(
    experiments: Path, reported: list[list[str]], name: str
) -> None:
    commit = "main" if name == "main" else revision(experiments, name)
    found = scores(experiments, commit)
    for model, full_name in (("cnn", "CNN"), ("mlp", "MLP"), ("average", "Average")):
        score = found[model]
        rows = [row for row in reported if row[0] == name and len(row) == 10 and row[4] == full_name]
        assert len(rows) == 1
        assert rows[0][1] == run(experiments, "git", "rev-parse", commit)[:7]
        assert rows[0][5:] == [
            f"{score['validation_balanced_accuracy']:.3f}",
            f"{score['balanced_accuracy']:.3f}",
            f"{score['balanced_accuracy_low']:.3f} to {score['balanced_accuracy_high']:.3f}",
            f"{score['accuracy']:.3f}",
            f"{score['loss']:.3f}",
        ]


def test_predictions_add_up_to_the_scores(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiments)
    for name in ("main", "narrow", "workspace"):
        found = load(name)
        for model, outcomes in found.predictions.outcomes.items():
            score = found.scores[model]
            assert balanced_accuracy(outcomes.labels_N, outcomes.right_N) == pytest.approx(
                score["balanced_accuracy"], abs=1e-6
            )
            assert outcomes.loss_N.mean() == pytest.approx(score["loss"], abs=1e-5)
            assert (outcomes.rank_N < 5).mean() == pytest.approx(score["top_5"], abs=1e-6)
            assert ((outcomes.rank_N == 0) == outcomes.right_N).all()


def test_the_paired_difference_is_that_of_the_scores(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(experiments)
    main, narrow = load("main"), load("narrow")
    pair = compare(main, narrow, "cnn")
    rows = json.loads((experiments / "metrics/prepare.json").read_text())["rows"]["test"]
    assert pair.rows == len(main.predictions) == rows
    for model, test in pair.tests.items():
        gain = narrow.scores[model]["balanced_accuracy"] - main.scores[model]["balanced_accuracy"]
        assert test["difference"] == pytest.approx(gain, abs=2e-6)
    before, after = (one.predictions.outcomes["cnn"].right_N for one in (main, narrow))
    gained, lost = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    assert (pair.tests["cnn"]["only_one"], pair.tests["cnn"]["only_other"]) == (gained, lost)
    assert gained + lost > 0


def test_parameters_and_curves_are_those_of_the_runs(
    experiments: Path, reported: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    differing = {row[0]: row[1:] for row in reported if len(row) == 4}
    changes = {row[0]: row[2] for row in reported if len(row) == 10}
    assert (changes["main"], changes["narrow"]) == ("", "cnn.filter_count 8 → 5")
    assert differing == {
        "Parameter": ["main", "narrow", "slow"],
        "cnn.filter_count": ["8", "5", "8"],
        "mlp.learning_rate": ["0.004", "0.004", "0.001"],
    }
    monkeypatch.chdir(experiments)
    curves = load("narrow").curves
    assert [epoch for epoch, _ in curves["mlp"]["train/loss"]] == [1, 2]
    best = load("narrow").best["cnn"]
    curve = dict(curves["cnn"]["validation/balanced_accuracy"])
    assert curve[int(best["best_epoch"])] == pytest.approx(
        best["validation_balanced_accuracy"], abs=1e-6
    )


@pytest.mark.endures
def test_an_experiment_on_other_titles_is_told_and_not_compared(experiments: Path) -> None:
    small_project.experiment(experiments, "other-split", "prepare.split_seed=5")
    report(experiments, "main", "other-split", "--out", "other.html", "--markdown", "other.md")
    page = (experiments / "other.html").read_text(encoding="utf-8")
    assert (
        "other-split was not evaluated on the same test titles as main (they differ in prepare." in page
    )
    assert "Too few to compare them" in page
    rows = [row for row in tables(experiments, "other.md") if row[0] == "other-split" and len(row) == 9]
    assert {row[5] for row in rows} == {"left out: evaluated on different test titles"}


def test_a_report_can_be_made_from_a_folder_below_into_any_file(
    experiments: Path, reported: list[list[str]], tmp_path: Path
) -> None:
    files = ("--out", str(tmp_path / "a/page.html"), "--markdown", str(tmp_path / "b.md"))
    report(experiments / "src", "main", "narrow", "slow", "--model", "cnn", *files)
    assert tables(tmp_path, "b.md") == reported
    assert (tmp_path / "a/page.html").read_bytes() == (experiments / "report.html").read_bytes()


def test_what_the_cache_lacks_is_read_from_the_remote(clone: Path) -> None:
    report(clone, "HEAD", "workspace")
    rows = [row for row in tables(clone) if len(row) == 9][1:]
    assert [row[5] for row in rows] == ["the same"] * 3


def test_an_experiment_whose_data_are_elsewhere_is_shown_without_them_and_says_how_to_fetch_it(
    experiments: Path, clone: Path
) -> None:
    run(clone, "git", "fetch", "-q", "origin", "refs/exps/*:refs/exps/*")
    told = report(clone, "main", "narrow")
    line = "predictions/test.parquet of narrow is neither in DVC's cache nor in a remote"
    assert f"warning: {line}" in told
    assert "`dvc exp pull origin narrow`" in told
    page = (clone / "report.md").read_text(encoding="utf-8")
    assert line in page
    assert "left out: predictions are missing" in page
    told = gate(clone, "main", "narrow", code=3)
    assert f"error: not compared: {line}" in told
    assert "Traceback" not in told


def test_a_gate_lets_pass_what_is_not_surely_worse(experiments: Path) -> None:
    assert [line.split()[:3] for line in gate(experiments, "main", "main", code=0).splitlines()] == [
        ["ok", f"{model}:", "0.0000"] for model in ("cnn", "mlp", "average")
    ]
    gate(experiments, "main", "main~1", code=3)


def test_a_gate_fails_for_what_is_surely_worse(base: Path, tmp_path: Path) -> None:
    folder = small_project.copy(base, tmp_path / "project")
    path = folder / "predictions/test.parquet"
    table = pq.read_table(path)
    # An MLP that is always right, to compare with.
    names = table.column_names
    table = table.set_column(names.index("mlp"), "mlp", table["category"])
    ranks = pa.array(np.zeros(len(table), np.int32))
    table = table.set_column(names.index("mlp_rank"), "mlp_rank", ranks)
    path.unlink()  # it may be a link into DVC's cache
    pq.write_table(table, path)
    found = {line.split()[1]: line for line in gate(folder, "workspace", "main", code=1).splitlines()}
    assert found["mlp:"].startswith("WORSE mlp: -0.9")
    assert found["cnn:"].startswith("ok cnn: 0.0000 (95 % from 0.0000 to 0.0000), margin 0.005")
    assert "ok mlp: -0.9" in gate(folder, "workspace", "main", "--within", "0.9999", code=0)


def test_what_is_no_experiment_or_has_not_run_is_refused(experiments: Path) -> None:
    told = report(experiments, "main", "narrrow", fails=True)
    assert "error: there is no experiment, branch, tag or commit named 'narrrow': `dvc exp list" in told
    told = report(experiments, "main~1", fails=True)
    assert "error: main~1 has no metrics/details.json: it was not run to its end" in told
    told = report(experiments.parent, "main", fails=True)
    assert "error: this is not the folder of a project in git" in told
