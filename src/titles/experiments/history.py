"""What DVC knows of past runs: experiments, commits and the workspace, and what their stages came to.

All is read from dvc.lock and the metrics files of a revision, whether it ran here, came from the run
cache or was pulled. Nothing is read that does not fit together: a metrics file other than the one in the
lock, or a stage whose inputs have been made anew since.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import resolve_rev
from dvc_data.index import DataIndexDirError
from scmrepo.exceptions import SCMError

from titles.data.contract import METRICS, MODELS, PLOTS, PREPARED
from titles.models.registry import parse_params
from titles.tracking.provenance import data_hashes
from titles.tracking.provenance import flat_text as flat

WORKSPACE = "workspace"
VALIDATION = (PREPARED / "validation").as_posix()
_TRAIN = "train_"
_EVALUATE = "evaluate"
_SHORT = 7


@dataclass(frozen=True)
class Revision:
    """A state of the project.

    name: of the experiment, or the commit's short hash, or "workspace". commit: its hash, none for the
        workspace. baseline: the commit that an experiment started from. time: of the commit, seconds.
    """

    name: str
    commit: str
    baseline: str
    time: float

    @property
    def get(self) -> str:
        """The command that brings this state into the workspace."""
        if self.baseline:
            return f"dvc exp apply {self.name}"
        return f"git checkout {self.commit} && dvc checkout" if self.commit else ""

    @cached_property
    def files(self) -> Any:
        """All its files, those of DVC from the cache or else a remote."""
        return DVCFileSystem(".", rev=self.commit or None)

    def fetch(self, path: Path, into: Path) -> None:
        """Copy a folder of this state.

        Raises:
            ValueError: neither the cache nor a remote has it.
        """
        with _missing(self, path):
            self.files.get(path.as_posix(), str(into), recursive=True)


@dataclass(frozen=True)
class Result:
    """What a stage came to at a revision.

    model: cnn or mlp for a training; average for an evaluation of both. params: all there were, flat.
    read: those that the stage depends on. data: hashes of its inputs other than code. scores: its
    metrics; for an evaluation by model. hashes: of all data up to the training.
    """

    revision: Revision
    stage: str
    model: str
    params: dict[str, str]
    read: dict[str, str]
    data: dict[str, str]
    scores: dict[str, Any]
    hashes: dict[str, str]

    @cached_property
    def key(self) -> str:
        """The same for results that cannot be told apart: of equal parameters, data and metrics.

        Code is left out: where it changed and these did not, it changed nothing that counts.
        """
        parts = [self.stage, {k: canonical(v) for k, v in self.read.items()}, self.data, self.scores]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Step and value of each epoch, by metric.

        Raises:
            ValueError: neither the cache nor a remote has them.
        """
        folder = PLOTS / self.model / "plots/metrics"
        found = {}
        with _missing(self.revision, folder):
            for path in sorted(self.revision.files.find(folder.as_posix())):
                rows = csv.reader(self.revision.files.read_text(path).splitlines(), delimiter="\t")
                next(rows)
                name = Path(path).relative_to(folder).with_suffix("").as_posix()
                found[name] = [(int(step), float(value)) for step, value in rows]
            if not found:
                raise FileNotFoundError
        return found


@dataclass(frozen=True)
class State:
    """The results at a revision: trainings by model, and the evaluation of those, if there is one."""

    revision: Revision
    trainings: dict[str, Result] = field(default_factory=dict)
    evaluation: Result | None = None


def canonical(value: str) -> str:
    """One spelling of a number: 0 and 0.0 are the same parameter."""
    try:
        return str(float(value))
    except ValueError:
        return value


def revisions() -> list[Revision]:
    """Experiments, the commits they started from, HEAD and the workspace, oldest first.

    Raises:
        ValueError: this folder is not the project's.
    """
    with _project() as repo:
        names = {
            commit: (name, baseline)
            for baseline, experiments in repo.experiments.ls(all_commits=True).items()
            for name, commit in experiments
        }
        commits = {repo.scm.get_rev(), *(baseline for _, baseline in names.values())}
        found = [
            _revision(repo, commit, *names.get(commit, ("", ""))) for commit in commits | set(names)
        ]
    return [*sorted(found, key=lambda r: (r.time, r.name)), Revision(WORKSPACE, "", "", time.time())]


