"""The run in MLflow of an experiment as a whole, in which its trainings and its evaluation are nested.

A named experiment has a run of its own. Commits with equal results share one, and so does the workspace
with the commit that it becomes: otherwise each commit to the documents would add one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mlflow import MlflowClient
from mlflow.entities import Run

from titles.data.contract import SPLITS
from titles.experiments import mlflow_datasets
from titles.experiments.commands import git
from titles.experiments.mlflow_writing import cut, is_active, log_scores, scores, set_tags
from titles.experiments.results import Result
from titles.experiments.store import Revision, differing, find
from titles.models.registry import AVERAGE
from titles.tracking.mlflow import log_params
from titles.tracking.provenance import without_login

KIND = "kind"
EXPERIMENT_RUN = "experiment"  # value of KIND; those of nested runs are "training" and "evaluation"
STATE = "dvc.state"
PARENT = "mlflow.parentRunId"
COMMIT = "dvc.commit"
BASELINE = "dvc.baseline"
_NAMED = "dvc.name"  # the name that `sync` gave; somebody may have given another


@dataclass(frozen=True)
class State:
    """The results at a revision, as `results_at` has them."""

    revision: Revision
    results: Sequence[Result]

    @property
    def key(self) -> str:
        """The same for states with equal results."""
        return hashlib.sha256("".join(one.key for one in self.results).encode()).hexdigest()[:32]

    @property
    def evaluation(self) -> Result | None:
        return next((one for one in self.results if one.model == AVERAGE), None)

    @property
    def networks(self) -> list[str]:
        return [one.model for one in self.results if one.model != AVERAGE]

    @property
    def params(self) -> dict[str, str]:
        """All parameters, and what the trainings used where they leave it open."""
        used: dict[str, list[str]] = defaultdict(list)
        for one in self.results:
            for name, value in one.used.items():
                used[f"used.{name}"].append(str(value))
        shared = {name: ", ".join(dict.fromkeys(values)) for name, values in used.items()}
        return self.results[-1].params | shared


def states(results: Iterable[Result]) -> list[State]:
    """The states of the revisions, oldest first. The workspace has one only if it has a result that no
    other revision has."""
    found: dict[Revision, list[Result]] = defaultdict(list)
    for result in results:
        found[result.revision].append(result)
    made = [State(revision, own) for revision, own in found.items()]
    saved = {one.key for state in made if state.revision.commit for one in state.results}
    return [
        state
        for state in made
        if state.revision.commit or not saved.issuperset(one.key for one in state.results)
    ]


class Parents:
    """The runs of experiments.

    runs: all, oldest first, including those deleted in MLflow.
    """

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.runs: list[Run] = []
        self._client, self._experiment = client, experiment

    def find(self, number: str) -> Run | None:
        """The run of an id."""
        return next((run for run in self.runs if run.info.run_id == number), None)

    def of(self, results: Sequence[Result]) -> Run | None:
        """The run of the experiment with these results, which are all of one revision."""
        return known(self.runs, State(results[0].revision, results)) if results else None

    def sync(
        self, states: Sequence[State], own: Mapping[Revision, Sequence[Run]]
    ) -> dict[Revision, Run]:
        """Bring the runs up to date.

        Args:
            own: runs of the trainings and the evaluation that a revision was the first to have.

        Returns:
            The run of each revision, which may be deleted.
        """
        held: dict[str, list[State]] = defaultdict(list)
        for state in states:
            run = known(self.runs, state)
            if run is None:
                run = self._make(state, own.get(state.revision, ()))
                self.runs.append(run)
            held[run.info.run_id].append(state)
        homes: dict[Revision, Run] = {}
        pointing = _branches()
        for place, run in enumerate(self.runs):
            same = held[run.info.run_id]
            if same and is_active(run) and self._fill(run, same, own, pointing):
                run = self.runs[place] = self._client.get_run(run.info.run_id)
            homes |= {state.revision: run for state in same}
        return homes

    def _make(self, state: State, own: Sequence[Run]) -> Run:
        starts = [run.info.start_time for run in own]
        return self._client.create_run(
            self._experiment,
            start_time=min(starts, default=int(state.revision.time * 1000)),
            tags={name: value for name, value in _tags(None, [state], {}).items() if value},
        )

    def _fill(
        self,
        run: Run,
        held: Sequence[State],
        own: Mapping[Revision, Sequence[Run]],
        pointing: Mapping[str, Sequence[str]],
    ) -> bool:
        """Add what is missing; return whether anything was."""
        tags, state, number = _tags(run, held, pointing), held[0], run.info.run_id
        if run.info.run_name != run.data.tags.get(_NAMED):
            del tags["mlflow.runName"], tags[_NAMED]  # somebody gave it another name
        changed = set_tags(self._client, run, tags)
        if state.evaluation:
            changed |= log_scores(self._client, run, scores(state.evaluation, state.evaluation))
        changed |= mlflow_datasets.log(self._client, run, state.results[-1], SPLITS)
        if run.info.status != "FINISHED":
            log_params(self._client, number, state.params)
            ends = [one.info.end_time for at in held for one in own.get(at.revision, ())]
            end = max(filter(None, ends), default=run.info.start_time)
            self._client.set_terminated(number, "FINISHED", end)
            changed = True
        return changed


def known(parents: Sequence[Run], state: State) -> Run | None:
    """The run of a state among those of experiments."""
    at = state.revision
    by_commit = [run for run in parents if at.commit and run.data.tags.get(COMMIT) == at.commit]
    equal = [run for run in parents if run.data.tags.get(STATE) == state.key]
    free = [
        run
        for run in equal
        if not run.data.tags.get(COMMIT) or not (at.baseline or run.data.tags.get(BASELINE))
    ]
    return next(iter(by_commit + free), None)


def _tags(
    run: Run | None, held: Sequence[State], pointing: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The tags of the run of equal states.

    Args:
        run: as it is, or None if it is to be made.
        pointing: names of branches and tags by commit.
    """
    commit = run.data.tags.get(COMMIT, "") if run else ""
    state = next((one for one in held if one.revision.commit == commit), held[0])
    at, changed = state.revision, changes(state.revision)
    refs = [] if at.baseline else [ref for one in held for ref in pointing.get(one.revision.commit, ())]
    name = f"{at.name} ({', '.join(refs)})" if refs else at.name
    told = f"Commit {at.name}" if at.commit else "Not committed"
    if at.baseline:
        told = f"{changed or 'The parameters'} on commit {at.baseline[:7]}"
    back = f"Bring it back: `{at.get}`" if at.get else "`dvc exp save` or a commit keeps it."
    return {
        KIND: EXPERIMENT_RUN,
        "experiment": at.name,
        "changes": changed or "none",
        "model": ("average of " if state.evaluation else "") + ", ".join(state.networks),
        STATE: state.key,
        "dvc.experiments": cut(", ".join(one.revision.name for one in held)),
        COMMIT: at.commit,
        BASELINE: at.baseline,
        "dvc.get": at.get,
        "mlflow.runName": name,
        _NAMED: name,
        "mlflow.note.content": f"{told}.\n\n{back}",
    } | source("dvc.yaml", at)


def source(name: str, at: Revision) -> dict[str, str]:
    """Tags that fill MLflow's own columns of the source, its version and who ran it."""
    return {
        "mlflow.user": _author(at.commit),
        "mlflow.source.name": name,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": at.commit,
    }


@cache
def _author(commit: str) -> str:
    return (
        git("show", "--no-patch", "--no-show-signature", "--format=%an", commit).strip()
        if commit
        else ""
    )


def changes(at: Revision) -> str:
    """Parameters of an experiment that differ from its baseline, as `dvc exp run -S` takes them.

    They are "" for a commit.
    """
    if not at.baseline:
        return ""
    try:
        own, before = at.params, find(at.baseline).params
    except ValueError:
        return ""
    found = differing([before, own])
    return cut(", ".join(f"{k}={without_login(str(v))}" for k, (_, v) in found.items() if k in own))


def _branches() -> dict[str, list[str]]:
    """Names of the branches and tags that point at a commit."""
    found: dict[str, list[str]] = defaultdict(list)
    form = "--format=%(objectname) %(*objectname) %(refname:lstrip=2)"
    for line in git("for-each-ref", form, "refs/heads", "refs/tags").splitlines():
        made, peeled, name = line.split(" ", 2)
        found[peeled or made].append(name)
    return found
