"""`titles table`: scores on validation beside those on test, and no figures that are not a row's own."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from small_project import commit, run
from titles.cli import main
from titles.experiments.table import Row, shown

ROOT = Path(__file__).parent.parent
Add = Callable[..., str]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Adds experiments to a repository that has the results of the committed run, without its data."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "metrics", ".dvc/config"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    run(tmp_path, "git", "init", "-q", "-b", "main")
    commit(tmp_path, "base")

    def build(name: str, validation: float, test: float, **params: int) -> str:
        base = run(tmp_path, "git", "rev-parse", "HEAD").strip()
        put(tmp_path, validation, test, **params)
        commit(tmp_path, name)
        run(tmp_path, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", "HEAD")
        run(tmp_path, "git", "reset", "-q", "--hard", base)
        return base

    return build


def put(folder: Path, validation: float, test: float, **params: int) -> None:
    """Write scores of the average, and parameters of the CNN, as a run would."""
    details: Any = json.loads((folder / "metrics/details.json").read_text())
    details["models"]["average"] |= {
        "validation_balanced_accuracy": validation,
        "balanced_accuracy": test,
    }
    content = json.dumps(details).encode()
    (folder / "metrics/details.json").write_bytes(content)
    lock: Any = yaml.safe_load((folder / "dvc.lock").read_text())
    for out in lock["stages"]["evaluate"]["outs"]:
        if out["path"] == "metrics/details.json":
            out["md5"] = hashlib.md5(content).hexdigest()
    for stage in ("train_cnn", "evaluate"):
        lock["stages"][stage]["params"]["params.yaml"]["cnn"] |= params
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def table(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, str]]:
    assert main(["table", "--csv", *options]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_rows_are_sorted_by_validation_with_test_beside_it(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("lucky", 0.90, 0.99, epochs=5)
    add("better", 0.95, 0.91, epochs=9)
    rows = table(capsys)
    assert [row["experiment"] for row in rows] == ["better", "main (workspace)", "lucky"]
    assert [row["average validation"] for row in rows][::2] == ["0.950000", "0.900000"]
    assert [row["average test"] for row in rows][::2] == ["0.910000", "0.990000"]
    assert [row["cnn.epochs"] for row in rows][::2] == ["9", "5"]
    assert {*rows[0]} > {"CNN validation", "MLP test", "average test low", "average test high"}
    assert not [name for name in rows[0] if name.startswith("mlp.")], "parameters that do not differ"


def test_a_network_of_another_commit_has_the_last_columns() -> None:
    score = {"validation_balanced_accuracy": 0.5, "balanced_accuracy": 0.4}
    row = Row("other", scores={"gru": score, "average": score, "mlp": score})
    header = shown([row], "csv").splitlines()[0].split(",")
    assert [name for name in header if name.endswith("validation")] == [
        "average validation",
        "MLP validation",
        "GRU validation",
    ]


def test_the_terminal_has_three_digits_and_an_interval(
    add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"main \(workspace\) +0\.\d{3} +0\.\d{3} +0\.\d{3} \.\. 0\.\d{3} ", printed)
    assert not re.search(r"\d\.\d{4}", printed)
    assert main(["table", "--md"]) == 0
    assert capsys.readouterr().out.startswith("| experiment ")


def test_experiments_of_earlier_commits_are_there_if_asked_for(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = add("early", 0.9, 0.9, epochs=5)
    (tmp_path / "more").touch()
    commit(tmp_path, "more")
    add("late", 0.95, 0.9, epochs=9)

    def names(*options: str) -> set[str]:
        return {row["experiment"] for row in table(capsys, *options)}

    assert names() == {"late", "main (workspace)"}
    every = {"late", "main (workspace)", "early", first[:7]}
    assert names("-n", "2") == names("--all") == every


def test_the_workspace_is_a_row_where_it_differs_and_results_that_do_not_fit_have_no_figures(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 0.5, 0.5, epochs=5)
    workspace, here = table(capsys)[::-1]
    assert (workspace["experiment"], here["experiment"]) == ("workspace", "main")
    assert workspace["average validation"] == "0.500000"
    path = tmp_path / "metrics/details.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))  # no longer the file of dvc.lock
    workspace = next(row for row in table(capsys) if row["experiment"] == "workspace")
    assert workspace["average validation"] == "-"
    assert workspace["CNN validation"] != "-"


def test_it_says_why_equal_parameters_gave_other_figures(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 0.5, 0.5)
    assert main(["table"]) == 0
    assert "equal parameters. What differs:\n  versions of packages" in capsys.readouterr().out
    lock: Any = yaml.safe_load((tmp_path / "dvc.lock").read_text())
    for dep in lock["stages"]["train_cnn"]["deps"]:
        if dep["path"] == "src/titles/training":
            dep["md5"] = "0" * 32 + ".dir"
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert main(["table"]) == 0
    assert "What differs:\n  src/titles/training (0000000 " in capsys.readouterr().out
    put(tmp_path, 0.5, 0.5, epochs=5)
    assert main(["table"]) == 0
    assert "equal parameters" not in capsys.readouterr().out


@pytest.mark.pipeline
def test_experiments_that_wait_or_failed_have_no_figures_of_their_parent(
    base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(base, folder, symlinks=True)
    run(folder, "dvc", "exp", "run", "--queue", "--name", "bad", "-S", "cnn.epochs=0")
    run(folder, "dvc", "queue", "start")
    end = time.monotonic() + 300
    while "Failed" not in run(folder, "dvc", "queue", "status"):
        assert time.monotonic() < end
        time.sleep(1)
    run(folder, "dvc", "queue", "stop", "--kill")
    run(folder, "dvc", "exp", "run", "--queue", "--name", "later", "-S", "cnn.epochs=1")
    rows = {
        row["experiment"]: row
        for row in csv.DictReader(run(folder, "titles", "table", "--csv").splitlines())
    }
    for name in ("bad (failed)", "later (waiting)"):
        assert {value for key, value in rows[name].items() if key != "experiment"} == {"-"}
