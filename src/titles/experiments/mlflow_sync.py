"""Fills MLflow's store from DVC.

A training logs its curves to MLflow while it runs. At that time neither its results on the test split
nor the commit of its experiment exist. A training that was pulled, or came from DVC's run cache, logs
nothing. `sync` adds what is missing, from DVC only, so that no stage and no output depends on MLflow.

Each experiment and commit has a run, see `mlflow_parents`. In it are nested the runs of its evaluation
and of the trainings that it was the first to need; those that it shares with an older one stand there.

Metrics of a run: the curves, by epoch; pace/, logged live only; best/, those of the epoch that was kept;
validation_balanced_accuracy, that of the model as it is saved, by which models are compared; test/, of
the newest evaluation on the test split. The run of an experiment has those of the average. The splits
are inputs of the runs, see `mlflow_datasets`. Tags:

experiment       the experiment or commit that the run stands under; shared by: others with this result
model            the network, or average; kind: experiment, training or evaluation
changes          of an experiment: its parameters that differ from its baseline
dvc.result       identity of the result, `results.Result.key`: equal results are one run, however many
                 experiments have them; of an experiment dvc.state, that of all its results
dvc.experiments  all revisions with this result, oldest first
dvc.commit       that of the first; dvc.baseline is the commit it started from
dvc.get          the command that brings it into the workspace
source           live: logged while it trained; backfill: written afterwards, at the time of the commit
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from titles.experiments import mlflow_datasets
from titles.experiments.commands import warn
from titles.experiments.mlflow_parents import EXPERIMENT_RUN, KIND, PARENT, Parents, source, states
from titles.experiments.mlflow_writing import (
    cut,
    is_active,
    log_metrics,
    log_scores,
    scores,
    set_tags,
)
from titles.experiments.results import Result, results_at
from titles.experiments.store import WORKSPACE, Revision, canonical, revisions
from titles.models.registry import AVERAGE
from titles.tracking.mlflow import (
    concealed,
    describe,
    log_params,
    open_store,
    page,
    served_by,
    store_uri,
    used_params,
)

BACKFILL = "backfill"
RESULT = "dvc.result"
_OF_NETWORKS = (ConnectionError, TimeoutError)
_DONE = {
    "completed": "got their results and links",
    "backfilled": "were written from what DVC holds",
    "unchanged": "were up to date",
    "deleted": "were deleted in MLflow and stay so: `titles mlflow find NAME` tells how to restore them",
    "postponed": "are not written yet: DVC cannot get at their curves",
}


def sync() -> str:
    """Bring MLflow up to date with DVC; a second call changes nothing.

    Runs that were logged live are found by their parameters, data and metrics. They get the results on
    the test split and the tags above. Results without a run get one, unless it was deleted in MLflow.

    Returns:
        A summary for people.

    Raises:
        ValueError: MLflow does not answer or refuses, its experiment was deleted, or this folder is not
            the project's.
    """
    with opened() as runs:
        describe(runs.client, runs.experiment)
        done = runs.sync(all_results())
        pages = page(f"experiments/{runs.experiment}/runs")
    told = [f"{done[kind]} runs {text}" for kind, text in _DONE.items() if done[kind]]
    nothing = "DVC holds no results yet: `dvc exp run` makes some"
    ends = [f"store: {concealed(store_uri())}", f"runs: {pages}", served_by()]
    return "\n".join([*(told or [nothing]), *filter(None, ends)])


def all_results() -> list[Result]:
    """The results of all revisions, oldest first."""
    reading = tqdm(revisions(), "reading DVC", unit=" revisions", leave=False, disable=None)
    return [result for revision in reading for result in results_at(revision)]


@contextmanager
def opened() -> Iterator[Runs]:
    """The runs in the store; other processes that fill it from this folder wait.

    Raises:
        ValueError: as `sync`.
    """
    if not Path("dvc.yaml").is_file():
        raise ValueError("dvc.yaml is missing: run from the project's folder")
    try:
        with FileLock("mlflow.db.sync.lock"):
            yield Runs()
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        # Such as a full disk; failures of requests have no number.
        if isinstance(error, OSError) and error.errno and not isinstance(error, _OF_NETWORKS):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"MLflow at {concealed(store_uri())} does not answer or refuses: {concealed(first)}\n"
            "Start it, or set MLFLOW_TRACKING_URI to another; unset, mlflow.db in this folder is used."
        ) from None


class Runs:
    """The runs of the project in MLflow, by the results that they hold."""

    def __init__(self) -> None:
        self.client: MlflowClient
        self.client, self.experiment = open_store()
        self._finished: dict[str, list[Run]] = defaultdict(list)  # by stage, oldest first
        self.parents = Parents(self.client, self.experiment)
        self._unfinished: dict[str, Run] = {}  # backfills that were cut off, by key
        token = None
        while token != "":
            runs = self.client.search_runs(
                [self.experiment],
                run_view_type=ViewType.ALL,
                order_by=["attributes.start_time ASC"],
                max_results=1000,
                page_token=token,
            )
            for run in runs:
                if run.data.tags.get(KIND) == EXPERIMENT_RUN:
                    self.parents.runs.append(run)
                elif run.info.status == "FINISHED":
                    self._finished[run.data.tags.get("dvc.stage", "")].append(run)
                elif RESULT in run.data.tags:
                    self._unfinished[run.data.tags[RESULT]] = run
            token = runs.token or ""

    def of(self, result: Result) -> list[Run]:
        """Runs with this result, oldest first, including runs deleted in MLflow.

        There are several if it was trained again.
        """
        return [run for run in self._finished[result.stage] if _is_of(run, result)]

    def active(self, result: Result) -> list[Run]:
        """Runs with this result, oldest first, without deleted runs."""
        return [run for run in self.of(result) if is_active(run)]

    def sync(self, results: Sequence[Result]) -> Counter[str]:
        """Complete and backfill runs; numbers of runs by what was done to them, without those of
        experiments."""
        held: dict[str, list[Result]] = defaultdict(list)
        evaluations = {r.revision: r for r in results if r.model == AVERAGE}
        judged: dict[str, Result] = {}
        for result in results:
            held[result.key].append(result)
            if evaluation := evaluations.get(result.revision):
                judged[result.key] = evaluation  # the newest comes last
        done: Counter[str] = Counter()
        entries = []
        filling = tqdm(held.items(), "filling MLflow", unit=" runs", leave=False, disable=None)
        for key, equal in filling:
            before = self.of(equal[0])
            try:
                runs = list(filter(is_active, before)) if before else [self._backfill(equal[0])]
            except ValueError as error:
                warn(str(error))
                done["postponed"] += 1
                continue
            done["deleted"] += not runs
            entries += [_Entry(run, equal, judged.get(key), bool(before)) for run in runs]
        own: dict[Revision, list[Run]] = defaultdict(list)
        for entry in entries:
            own[entry.first].append(entry.run)
        homes = self.parents.sync(states(results), own)
        linking = tqdm(entries, "linking runs", unit=" runs", leave=False, disable=None)
        for entry in linking:
            changed = self._complete(entry, homes)
            done["backfilled" if not entry.known else "completed" if changed else "unchanged"] += 1
        return done

    def _complete(self, entry: _Entry, homes: Mapping[Revision, Run]) -> bool:
        """Add what DVC knows to a run; return whether anything was missing."""
        run, result = entry.run, entry.equal[0]
        first = entry.first
        # Where it trained, even if that experiment is gone.
        parent = self.parents.find(run.data.tags.get(PARENT, "")) or homes.get(first)
        name = parent.data.tags.get("experiment", first.name) if parent else first.name
        names = list(dict.fromkeys(at.name for at in entry.saved))
        wanted = {
            RESULT: result.key,
            KIND: "evaluation" if result.model == AVERAGE else "training",
            "experiment": name,
            "shared by": cut(", ".join(other for other in names if other != name)),
            "dvc.experiments": cut(", ".join(names)),
            "dvc.commit": first.commit,
            "dvc.baseline": first.baseline,
            "dvc.get": first.get,
            PARENT: parent.info.run_id if parent else "",
        } | source(f"dvc.yaml: {result.stage}", first)
        # A name that somebody gave it stays.
        before = (run.data.tags.get("experiment"), run.data.tags.get("dvc.experiment"), WORKSPACE)
        if run.info.run_name in {f"{old} {result.model}" for old in before}:
            wanted["mlflow.runName"] = f"{name} {result.model}"
        changed = set_tags(self.client, run, wanted)
        changed |= log_scores(self.client, run, scores(result, entry.evaluation))
        return changed | mlflow_datasets.log(self.client, run, result, mlflow_datasets.splits_of(result))

    def _backfill(self, result: Result) -> Run:
        """Write a run from what DVC holds; raises ValueError if DVC cannot get at the curves."""
        at = result.revision
        moment = int(at.time * 1000)
        points = [(name, value, 0) for name, value in _best_metrics(result).items()]
        if result.model != AVERAGE:
            curves = at.curves(result.model)
            points += [(name, y, epoch) for name, curve in curves.items() for epoch, y in curve]
        # A run that was cut off is written again: MLflow accepts equal values twice.
        run = self._unfinished.get(result.key)
        if run is None or not is_active(run):
            tags = {
                "model": result.model,
                "source": BACKFILL,
                "git.revision": at.baseline or at.commit,
                "dvc.stage": result.stage,
                "dvc.experiment": at.name if at.baseline else "",
                RESULT: result.key,
            } | {f"data.{path}": digest for path, digest in result.hashes.items()}
            run = self.client.create_run(
                self.experiment,
                start_time=moment,
                tags={key: value for key, value in tags.items() if value},
                run_name=f"{at.name} {result.model}",
            )
        number = run.info.run_id
        log_params(self.client, number, result.params | used_params(result.used))
        log_metrics(
            self.client, number, [Metric(name, value, moment, step) for name, value, step in points]
        )
        self.client.set_terminated(number, "FINISHED", end_time=moment)
        made = self.client.get_run(number)
        self._finished[result.stage].append(made)
        return made


@dataclass(frozen=True)
class _Entry:
    """A run and the equal results that it holds.

    evaluation: the newest of them. known: whether MLflow had the run.
    """

    run: Run
    equal: Sequence[Result]
    evaluation: Result | None
    known: bool

    @property
    def saved(self) -> list[Revision]:
        """The revisions that have the result, the workspace only where it is the only one."""
        found = [one.revision for one in self.equal if one.revision.name != WORKSPACE]
        return found or [self.equal[0].revision]

    @property
    def first(self) -> Revision:
        """The experiment that the run was logged in, if it still exists, else the oldest revision."""
        logged = self.run.data.tags.get("dvc.experiment")
        return next((at for at in self.saved if at.baseline and at.name == logged), self.saved[0])


def _best_metrics(result: Result) -> dict[str, float]:
    if result.model == AVERAGE:
        return {}
    return {f"best/{name}": float(value) for name, value in result.scores.items()}


def _is_of(run: Run, result: Result) -> bool:
    """Whether a run holds a result, by its tag or, if logged live, by metrics, parameters and data."""
    params, tags = run.data.params, run.data.tags
    if RESULT in tags:
        return bool(tags[RESULT] == result.key)
    best = {name: value for name, value in run.data.metrics.items() if name.startswith("best/")}
    if best != _best_metrics(result):
        return False
    return all(canonical(params.get(k)) == canonical(v) for k, v in result.read.items()) and all(
        tags.get(f"data.{path}") == digest for path, digest in result.data.items()
    )
