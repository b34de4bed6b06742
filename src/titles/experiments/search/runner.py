"""Runs a search: trials until there are enough, then the best few again with fresh seeds."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from errno import EISDIR
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from optuna.trial import Trial, TrialState
from tqdm import tqdm

from titles.experiments.commands import git
from titles.experiments.search import page
from titles.experiments.search.again import Confirmation
from titles.experiments.search.confirm import Verdict
from titles.experiments.search.results import (
    accuracy,
    cause,
    curve,
    finished,
    made,
    names,
    refuse_full_disk,
)
from titles.experiments.search.space import ACCURACY, Space, nested, shown
from titles.experiments.search.space_file import read_space
from titles.experiments.search.study import FOLDER, Study, settings_of, written
from titles.experiments.search.task import Task, end_leftovers, reference, together
from titles.experiments.store import WORKSPACE, Revision, find, head
from titles.experiments.suite.plan import overrides
from titles.experiments.suite.runner import default_jobs
from titles.models.registry import load_params
from titles.params import Params, Training
from titles.tracking import trial as channel
from titles.tracking.tracked import note_inputs

_TEMPORARY = Path(".dvc/tmp/search")
_HEARTBEAT = 60.0  # seconds between lines where there is no terminal
_REFRESH = 1.0  # seconds, where there is one


@dataclass(frozen=True)
class Wanted:
    """The wishes of the user. trials: in all; timeout: seconds, None for no limit; candidates: trials to
    confirm, 0 for none, and seeds: with so many."""

    trials: int
    jobs: int | None = None
    timeout: float | None = None
    candidates: int = 3
    seeds: int = 5


def search(
    file: Path, name: str, wanted: Wanted, out: Path, tell: Callable[[str], None] = tqdm.write
) -> list[Verdict]:
    """Search a space on the commit that is checked out, and write the page.

    An interrupt ends what runs; the same call goes on where it was.

    Args:
        file: of the space. name: of the search, by which its experiments begin.

    Raises:
        ValueError: the file is wrong, the code is not committed, the study is another one, names are
            taken, the default itself cannot be trained, or a disk is full.
    """
    params = load_params()
    base: Any = OmegaConf.to_container(OmegaConf.load("params.yaml"))
    space = read_space(file, base, params)
    baseline = head()
    _refuse_changes(tell)
    _refuse_unwritable(out)
    jobs = _bounded(wanted.jobs, params.compute.threads, tell)
    folder = Path(_TEMPORARY / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    study_file = (FOLDER / f"{name}.db").resolve()
    try:
        lock = FileLock(folder / "lock", blocking=False).acquire()
    except Timeout:
        raise ValueError(f"the search {name} is running already, in another process") from None
    with lock, written(study_file):
        if not study_file.exists():
            _refuse_names(name, baseline)
        study = Study(study_file, name, space, baseline)
        end_leftovers(folder)
        if not study.begun:
            _remove_tasks(folder)
        _Search(study, folder, jobs, wanted, tell).run_trials()
        page.write_page(study, [], {}, out)
        again = Confirmation(study, folder, jobs, tell)
        found = again.confirm(wanted.candidates, wanted.seeds)
        page.write_page(study, found, again.scores, out)
    return found


def _refuse_changes(tell: Callable[[str], None]) -> None:
    """A search runs what is committed; what is not would be left out without a word."""
    paths = ["params.yaml", *find(WORKSPACE).inputs]
    changed = git("diff", "--name-only", "--relative", "HEAD", "--", *paths).splitlines()
    if changed:
        raise ValueError(
            f"a search runs what is committed, and {', '.join(changed)} differ from the commit: "
            "commit them, or put them away with `git stash`"
        )
    if untracked := git("ls-files", "--others", "--exclude-standard", "--", "src").splitlines():
        tell(f"warning: trials do not see files outside git: {', '.join(untracked)}")
    params = load_params()
    for section in (params.prepare, params.embed):
        note_inputs(section)


def _refuse_unwritable(out: Path) -> None:
    """The page is written after hours: its place is tried before them."""
    try:
        if out.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from None


def _refuse_names(name: str, baseline: str) -> None:
    """A new search must not take the experiments of another for its own."""
    if re.search(r"-confirm(-\d+)?$", name):
        raise ValueError(f"experiments that confirm another search may be named {name}-0: give a --name")
    if taken := names(name, baseline):
        raise ValueError(
            f"experiments of an earlier search have the names of this one: {', '.join(taken)}. "
            f"Give another --name, or `dvc exp remove {' '.join(taken)}`"
        )


def _remove_tasks(folder: Path) -> None:
    """Remove the folders of the tasks of an earlier study, whose epochs are not of this one."""
    for place in folder.iterdir():
        if place.is_dir():
            shutil.rmtree(place)


def _bounded(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int:
    """Trials at once, such that their threads fit on the cores."""
    most, cores = default_jobs(threads), default_jobs(1)
    if threads > cores or (jobs or 1) > most:
        asked = f", not {jobs}" if jobs and jobs > most else ""
        tell(
            f"{_count(most, 'trial')} at once{asked}: each needs {_count(threads, 'thread')}, and there "
            f"{'is' if cores == 1 else 'are'} {_count(cores, 'core')}"
        )
    return min(jobs or most, most)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass
class _Active:
    """A trial under way. told: epochs reported to Optuna; stopped: after which epoch and why, or ""."""

    trial: Trial
    params: Params
    told: int = 0
    stopped: str = ""


@dataclass
class _Search:
    """A search under way. active: trials that run, by experiment."""

    study: Study
    folder: Path
    jobs: int
    wanted: Wanted
    tell: Callable[[str], None]
    active: dict[str, _Active] = field(default_factory=dict)
    beat: float = field(default_factory=time.monotonic)

    @property
    def space(self) -> Space:
        return self.study.space

    def run_trials(self) -> None:
        study, wanted = self.study, self.wanted
        left = study.interrupted()
        begun = f", {len(left)} interrupted" if left else ""
        stopping = self.space.early_stopping
        self.tell(
            f"search {study.name} on {study.baseline[:7]}: {len(study.ended)} of {wanted.trials} trials "
            f"ended{begun}; {self.space.sampler}, early stopping: {stopping}, {self.jobs} at once"
        )
        if stopping != "none" and any(
            name.endswith(".epochs") for p in self.space.parameters for name in p.sets
        ):
            self.tell("note: epochs are searched: early stopping compares trials after the same epoch")
        started = time.monotonic()

        def next_task() -> Task | None:
            while True:
                if left:
                    trial = left.pop(0)
                elif (
                    study.experiment(0) in self.active
                    or len(study.ended) + len(self.active) >= wanted.trials
                ):
                    return None  # the default runs first, alone: the others share what it makes
                elif wanted.timeout is not None and time.monotonic() - started > wanted.timeout:
                    return None
                else:
                    trial = study.ask()
                if task := self._task(trial):
                    return task

        with (
            tqdm(total=wanted.trials, unit=" trials", disable=None, desc=study.name) as bar,
            closing(together(next_task, self.jobs, lambda task: self._watch(task, bar))) as ended,
        ):
            self._show(bar)
            for task, code in ended:
                self._end(task, code)
                self._show(bar)
        if len(study.ended) < wanted.trials:
            self.tell(f"out of time: {len(study.ended)} of {wanted.trials} trials have ended")
        if not study.complete:
            raise ValueError("no trial was completed, see the lines above")

    def _task(self, trial: Trial) -> Task | None:
        """Begin a trial, or end it at once if its experiment exists or its values cannot be."""
        name = self.study.experiment(trial.number)
        settings = self.study.settings(trial)
        try:
            params = self.space.params(settings)
        except ValueError as error:
            self.study.end(trial, TrialState.FAIL, None, str(error))
            self.tell(f"#{trial.number} failed: {error}")
            return None
        ask = trial.number > 0 and self.space.early_stopping != "none"
        timed = self.space.networks if len(self.space.objectives) > 1 else []
        given = overrides(nested(settings), params)
        task = Task(name, Path.cwd(), self.study.baseline, given, self.folder / name, timed, ask)
        experiment = finished(task, params)
        active = self.active[name] = _Active(trial, params)
        self._report(task, active)  # without the search, a training goes on with no answers
        if experiment or active.stopped:
            self._end(task, 0)
            return None
        return task

    def _watch(self, task: Task, bar: Any) -> None:
        self._report(task, self.active[task.name])
        now = time.monotonic()
        if now - self.beat > (_HEARTBEAT if bar.disable else _REFRESH):
            self.beat = now
            self._show(bar)
            if bar.disable:
                self.tell(f"{bar.n} of {bar.total} trials ended; {self._running()}")

    def _report(self, task: Task, active: _Active) -> None:
        """Report new epochs to Optuna, and answer whether the trial goes on."""
        if self.space.early_stopping == "none":
            return
        epochs, answered = channel.epochs(task.folder), len(channel.answers(task.folder))
        for number in range(active.told, len(epochs)):
            epoch = epochs[number]
            self._note(active.trial, epoch.network, epoch.epoch, epoch.validation_balanced_accuracy)
            if task.answers and number >= answered:
                channel.answer(task.folder, self._verdict(active, epochs[: number + 1]))
            active.told = number + 1
        active.stopped = _stop(task.folder)

    def _note(self, trial: Trial, network: str, epoch: int, score: float) -> None:
        step = _step(self.space, network, epoch)
        if step not in self.study.trials[trial.number].intermediate_values:
            trial.report(score, step)

    def _verdict(self, active: _Active, epochs: list[channel.Epoch]) -> str:
        """Why a trial is to stop after the last of its epochs; "" if it is not."""
        last = epochs[-1]
        trained = [e for e in epochs if e.network == last.network]
        if _is_over(trained, getattr(active.params, last.network)):  # nothing would be saved
            return ""
        value = f"validation balanced accuracy {last.validation_balanced_accuracy:.4f} is"
        if self.space.early_stopping == "hyperband":
            stop = active.trial.should_prune()
            return f"{value} not among the best of its bracket (Hyperband)" if stop else ""
        best = max(epoch.validation_balanced_accuracy for epoch in trained)
        step = _step(self.space, last.network, last.epoch)
        if last.epoch <= _warm_up(last) or not self.study.below_median(best, step):
            return ""
        return f"{value} below the median of the trials before it"

    def _end(self, task: Task, code: int) -> None:
        """Note the result of a trial whose process has ended."""
        active = self.active.pop(task.name)
        trial = active.trial
        log = task.log()
        experiment = made(self.study.baseline, task.name)
        if active.stopped:
            if experiment:  # it had no answers, as the search was killed
                git("update-ref", "-d", reference(self.study.baseline, task.name))
            self.study.end(trial, TrialState.PRUNED, None, f"stopped {active.stopped}")
            self.tell(f"#{trial.number}: stopped {active.stopped}")
            shutil.rmtree(task.folder, ignore_errors=True)
        elif experiment:
            try:
                values = self._values(experiment, task)
                if self.space.early_stopping != "none":  # trainings from DVC's cache told no epochs
                    for network in self.space.networks:
                        for epoch, score in enumerate(curve(experiment, network), 1):
                            self._note(trial, network, epoch, score)
            except ValueError as error:
                self._fail(trial, task, str(error))
                return
            self.study.end(trial, TrialState.COMPLETE, values)
            best = self.study.best
            star = ", the best so far" if best and best.number == trial.number else ""
            scores = ", ".join(
                f"{value:.4f}" if name == ACCURACY else f"{value:.1f} s"
                for name, value in zip(self.space.objectives, values, strict=True)
            )
            settings = settings_of(self.study.trials[trial.number])
            self.tell(f"#{trial.number}: {scores}{star}; {shown(settings)}")
            shutil.rmtree(task.folder, ignore_errors=True)
        else:
            refuse_full_disk(log)
            self._fail(trial, task, f"{cause(log, code)}\n{task.last_lines()}")

    def _fail(self, trial: Trial, task: Task, reason: str) -> None:
        if trial.number == 0:  # as would all others; it is run again by the next call
            raise ValueError(f"the default of params.yaml cannot be trained: {reason}")
        self.study.end(trial, TrialState.FAIL, None, reason)
        self.tell(f"#{trial.number} failed: {reason.splitlines()[0]}; {task.log_file} has all")

    def _values(self, experiment: Revision, task: Task) -> list[float]:
        """The objectives; raises ValueError if one is missing."""
        score = accuracy(experiment, self.space.network)
        if len(self.space.objectives) == 1:
            return [score]
        seconds = 0.0
        for network in self.space.networks:
            trained = [e for e in channel.epochs(task.folder) if e.network == network]
            if not trained:
                raise ValueError(f"the time of the training of the {network} is not known")
            seconds += channel.training_seconds(trained)
        return [score if name == ACCURACY else seconds for name in self.space.objectives]

    def _show(self, bar: Any) -> None:
        bar.n = len(self.study.ended)
        best = self.study.best
        lead = f"best {self.study.accuracy(best):.4f} (#{best.number}); " if best else ""
        bar.set_postfix_str(lead + self._running())

    def _running(self) -> str:
        shown_trials = []
        for name, active in self.active.items():
            epochs = channel.epochs(self.folder / name)
            last = f" {epochs[-1].network} epoch {epochs[-1].epoch}" if epochs else ""
            shown_trials.append(f"#{active.trial.number}{last}")
        return f"running {', '.join(shown_trials)}" if shown_trials else "none running"


def _stop(folder: Path) -> str:
    """After which epoch and why a trial was told to stop; "" if it was not."""
    for epoch, reason in zip(channel.epochs(folder), channel.answers(folder), strict=False):
        if reason:
            return f"after epoch {epoch.epoch} of {epoch.network}: {reason}"
    return ""


def _step(space: Space, network: str, epoch: int) -> int:
    """An epoch's place among those of all networks, which are trained one after the other."""
    return space.networks.index(network) * 10_000 + epoch


def _is_over(trained: list[channel.Epoch], settings: Training) -> bool:
    """Whether the training of a network ends with the last of these epochs in any case."""
    best = max(trained, key=lambda e: (e.validation_balanced_accuracy, e.epoch)).epoch
    last = trained[-1]
    return last.epoch >= last.planned or 0 < settings.patience <= last.epoch - best


def _warm_up(last: channel.Epoch) -> int:
    """Epochs of a training before the median counts: a good one may begin slowly."""
    return max(1, last.planned // 4)
