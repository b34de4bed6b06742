"""Runs the best few trials of a search again, beside the baseline, with fresh seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from titles.experiments.search import confirm
from titles.experiments.search.results import accuracy, cause, finished, made, refuse_full_disk
from titles.experiments.search.space import nested
from titles.experiments.search.study import Study, settings_of
from titles.experiments.search.task import Task, together
from titles.experiments.suite.plan import overrides

BASELINE = 0  # the number of the trial that is the default


@dataclass
class Confirmation:
    """scores: by trial and seed; those of the baseline under BASELINE."""

    study: Study
    folder: Path
    jobs: int
    tell: Callable[[str], None]
    scores: dict[int, dict[int, float]] = field(default_factory=dict)

    def confirm(self, candidates: int, seeds: int) -> list[confirm.Verdict]:
        """Run what is missing, and compare the best with the baseline.

        Args:
            candidates: most trials to compare; 0 compares none. seeds: of each.

        Raises:
            ValueError: a name is taken by another experiment, or the disk is full.
        """
        study = self.study
        searched = {trial.number: study.accuracy(trial) for trial in study.complete}
        if not candidates:
            self.tell("not confirmed (--confirm 0): the score of the best is partly luck")
            return []
        chosen = confirm.candidates(self._distinct(searched), BASELINE, candidates)
        if not chosen:
            self.tell("no trial scored above params.yaml: keep it")
            return []
        mark = f"{study.space.digest} {study.baseline}"
        fresh = confirm.fresh_seeds(mark, seeds, study.space.values["seed"])
        look = study.look(chosen, fresh)
        self.scores = {number: {} for number in (BASELINE, *chosen)}
        self._run([(number, seed) for number in self.scores for seed in fresh], fresh)
        looked = {number: searched[number] - searched[BASELINE] for number in chosen}
        tried = {number: self.scores[number] for number in chosen}
        found = confirm.verdicts(self.scores[BASELINE], tried, looked, fresh, look)
        for verdict in found:
            self.tell(f"#{verdict.trial} against params.yaml: {verdict.told}")
        return found

    def _distinct(self, scores: dict[int, float]) -> dict[int, float]:
        """Scores without trials that repeat the parameters of an earlier one."""
        seen: dict[str, int] = {}
        for number in sorted(scores):
            params = self.study.space.params(settings_of(self.study.trials[number]))
            seen.setdefault(params.model_dump_json(), number)
        return {number: scores[number] for number in seen.values()}

    def _run(self, plan: list[tuple[int, int]], seeds: list[int]) -> None:
        study, waiting = self.study, list(plan)
        tasks: dict[str, tuple[int, int]] = {}

        def next_task() -> Task | None:
            while waiting:
                number, seed = waiting.pop(0)
                settings = {**settings_of(study.trials[number]), "seed": seed}
                params = study.space.params(settings)
                name = f"{study.name}-confirm-{number}-{seed}"
                given = overrides(nested(settings), params)
                task = Task(name, Path.cwd(), study.baseline, given, self.folder / name)
                if not finished(task, params):
                    tasks[name] = (number, seed)
                    return task
                self._note(task, number, seed, 0)
            return None

        self.tell(
            f"running the best again beside params.yaml, {len(self.scores) - 1} with {len(seeds)} fresh "
            f"seeds each: {', '.join(map(str, seeds))}"
        )
        with (
            tqdm(total=len(plan), unit=" runs", disable=None, desc="confirming") as bar,
            closing(together(next_task, self.jobs, lambda task: None)) as ended,
        ):
            for task, code in ended:
                self._note(task, *tasks[task.name], code)
                bar.n = sum(map(len, self.scores.values()))
                bar.refresh()

    def _note(self, task: Task, number: int, seed: int, code: int) -> None:
        what = "params.yaml" if number == BASELINE else f"#{number}"
        experiment = made(self.study.baseline, task.name)
        try:
            if experiment is None:
                refuse_full_disk(task.log())
                raise ValueError(cause(task.log(), code))
            score = accuracy(experiment, self.study.space.network)
        except ValueError as error:
            self.tell(f"{what} failed with seed {seed}: {error}; {task.log_file} has all")
            return
        self.scores[number][seed] = score
        self.tell(f"{what} with seed {seed}: {score:.4f}")
        shutil.rmtree(task.folder, ignore_errors=True)
