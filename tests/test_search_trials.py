"""Trials of `titles search` without trainings: what they tell, early stopping, and their tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from optuna.trial import TrialState

from searches import BASE, COMMIT, study
from titles.data.files import write_json
from titles.experiments.search import runner, task
from titles.models.registry import parse_params
from titles.tracking import provenance
from titles.tracking import trial as channel

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
