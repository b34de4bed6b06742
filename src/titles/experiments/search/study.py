"""The study of a search: what Optuna keeps in an SQLite file, which optuna-dashboard opens."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from titles.data import auto
from titles.data.contract import METRICS
from titles.data.documents import read_json
from titles.experiments.search.results import names
from titles.experiments.search.space import ACCURACY, SECONDS, Space
from titles.tracking.provenance import sqlite_uri

FOLDER = Path("search")
# Attributes of a study, and of a trial.
_BASELINE, _SPACE, _LOOKS = "baseline", "space", "looks"
EXPERIMENT, SETTINGS, REASON = "experiment", "settings", "reason"
_DIRECTIONS = {ACCURACY: StudyDirection.MAXIMIZE, SECONDS: StudyDirection.MINIMIZE}
_MEDIAN_OF = 5  # complete trials, at least
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial comes from the search itself
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class _Sampler(optuna.samplers.BaseSampler):
    """Draws each value with a generator of its own: a search that was killed between two values of a
    trial draws the same others when it goes on.

    Args:
        kind: tpe or random.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self._kind = optuna.samplers.RandomSampler if kind == "random" else optuna.samplers.TPESampler
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        digest = hashlib.sha256(f"{self._seed} {trial.number} {param_name}".encode()).digest()
        sampler = self._kind(seed=int.from_bytes(digest[:4]))
        return sampler.sample_independent(study, trial, param_name, param_distribution)


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
                sqlite_uri(file), engine_kwargs={"connect_args": {"timeout": 60}}
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
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{file} cannot be read or written as a study: {text}") from None
        self._check(file, attributes)
        if not objectives:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.study.set_metric_names(space.objectives)
        self.study.sampler = _Sampler(space.sampler, space.seed)
        self.study.pruner = self._pruner()
        if _BASELINE not in attributes:
            self.study.set_user_attr(_SPACE, space.digest)
            self.study.set_user_attr(_BASELINE, baseline)
        if not self.trials:
            self.study.enqueue_trial(space.default())

    def _check(self, file: Path, attributes: dict[str, Any]) -> None:
        """Refuse to mix trials that do not compare."""
        if _BASELINE not in attributes:
            return
        other_space = attributes.get(_SPACE) != self.space.digest
        if not other_space and attributes[_BASELINE] == self.baseline:
            return
        remedy = f"begin another with --name NAME, or remove {file} to begin this one anew"
        if old := names(self.name, self.baseline):
            remedy += f", and its experiments with `dvc exp remove {' '.join(old)}`"
        if other_space:
            raise ValueError(f"the search in {file} is of another space: {remedy}")
        on = attributes[_BASELINE][:7]
        raise ValueError(
            f"the search in {file} is on commit {on}, and {self.baseline[:7]} is checked out: "
            f"`git checkout {on}`, {remedy}"
        )

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.space.early_stopping == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self._epochs())
        return optuna.pruners.NopPruner()

    def below_median(self, best: float, step: int) -> bool:
        """Whether a network is worse than the median of complete trials after the same step.

        The rule of Golovin et al., "Google Vizier" (KDD 2017). Optuna's MedianPruner takes the best of
        all steps, which are those of two networks where their average is searched.

        Args:
            best: its best validation balanced accuracy up to the step.
        """
        known = [t.intermediate_values[step] for t in self.complete if step in t.intermediate_values]
        return len(known) >= _MEDIAN_OF and best < median(known)

    def _epochs(self) -> int:
        """The most epochs that a training may have."""
        names = [f"{network}.epochs" for network in self.space.networks]
        ends = [p.settings(v).get(n, 0) for p in self.space.parameters for v in p.ends for n in names]
        given = [*ends, *(self.space.values[name] for name in names)]
        if "auto" in given:
            given += map(_used_epochs, self.space.networks)
        return max(int(value) for value in given if value != "auto")

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def begun(self) -> bool:
        """Whether there is a trial that does not only wait for its turn, as the default does."""
        return any(trial.state != TrialState.WAITING for trial in self.trials)

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
        return [Trial(self.study, trial._trial_id) for trial in running]

    def ask(self) -> Trial:
        """The next trial; the default of params.yaml is the first."""
        return self.study.ask()

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


def _used_epochs(network: str) -> int:
    """What `auto` was in the last training of a network, or at most can be."""
    try:
        return int(read_json(METRICS / f"{network}.json")["used"]["epochs"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or of an older version
        return auto.MOST_PASSES


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