def revision(name: str) -> Revision:
    """An experiment, commit, branch or tag by its name, or the workspace.

    Raises:
        ValueError: there is none of that name, or this folder is not the project's.
    """
    if name == WORKSPACE:
        return Revision(WORKSPACE, "", "", time.time())
    with _project() as repo:
        try:
            commit = resolve_rev(repo.scm, name)
        except (SCMError, DvcException):
            raise ValueError(
                f"{name} is no experiment, commit, branch or tag here: see `dvc exp list --all-commits`"
            ) from None
        for baseline, experiments in repo.experiments.ls(all_commits=True).items():
            for experiment, made in experiments:
                if made == commit:
                    return _revision(repo, commit, experiment, baseline)
        return _revision(repo, commit, "", "")


def _revision(repo: Any, commit: str, name: str, baseline: str) -> Revision:
    made = repo.scm.resolve_commit(commit).commit_time
    return Revision(name or commit[:_SHORT], commit, baseline, made)


@contextmanager
def _project() -> Iterator[Any]:
    try:
        with Repo(".") as repo:
            yield repo
    except NotDvcRepoError:
        raise ValueError("this is not the folder of a DVC project: change to the project's") from None
    except (DvcException, SCMError) as error:
        raise ValueError(f"DVC cannot read this project: {error}") from None


@contextmanager
def _missing(at: Revision, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, DvcException, DataIndexDirError):
        how = f"dvc exp pull REMOTE {at.name}" if at.baseline else "dvc pull"
        raise ValueError(
            f"{path} of {at.name} is neither in DVC's cache nor in a remote: get it by `{how}`"
        ) from None


def state(at: Revision) -> State:
    """What trainings and the evaluation came to; empty where nothing has run."""
    try:
        stages = yaml.safe_load(at.files.read_text("dvc.lock"))["stages"]
        # Of one stage and the next, they can differ in the middle of a run alone.
        sections = {k: v for s in stages.values() for k, v in _sections(s).items()}
        hashes = data_hashes(stages)
    except (FileNotFoundError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return State(at)
    current = {name: s for name, s in stages.items() if _is_current(s, stages)}
    trainings = {}
    for name, stage in current.items():
        model = name.removeprefix(_TRAIN)
        scores = _scores(at, stage, METRICS / f"{model}.json")
        if name.startswith(_TRAIN) and scores and model in scores:
            trainings[model] = _result(at, name, model, stage, sections, scores[model], hashes)
    evaluation = None
    if _EVALUATE in current:
        stage = current[_EVALUATE]
        scores = _scores(at, stage, METRICS / "evaluate.json")
        judged = {(MODELS / model).as_posix() for model in trainings}
        if scores and judged <= {dep["path"] for dep in stage["deps"]}:
            evaluation = _result(at, _EVALUATE, "average", stage, sections, scores, hashes)
    return State(at, trainings, evaluation)


def _sections(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for values in stage.get("params", {}).values() for k, v in values.items()}


def _is_current(stage: Mapping[str, Any], stages: Mapping[str, Any]) -> bool:
    made = {out["path"]: out.get("md5") for s in stages.values() for out in s.get("outs", [])}
    return all(made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in stage.get("deps", []))


def _scores(at: Revision, stage: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The metrics in a file, or nothing if it is not the one that the stage wrote."""
    digests = {out["path"]: out.get("md5") for out in stage.get("outs", [])}
    try:
        content = at.files.read_bytes(path.as_posix())
    except (FileNotFoundError, DvcException):
        return None
    if digests.get(path.as_posix()) != hashlib.md5(content, usedforsecurity=False).hexdigest():
        return None
    scores = json.loads(content)
    return scores if isinstance(scores, dict) else None


def _result(
    at: Revision,
    name: str,
    model: str,
    stage: Mapping[str, Any],
    sections: Mapping[str, Any],
    scores: dict[str, Any],
    hashes: dict[str, str],
) -> Result:
    own = _sections(stage)
    params = _flat({**sections, **own})
    return Result(
        revision=at,
        stage=name,
        model=model,
        params=params,
        read={key: value for key, value in params.items() if key.partition(".")[0] in own},
        data={
            dep["path"]: dep["md5"]
            for dep in stage["deps"]
            if "md5" in dep and not dep["path"].startswith("src/")
        },
        scores=scores,
        hashes=hashes,
    )


def _flat(sections: dict[str, Any]) -> dict[str, str]:
    # As a live run writes them, where this version knows them all.
    try:
        return flat(parse_params(sections).model_dump(mode="json"))
    except ValueError:
        return flat(sections)
