"""`titles search` without trainings: the file of the space, the decision at the end, the page."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from optuna.trial import TrialState

from searches import BASE, COMMIT, GOOD, ROOT, study
from titles.commands.search import _count, _duration, _name, _seeds
from titles.data.files import write_json
from titles.experiments.search import charts, results, runner, task
from titles.experiments.search.confirm import verdicts
from titles.experiments.search.page import importances, winner, write_page
from titles.experiments.search.results import accuracy, cause, refuse_full_disk
from titles.experiments.search.runner import _bounded
from titles.experiments.search.study import Study
from titles.experiments.store import Revision
from titles.experiments.suite.runner import default_jobs
from titles.models.registry import parse_params
from titles.tracking import provenance
from titles.tracking import trial as channel

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


# -- what a training and the search tell each other


def test_a_training_reports_each_epoch_once_and_stops_when_told(tmp_path: Path) -> None:
    channel.answering(tmp_path)
    tracker = channel.TrialTracker("cnn", tmp_path, 4)

    def answer(*stops: str) -> None:
        for number, stop in enumerate(stops):
            while len(channel.epochs(tmp_path)) <= number:
                time.sleep(0.01)
            channel.answer(tmp_path, stop)

    search = threading.Thread(target=answer, args=("", "it is bad"))
    search.start()
    tracker.log({"validation/balanced_accuracy": 0.5}, 1)
    with pytest.raises(
        channel.StoppedError, match="stopped by the search after epoch 2 of cnn: it is bad"
    ):
        tracker.log({"validation/balanced_accuracy": 0.6}, 2)
    search.join()
    # A training that resumes passes the epochs that it has told.
    resumed = channel.TrialTracker("cnn", tmp_path, 4)
    resumed.log({"validation/balanced_accuracy": 0.5}, 1)
    assert [(e.epoch, e.validation_balanced_accuracy, e.planned) for e in channel.epochs(tmp_path)] == [
        (1, 0.5, 4),
        (2, 0.6, 4),
    ]


def test_epochs_of_a_version_that_did_not_say_how_many_were_planned_are_read(tmp_path: Path) -> None:
    line = {"network": "cnn", "epoch": 3, "seconds": 1.0, "validation_balanced_accuracy": 0.5}
    (tmp_path / "epochs.jsonl").write_text(f"{json.dumps(line)}\n", encoding="utf-8")
    (epoch,) = channel.epochs(tmp_path)
    assert not runner._is_over([epoch], parse_params(BASE).network("cnn"))


def test_a_training_goes_on_if_the_search_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "search.pid").write_text(str(process.pid))
    channel.TrialTracker("cnn", tmp_path, 4).log({"validation/balanced_accuracy": 0.5}, 1)
    assert len(channel.epochs(tmp_path)) == 1


def test_a_line_that_is_half_written_does_not_count(tmp_path: Path) -> None:
    channel.TrialTracker("cnn", tmp_path, 4).log({"validation/balanced_accuracy": 0.5}, 1)
    with (tmp_path / "epochs.jsonl").open("a") as stream:
        stream.write('{"network": "cnn", "ep')
    assert len(channel.epochs(tmp_path)) == 1


@pytest.mark.parametrize("line", ["[1]", '{"epoch": 1}', "[" * 100_000, "\udcff", '{"stop": }'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    for name, read in (("epochs.jsonl", channel.epochs), ("answers.jsonl", channel.answers)):
        (tmp_path / name).write_text(f"{line}\n", encoding="utf-8", errors="surrogateescape")
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            read(tmp_path)


@pytest.mark.parametrize("half", ['{"st', '{"stop": ""}', "{"])
def test_a_line_is_written_in_place_of_a_half_written_one(tmp_path: Path, half: str) -> None:
    channel.answer(tmp_path, "")
    with (tmp_path / "answers.jsonl").open("a") as stream:
        stream.write(half)
    channel.answer(tmp_path, "it is bad")
    assert channel.answers(tmp_path) == ["", "it is bad"]
    (tmp_path / "epochs.jsonl").write_text(half)
    for _ in range(2):  # the second is a training that resumes
        channel.TrialTracker("cnn", tmp_path, 4).log({"validation/balanced_accuracy": 0.5}, 1)
    channel.TrialTracker("mlp", tmp_path, 4).log({"validation/balanced_accuracy": 0.25}, 1)
    assert [(e.network, e.epoch) for e in channel.epochs(tmp_path)] == [("cnn", 1), ("mlp", 1)]


def test_the_first_epoch_does_not_count_for_the_time() -> None:
    trained = [channel.Epoch("cnn", n, s, 0.5) for n, s in ((1, 60.0), (2, 2.0), (3, 4.0))]
    assert channel.training_seconds(trained) == 9
    assert channel.training_seconds(trained[:1]) == 60


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


# -- early stopping


AVERAGED = "network: average\nspace: {mlp.dropout: {low: 0.1, high: 0.5}}"
BY_MEDIAN = "network: mlp\nspace: {mlp.dropout: {low: 0.1, high: 0.5}}"
EPOCHS = 12
WARM_UP = 3
CURVES = {"cnn": 0.9, "mlp": 0.5}  # of the complete trials, the same after each epoch


def under_way(
    folder: Path, text: str, complete: int = 5, told: list[str] | None = None
) -> tuple[runner._Search, runner._Active]:
    """A search with complete trials, and a trial of it that runs."""
    found = study(folder, text)
    for _ in range(complete):
        trial = found.ask()
        found.settings(trial)
        for network in found.space.networks:
            for epoch in range(1, EPOCHS + 1):
                trial.report(CURVES[network], runner._step(found.space, network, epoch))
        found.end(trial, TrialState.COMPLETE, [0.7])
    lines = [] if told is None else told
    search = runner._Search(found, folder, 1, runner.Wanted(9), lines.append)
    trial = found.ask()
    return search, runner._Active(trial, found.space.params(found.settings(trial)))


def curve(network: str, *scores: float) -> list[channel.Epoch]:
    return [channel.Epoch(network, n, 1.0, score, EPOCHS) for n, score in enumerate(scores, 1)]


def test_the_median_is_that_of_the_network_after_the_same_epoch(tmp_path: Path) -> None:
    search, active = under_way(tmp_path, AVERAGED)
    late = WARM_UP + 1
    cnn = curve("cnn", *[0.95] * late)
    assert search._verdict(active, cnn) == ""
    assert search._verdict(active, cnn + curve("mlp", *[0.6] * late)) == ""
    worse = cnn + curve("mlp", *[0.4] * late)  # than other MLPs, whatever the CNN was
    assert "0.4000 is below the median" in search._verdict(active, worse)
    assert "0.8000 is below the median" in search._verdict(active, curve("cnn", *[0.8] * late))
    # The best epoch so far counts, and the first ones do not.
    assert search._verdict(active, curve("mlp", *[0.6, *[0.4] * (late - 1)])) == ""
    assert search._verdict(active, curve("mlp", *[0.1] * (late - 1))) == ""


def test_few_complete_trials_stop_none(tmp_path: Path) -> None:
    search, active = under_way(tmp_path, BY_MEDIAN, complete=4)
    assert search._verdict(active, curve("mlp", *[0.1] * (EPOCHS - 1))) == ""


def test_a_training_that_is_over_is_not_stopped(tmp_path: Path) -> None:
    search, active = under_way(tmp_path, BY_MEDIAN)
    assert search._verdict(active, curve("mlp", *[0.1] * (EPOCHS - 1))) != ""
    assert search._verdict(active, curve("mlp", *[0.1] * EPOCHS)) == ""
    (tmp_path / "b").mkdir()
    search, active = under_way(tmp_path / "b", BY_MEDIAN[:-1] + ", mlp.patience: {choices: [2]}}")
    assert active.params.mlp.patience == 2
    late = EPOCHS - 3
    assert search._verdict(active, curve("mlp", *[0.1] * late, 0.2, 0.1)) != ""
    assert search._verdict(active, curve("mlp", *[0.1] * (late - 1), 0.2, 0.1, 0.1)) == ""


def test_hyperband_stops_the_worst_of_a_bracket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("metrics/mlp.json"), {"used": {"epochs": EPOCHS}})
    text = BY_MEDIAN.replace("space:", "early_stopping: hyperband\nspace:")
    search, _ = under_way(tmp_path, text, complete=1)
    stopped = []
    for number in range(5):
        trial = search.study.ask()
        active = runner._Active(trial, search.space.params(search.study.settings(trial)))
        verdict, score = "", 0.9 - 0.05 * number
        for epoch in range(1, EPOCHS + 1):
            search._note(trial, "mlp", epoch, score)
            if verdict := search._verdict(active, curve("mlp", *[score] * epoch)):
                break
        stopped.append(verdict)
        state, values = (TrialState.PRUNED, None) if verdict else (TrialState.COMPLETE, [score])
        search.study.end(trial, state, values)
    assert stopped[0] == ""  # the best is the first
    assert [verdict for verdict in stopped if "(Hyperband)" in verdict]


def test_hyperband_reckons_with_the_epochs_that_auto_was_or_at_most_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = study(tmp_path, BY_MEDIAN)
    assert found._epochs() == 48
    for written in ({"used": {"batch_size": 96}}, {"used": None}, []):
        write_json(Path("metrics/mlp.json"), written)
        assert found._epochs() == 48
    write_json(Path("metrics/mlp.json"), {"used": {"epochs": 17}})
    assert found._epochs() == 17
    searched = BY_MEDIAN[:-1] + ", mlp.epochs: {low: 2, high: 30}}"
    assert study(tmp_path, searched, file="other.db")._epochs() == 30


class _Result(NamedTuple):
    """An experiment of a training that went on after the search was killed."""

    name: str


@pytest.mark.parametrize("score", [0.4, 0.6])
def test_a_training_that_went_on_without_the_search_has_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float
) -> None:
    search, active = under_way(tmp_path, BY_MEDIAN)
    folder = tmp_path / search.study.experiment(active.trial.number)
    folder.mkdir()
    removed: list[tuple[str, ...]] = []
    epochs = curve("mlp", *[score] * EPOCHS)
    lines = [json.dumps(epoch._asdict()) + "\n" for epoch in epochs[:-2]]
    (folder / "epochs.jsonl").write_text("".join(lines))
    channel.answer(folder, "")
    monkeypatch.setattr(runner, "finished", lambda task, params: _Result(task.name))
    monkeypatch.setattr(runner, "made", lambda baseline, name: _Result(name))
    monkeypatch.setattr(runner, "git", lambda *arguments: removed.append(arguments))
    monkeypatch.setattr(runner, "accuracy", lambda experiment, network: score)
    monkeypatch.setattr(runner, "curve", lambda experiment, network: [score] * EPOCHS)
    assert search._task(active.trial) is None
    ended = search.study.trials[active.trial.number]
    if score < CURVES["mlp"]:
        assert ended.state == TrialState.PRUNED
        assert f"stopped after epoch {WARM_UP + 1} of mlp" in ended.user_attrs["reason"]
        assert removed == [("update-ref", "-d", f"refs/exps/aa/{'a' * 38}/s-{active.trial.number}")]
    else:
        assert (ended.state, ended.values, removed) == (TrialState.COMPLETE, [score], [])
        # The epochs that nobody told, as of trainings from DVC's cache, are those of its curve.
        assert ended.intermediate_values == dict.fromkeys(range(1, EPOCHS + 1), score)
    assert not folder.exists()
    assert search.active == {}


# -- the tasks


@pytest.mark.parametrize(("trained", "again"), [(0, True), (2, True), (3, False)])
def test_a_time_is_that_of_a_whole_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: int, again: bool
) -> None:
    clone = tmp_path / "project"
    commands: list[str] = []
    given = {"name": "s-1", "project": "/p", "baseline": COMMIT, "overrides": [], "timed": ["mlp"]}
    (tmp_path / "task.json").write_text(json.dumps(given))
    told = curve("cnn", 0.5) + curve("mlp", *[0.5] * trained)
    lines = [json.dumps(epoch._asdict()) + "\n" for epoch in told]
    (tmp_path / "epochs.jsonl").write_text("".join(lines))

    def cloned(project: Path, commit: str, folder: Path) -> Path:
        (clone / "plots").mkdir(parents=True)
        (clone / "plots/mlp.json").write_text(json.dumps([{"epoch": n} for n in (1, 2, 3)]))
        return clone

    def dvc(folder: Path, *arguments: str) -> None:
        if arguments[0] == "repro":
            commands.append(arguments[-1])
            assert [epoch.network for epoch in channel.epochs(tmp_path)] == ["cnn"]
            assert provenance.project_folder() == clone.resolve()  # which has no checkpoint

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(provenance.PROJECT, "/p")
    monkeypatch.setattr(task, "cloned", cloned)
    monkeypatch.setattr(task, "_dvc", dvc)
    monkeypatch.setattr(task, "git", lambda *arguments, folder: "x")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    task.main()
    assert commands == (["train_mlp"] if again else [])


def test_only_processes_of_tasks_are_ended(tmp_path: Path) -> None:
    """A shell that the user opened in the folder of a task lives."""
    place = tmp_path / "s/s-1"
    (place / "project").mkdir(parents=True)

    def begun(cwd: Path, **given: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "print(flush=True); input()"]
        pipe, environment = subprocess.PIPE, os.environ | given
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=pipe, stdout=pipe)
        assert process.stdout
        process.stdout.readline()
        return process

    training = begun(tmp_path, **{channel.VARIABLE: str(place)})
    others = [begun(place), begun(place, **{channel.VARIABLE: str(tmp_path / "other/s-1")})]
    try:
        task.end_leftovers(tmp_path / "s")
        assert not psutil.pid_exists(training.pid)
        assert [other.poll() for other in others] == [None, None]
        assert not (place / "project").exists()
    finally:
        for process in [training, *others]:
            process.kill()
            process.communicate()


def test_a_process_that_is_started_while_others_are_ended_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s/s-1").mkdir(parents=True)
    code = (
        "import subprocess, sys, time; print(flush=True); input(); "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "stdout=subprocess.DEVNULL).pid, flush=True); time.sleep(60)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {channel.VARIABLE: str(tmp_path / "s/s-1")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin
    assert first.stdout
    first.stdout.readline()
    listed = psutil.process_iter
    started: list[int] = []

    def process_iter() -> list[psutil.Process]:
        found = list(listed())
        if not started:  # after the list was made, and before anything is killed
            assert first.stdin
            assert first.stdout
            print(file=first.stdin, flush=True)
            started.append(int(first.stdout.readline()))
        return found

    monkeypatch.setattr(psutil, "process_iter", process_iter)
    try:
        task.end_leftovers(tmp_path / "s")
        assert not psutil.pid_exists(started[0]) or (
            psutil.Process(started[0]).status() == psutil.STATUS_ZOMBIE
        )
    finally:
        first.kill()
        first.communicate()


_TWO_TASKS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup ignore it
from contextlib import closing
from pathlib import Path
from titles.commands import end_on_termination
from titles.experiments.search.task import Task, together

CODE = '''
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def end(*_):
    (folder / "asked").touch()
    time.sleep(2)
    (folder / "ended").touch()
    sys.exit(1)
signal.signal(signal.SIGINT, end)
(folder / "begun").touch()
time.sleep(60)
'''

class Slow(Task):
    def start(self):
        (self.folder / "project").mkdir(parents=True)
        command = [sys.executable, "-c", CODE, str(self.folder)]
        self._process = subprocess.Popen(command, start_new_session=True)

end_on_termination()
tasks = [Slow(n, Path(), "", [], Path(sys.argv[1]) / n) for n in ("a", "b")]
with closing(together(lambda: tasks.pop() if tasks else None, 2, lambda task: None)) as ended:
    for _ in ended:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_interrupt_does_not_break_the_end_of_tasks(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", _TWO_TASKS, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def wait_for(what: str) -> None:
        limit = time.monotonic() + 60
        while len(list(tmp_path.glob(f"*/{what}"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)

    wait_for("begun")
    process.send_signal(number)
    wait_for("asked")
    assert list(tmp_path.glob("*/ended")) == []  # both are asked before one has ended
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
    assert made == [f"{task}/{what}" for task in "ab" for what in ("asked", "begun", "ended")]


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
