"""`titles search` without trainings: the file of the space, the decision at the end, the page."""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from searches import COMMIT, GOOD, ROOT, study
from titles.commands.search import _count, _duration, _name, _seeds
from titles.experiments.search import charts, results, runner
from titles.experiments.search.confirm import verdicts
from titles.experiments.search.page import importances, winner, write_page
from titles.experiments.search.results import accuracy, cause, refuse_full_disk
from titles.experiments.search.runner import _bounded
from titles.experiments.search.study import Study
from titles.experiments.store import Revision
from titles.experiments.suite.runner import default_jobs

# -- the study


def test_the_default_is_trial_0_and_all_is_in_the_file(tmp_path: Path) -> None:
    found = study(tmp_path)
    first = found.ask()
    assert first.number == 0
    assert found.settings(first) == {}
    assert first.params == found.space.default()
    found.end(first, TrialState.COMPLETE, [0.5])
    second = found.ask()
    settings = found.settings(second)
    assert settings
    # As after a kill: the trial that runs is the same trial with the same settings.
    again = study(tmp_path)
    (left,) = again.interrupted()
    assert (left.number, again.settings(left)) == (1, settings)
    assert [trial.number for trial in again.ended] == [0]
    with closing(sqlite3.connect(tmp_path / "s.db")) as stored:
        assert stored.execute("select count(*) from trials").fetchall() == [(2,)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_do_not_depend_on_interruptions(tmp_path: Path, sampler: str) -> None:
    text = f"sampler: {sampler}\n{GOOD}"

    def run(folder: Path, reopened: bool) -> list[dict[str, Any]]:
        folder.mkdir()
        found, settings = study(folder, text), []
        for number in range(13):
            if reopened and number % 3 == 0:
                found = study(folder, text)
            trial = found.ask()
            if reopened and number in (3, 12):  # killed before all values were proposed
                trial.suggest_float("mlp.learning_rate", 1e-3, 1e-2, log=True)
                (trial,) = study(folder, text).interrupted()
            settings.append(found.settings(trial))
            found.end(trial, TrialState.COMPLETE, [number % 5 / 10])
        return settings

    proposed = run(tmp_path / "a", False)
    assert proposed == run(tmp_path / "b", True)
    assert len({json.dumps(settings) for settings in proposed}) == len(proposed)


def test_a_look_that_is_repeated_is_not_another(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert found.look([3, 9], [1, 2, 3]) == 1
    assert found.look([3, 9], [1, 2, 3, 4]) == 2
    found = study(tmp_path)
    assert found.look([9, 3], [3, 2, 1]) == 1
    assert found.look([3, 7], [1, 2, 3]) == 3
    assert found.look([3, 9], [1, 2, 3, 4]) == 2


def test_a_study_of_another_space_or_commit_is_refused(tmp_path: Path) -> None:
    study(tmp_path)
    with pytest.raises(ValueError, match=r"of another space: .*--name"):
        study(tmp_path, GOOD.replace("high: 4", "high: 5"))
    with pytest.raises(ValueError, match=r"on commit aaaaaaa, and bbbbbbb is checked out"):
        study(tmp_path, commit="b" * 40)
    study(tmp_path)  # it is as it was


def test_a_file_that_is_no_study_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"something else" * 100)
    with pytest.raises(ValueError, match=r"s\.db cannot be read or written as a study"):
        study(tmp_path)
    assert (tmp_path / "s.db").read_bytes() == b"something else" * 100


# -- results


class _Made(Revision):
    """An experiment whose files are given."""

    files: dict[str, Any] = {}  # noqa: RUF012

    def json(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = self.files[path.as_posix()]
        return found


@pytest.mark.parametrize("test_figure", [float("nan"), -7, None])
def test_figures_of_the_test_split_are_not_read(
    test_figure: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"average.validation_balanced_accuracy": 0.75, "mlp.validation_balanced_accuracy": 0.25}
    absurd = {} if test_figure is None else {"average.balanced_accuracy": test_figure}
    of_mlp = {"mlp": {"validation_balanced_accuracy": 0.5}}
    files = {"metrics/evaluate.json": given | absurd, "metrics/mlp.json": of_mlp}
    monkeypatch.setattr(_Made, "files", files)
    experiment = _Made("x", COMMIT, COMMIT, 0)
    assert accuracy(experiment, "average") == 0.75
    assert accuracy(experiment, "mlp") == 0.5
    del files["metrics/evaluate.json"]
    assert accuracy(experiment, "mlp") == 0.5  # whose trials need nothing of it


@pytest.mark.parametrize("score", [{}, {"validation_balanced_accuracy": float("nan")}])
def test_an_experiment_without_a_score_has_none(
    score: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Made, "files", {"metrics/mlp.json": {"mlp": score}})
    with pytest.raises(ValueError, match="validation_balanced_accuracy"):
        accuracy(_Made("x", COMMIT, COMMIT, 0), "mlp")


class _Curve(Revision):
    """An experiment whose curve is given."""

    text = ""

    def read(self, path: Path) -> bytes:
        assert path.as_posix() == "plots/mlp.json"
        return self.text.encode()


def test_a_curve_is_read_and_a_damaged_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = _Curve("x", COMMIT, COMMIT, 0)
    rows = json.loads((ROOT / "plots/mlp.json").read_bytes())
    monkeypatch.setattr(_Curve, "text", json.dumps(rows))
    assert results.curve(experiment, "mlp") == [row["validation_balanced_accuracy"] for row in rows]
    for damaged in ("", "[1]", '[{"epoch": 1}]', '[{"validation_balanced_accuracy": null}]', "7"):
        monkeypatch.setattr(_Curve, "text", damaged)
        with pytest.raises(ValueError, match="curve of the mlp is damaged"):
            results.curve(experiment, "mlp")


def test_the_cause_of_a_failure_is_told() -> None:
    log = "epoch 1\nerror: the loss is not finite in epoch 1: lower learning_rate\nERROR: failed"
    assert cause(log, 1).startswith("error: the loss is not finite")
    assert cause("ERROR: failed to run: python -m x, exited with -9", 255) == (
        "killed, probably out of memory"
    )
    assert "out of memory" in cause("torch.OutOfMemoryError: CUDA out of memory. Tried", 1)
    assert cause("", 3) == "exit code 3"
    with pytest.raises(ValueError, match="make room"):
        refuse_full_disk("OSError: [Errno 28] No space left on device")
    refuse_full_disk(log)


def test_threads_never_exceed_the_cores() -> None:
    told: list[str] = []
    cores = default_jobs(1)
    assert _bounded(cores + 1, 1, told.append) == cores
    assert f"at once, not {cores + 1}: each needs 1 thread, and there " in told[0]
    assert _bounded(5, cores + 1, told.append) == 1
    assert told[1].startswith(f"1 trial at once, not 5: each needs {cores + 1} threads, and there ")
    assert _bounded(None, cores + 1, told.append) == 1
    assert told[2].startswith(f"1 trial at once: each needs {cores + 1} threads, and there ")
    assert _bounded(None, 1, lambda line: pytest.fail(line)) == cores
    assert _bounded(1, 1, lambda line: pytest.fail(line)) == 1


# -- what a search refuses before it trains


def test_a_page_that_cannot_be_written_is_refused_before_all_work(tmp_path: Path) -> None:
    runner._refuse_unwritable(tmp_path / "new/s.html")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file/s.html"):
        with pytest.raises(ValueError, match="cannot write"):
            runner._refuse_unwritable(out)


def test_only_names_of_trials_and_confirmations_are_those_of_a_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ["s.1-0", "s.1-12", "s.1-confirm-3-123456"]
    others = ["s.1", "s.1-a", "s.1-confirm", "s.1-confirm-3", "s.1-0-1", "s21-0", "xs.1-0", "s.1-0x"]
    made = [Revision(name, COMMIT, COMMIT, 0) for name in (*own, *others)]
    monkeypatch.setattr(results, "experiments", lambda baseline: made)
    assert results.names("s.1", COMMIT) == own
    with pytest.raises(ValueError, match=r"dvc exp remove s\.1-0 s\.1-12 s\.1-confirm-3-123456`"):
        runner._refuse_names("s.1", COMMIT)
    for name in ("a-confirm", "a-confirm-3"):
        with pytest.raises(ValueError, match="give a --name"):
            runner._refuse_names(name, COMMIT)
    runner._refuse_names("confirm", COMMIT)


def test_to_begin_a_study_anew_its_experiments_go_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path)
    monkeypatch.setattr(results, "experiments", lambda _: [Revision("s-0", COMMIT, COMMIT, 0)])
    told = r"remove .*s\.db .*, and its experiments with `dvc exp remove s-0`"
    with pytest.raises(ValueError, match=told):
        study(tmp_path, GOOD.replace("high: 4", "high: 5"))


def test_a_new_study_takes_no_epochs_of_an_earlier_one(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert not found.begun
    found.ask()
    assert study(tmp_path).begun
    tasks = tmp_path / "tasks"
    (tasks / "s-1/project").mkdir(parents=True)
    (tasks / "lock").touch()
    runner._remove_tasks(tasks)
    assert [path.name for path in tasks.iterdir()] == ["lock"]


# -- the page


def searched(folder: Path, text: str, values: list[list[float] | None]) -> Study:
    """A study with results that nothing was trained for; None is a trial that was stopped."""
    found = study(folder, text)
    for value in values:
        trial = found.ask()
        found.settings(trial)
        if value is None:
            trial.report(0.3, 1)
            found.end(trial, TrialState.PRUNED, None, "stopped after epoch 1 of mlp: <low>")
        else:
            found.end(trial, TrialState.COMPLETE, value)
    return found


def test_the_page_shows_the_search_and_needs_no_network(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values: list[list[float] | None] = [[0.5 + float(random.normal(0, 0.01))] for _ in range(20)]
    values[5] = None
    found = searched(tmp_path, GOOD, values)
    assert sum(importances(found).values()) == pytest.approx(1)
    scores = {
        n: {seed: 0.5 + 0.01 * n + 0.001 * (seed % n if n else 0) for seed in (1, 2, 3)}
        for n in (0, 3, 9)
    }
    told = verdicts(scores[0], {n: scores[n] for n in (3, 9)}, {3: 0.06, 9: 0.05}, [1, 2, 3])
    write_page(found, told, scores, tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    best = winner(told)
    assert best is not None
    assert f"dvc exp apply s-{best.trial}" in page
    assert "<script" not in page
    assert not [word for word in ("src=", "@import", 'href="http') if word in page]
    assert "stopped after epoch 1 of mlp: &lt;low&gt;" in page
    for name in (*found.space.default(), "params.yaml", "19 complete", "1 stopped early"):
        assert name in page
    # History, differences, importances, and a slice of each parameter.
    assert page.count("<svg") == 3 + len(found.space.parameters)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.5}}", [[0.5]]),
        ("network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.5}}", [[0.5], None, None]),
        ("network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.5}}", [[0.5]] * 15),
        (GOOD, [[0.5]] * 15),  # all alike
        (
            "network: mlp\nspace: {mlp.epochs: {choices: [3]}, mlp.patience: {choices: [0]}}",
            [[0.5]] * 12,
        ),
        (
            "network: mlp\nobjectives: [validation_balanced_accuracy, training_seconds]\n"
            "space: {mlp.dropout: {low: 0.1, high: 0.5}, mlp.epochs: {low: 2, high: 9}}",
            [[0.5 + n % 7 / 100, 1.0 + n % 5] for n in range(14)],
        ),
    ],
)
def test_the_page_of_few_or_equal_trials(
    tmp_path: Path, text: str, values: list[list[float] | None]
) -> None:
    write_page(searched(tmp_path, text, values), [], {}, tmp_path / "s.html")
    assert (tmp_path / "s.html").read_text().rstrip().endswith("</html>")


def test_choices_have_short_names_on_axes() -> None:
    assert charts.choice_name({"mlp.batch_size": 512, "mlp.min_steps": None}) == "512, null"
    assert charts.choice_name([2, 3]) == "[2, 3]"
    assert charts.choice_name("one_cycle") == "one_cycle"


@pytest.mark.parametrize("arguments", [["search", "--help"], ["predict", "--help"], ["seeds"]])
def test_optuna_is_not_imported_for_other_commands(arguments: list[str]) -> None:
    script = f"import sys, titles.cli as c\ntry: c.main({arguments})\nexcept SystemExit: pass\n"
    script += "print('optuna' in sys.modules, 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


# -- the command


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("90m", 5400), ("2h", 7200), ("1.5h", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert _duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "0h", "2 h", "2w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _duration(text)


def test_counts_and_names_are_checked() -> None:
    assert (_count("0"), _count("3"), _seeds("3"), _name("a-b.2_c")) == (0, 3, 3, "a-b.2_c")
    for parse, text in (
        (_count, "-1"),
        (_seeds, "2"),
        (_name, "a b"),
        (_name, "-a"),
        (_name, "a/b"),
        (_name, "a..b"),
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)
