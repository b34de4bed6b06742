"""The study of a search: what Optuna keeps in an SQLite file, which optuna-dashboard opens."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from titles.experiments.search.space import ACCURACY, SECONDS, Space

FOLDER = Path("search")
# Attributes of a study, and of a trial.
_BASELINE, _SPACE, _LOOKS = "baseline", "space", "looks"
EXPERIMENT, SETTINGS, REASON = "experiment", "settings", "reason"
_DIRECTIONS = {ACCURACY: StudyDirection.MAXIMIZE, SECONDS: StudyDirection.MINIMIZE}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial comes from the search itself
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Study:
    """The trials of a search on a commit.

    Raises:
        ValueError: the file is no study, or of another space or commit.
    """

    def __init__(self, file: Path, name: str, space: Space, baseline: str) -> None:
        self.name, self.space, self.baseline = name, space, baseline
        new = not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[_DIRECTIONS[objective] for objective in space.objectives],
                load_if_exists=True,
            )
            attributes = self.study.user_attrs
            objectives = self.study.metric_names
        except Exception as error:  # of SQLAlchemy, Alembic or Optuna
            if new:
                file.unlink(missing_ok=True)
            text = str(error).splitlines()[0]
            raise ValueError(f"{file} cannot be read or written as a study: {text}") from None
        self._check(file, attributes)
        if not objectives:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.study.set_metric_names(space.objectives)
        self.study.pruner = self._pruner()
        if _BASELINE not in attributes:
            self.study.set_user_attr(_SPACE, space.digest)
            self.study.set_user_attr(_BASELINE, baseline)
        if not self.trials:
            self.study.enqueue_trial(space.default())

    def _check(self, file: Path, attributes: dict[str, Any]) -> None:
        """Refuse to mix trials that do not compare."""
        remedy = f"begin another with --name NAME, or remove {file} to begin this one anew"
        if _BASELINE not in attributes:
            return
        if attributes.get(_SPACE) != self.space.digest:
            raise ValueError(f"the search in {file} is of another space: {remedy}")
        if (on := attributes[_BASELINE]) != self.baseline:
            raise ValueError(
                f"the search in {file} is on commit {on[:7]}, and {self.baseline[:7]} is checked out: "
                f"`git checkout {on[:7]}`, {remedy}"
            )

    def _pruner(self) -> optuna.pruners.BasePruner:
        epochs = self._epochs()
        if self.space.early_stopping == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5)
        if self.space.early_stopping == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
        return optuna.pruners.NopPruner()

    @property
    def warm_up(self) -> int:
        """Epochs of each network before the median counts: a good training may begin slowly."""
        return max(1, self._epochs() // 4)

    def _epochs(self) -> int:
        """The most epochs that a training may have."""
        names = [f"{network}.epochs" for network in self.space.networks]
        ends = [p.settings(v).get(n, 0) for p in self.space.parameters for v in p.ends for n in names]
        return max(int(value) for value in [*ends, *(self.space.values[name] for name in names)])

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def ended(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state in ENDED]

    @property
    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial of the highest accuracy, the first of several."""
        return max(self.complete, key=lambda trial: (self.accuracy(trial), -trial.number), default=None)

    def accuracy(self, trial: FrozenTrial) -> float:
        return float(trial.values[self.space.objectives.index(ACCURACY)])

    def experiment(self, number: int) -> str:
        """The name of the DVC experiment of a trial."""
        return f"{self.name}-{number}"

    def interrupted(self) -> list[Trial]:
        """Trials that began and did not end, in their order."""
        running = (trial for trial in self.trials if trial.state == TrialState.RUNNING)
        return [self._seeded(trial.number, trial._trial_id) for trial in running]

    def ask(self) -> Trial:
        """The next trial; the default of params.yaml is the first."""
        return self._seeded(max((t.number for t in self.trials if t.state != TrialState.WAITING),
                                default=-1) + 1)  # fmt: skip

    def _seeded(self, number: int, trial_id: int | None = None) -> Trial:
        # A sampler of its own for each: proposals do not depend on how often the search was resumed.
        seed = (self.space.seed + number) % 2**32
        if self.space.sampler == "random":
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        return Trial(self.study, trial_id) if trial_id is not None else self.study.ask()

    def settings(self, trial: Trial) -> dict[str, Any]:
        """The settings of a trial, under dotted names; none for the first, which is the default."""
        if trial.number:
            settings = self.space.suggest(trial)
        else:
            default = self.space.default()
            for parameter in self.space.parameters:
                if parameter.name in default:
                    parameter.suggest(trial)
            settings = {}
        trial.set_user_attr(EXPERIMENT, self.experiment(trial.number))
        trial.set_user_attr(SETTINGS, json.dumps(settings))
        return settings

    def end(self, trial: Trial, state: TrialState, values: list[float] | None, reason: str = "") -> None:
        if reason:
            trial.set_user_attr(REASON, reason)
        self.study.tell(trial, values, state)

    def look(self, candidates: list[int], seeds: list[int]) -> int:
        """Note a comparison with the baseline; its number, from 1, which it keeps when repeated."""
        looks, this = self.study.user_attrs.get(_LOOKS, []), [sorted(candidates), sorted(seeds)]
        if this not in looks:
            looks = [*looks, this]
            self.study.set_user_attr(_LOOKS, looks)
        return int(looks.index(this)) + 1

    def front(self) -> list[int]:
        """Numbers of the trials that no other surpasses in all objectives."""
        return [trial.number for trial in self.study.best_trials] if self.complete else []


def settings_of(trial: FrozenTrial) -> dict[str, Any]:
    """The settings of a trial, as `Study.settings` noted them."""
    settings: dict[str, Any] = json.loads(trial.user_attrs.get(SETTINGS, "{}"))
    return settings


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Turn a study that cannot be written, as on a full disk, into an error of one line."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{file} cannot be written: {cause}") from None
