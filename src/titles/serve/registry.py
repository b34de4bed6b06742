"""MLflow's store filled from DVC, and the ways between the two.

A training logs its curves while it runs (tracking.py) and knows neither the test split nor the commit of
its experiment; one that DVC takes from its run cache, or that was pulled, logs nothing. `sync` adds what
is missing afterwards, from DVC alone, so that no stage and no output has to know of MLflow.

Metrics of a run: the curves, by epoch; best/, those of the epoch that was kept; test/, those on the test
split, of the newest evaluation. Tags:

dvc.result       identity of the result, `history.Result.key`: equal results are one run, in however many
                 experiments they stand
dvc.experiments  all revisions with this result, oldest first
dvc.commit       that of the first; dvc.baseline is the commit it started from
dvc.get          the command that brings it into the workspace
dvc.curves       "missing" while DVC cannot get at the curves of a backfilled run
source           live: logged while it trained; backfill: written afterwards, at the time of the commit
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from titles.data.contract import MODELS
from titles.experiments.history import (
    VALIDATION,
    WORKSPACE,
    Result,
    State,
    canonical,
    revision,
    revisions,
    state,
)
from titles.tracking.mlflow import LIVE, concealed, log_params, open_store, store_uri

REGISTERED = "titles"
BEST = "best"
BACKFILL = "backfill"
_RESULT = "dvc.result"
_CURVES = "dvc.curves"
_MEASURE = "validation_balanced_accuracy"
_LOCAL_UI = "http://127.0.0.1:5000"
_METRICS_A_BATCH = 1000  # more is refused by MLflow
_LONGEST_TAG = 8000

_Fingerprint = tuple[str, frozenset[tuple[str, float]]]  # stage and final metrics


def sync() -> str:
    """Bring MLflow up to date with DVC; a second call changes nothing.

    Runs that were logged live are found by their parameters, data and metrics and get the results on the
    test split and the tags above. Results without a run get one, unless the user deleted it in MLflow.

    Returns:
        what was done, for people.

    Raises:
        ValueError: MLflow does not answer or refuses, or this folder is not the project's.
    """
    with _store() as store:
        done = _sync(store, _states())
        return "\n".join([*_told(done), f"store: {concealed(store_uri())}"])


def find(name: str) -> str:
    """The runs and registered versions of an experiment or another revision, for people.

    Raises:
        ValueError: there is no such revision, nothing has run there, MLflow has no run of it, or as
            `sync`.
    """
    at = state(revision(name))
    wanted = _results(at)
    if not wanted:
        raise ValueError(f"{name} has no results: no stage has run there, or not to its end")
    with _store() as store:
        lines = []
        for result in wanted:
            for run in store.active_runs_of(result):
                lines.append(
                    f"{result.model:8} {_source(run):9} {run.info.run_id}  {store.address(run)}"
                )
                lines += [f"{'':8} {_version(v)}" for v in store.versions(run_id=run.info.run_id)]
    if not lines:
        raise ValueError(
            f"MLflow at {concealed(store_uri())} has no run of {name}: `titles mlflow sync` writes it"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        lines.append(f"`make mlflow` serves {_LOCAL_UI}")
    return "\n".join(lines)


def register(name: str | None = None) -> str:
    """Make the better network of an experiment, or the best there is, a version of models:/titles.

    Judged by balanced accuracy on validation, never on test. The alias `best` goes to the best version
    among those judged on the same validation split as this one: others cannot be compared. MLflow is
    brought up to date first. What is registered already is left as it is.

    Args:
        name: of an experiment or commit; None takes the best of all that were judged on the workspace's
            validation split.

    Returns:
        what was done, for people.

    Raises:
        ValueError: there is nothing to register, its files are nowhere, or as `sync`.
    """
    if name == WORKSPACE:
        raise ValueError(
            "only what is saved can be registered, so that it can be had again: "
            "`dvc exp save --name NAME`, or commit, then register that"
        )
    chosen = revision(name) if name else None
    with _store() as store:
        states = _states()
        _sync(store, states)
        result = _best(state(chosen)) if chosen else _best_comparable(states)
        if result is None:
            raise ValueError(
                f"nothing to register: no network was trained to its end in {name or 'a saved run'}"
                + ("" if name else " on the workspace's data; `dvc exp save` or commit what is here")
            )
        runs = store.active_runs_of(result)
        if not runs:
            raise ValueError(
                f"the run of the {result.model} of {result.revision.name} was deleted in MLflow: "
                "restore it there before its network is registered"
            )
        known = store.versions(**{_RESULT: result.key})
        version = known[0] if known else store.register(result, runs[-1])
        best = store.point_at_best(result)
        told = "is registered already" if known else "is registered"
        return (
            f"the {result.model} of {result.revision.name} {told}\n  {_version(version)}\n"
            f"models:/{REGISTERED}@{BEST} is\n  {_version(best)}"
        )


class _Store:
    """The runs of the project in MLflow, by the results that they hold."""

    def __init__(self) -> None:
        self.client: MlflowClient
        self.client, self.experiment = open_store()
        self._by_key: dict[str, list[Run]] = defaultdict(list)
        self._unkeyed: dict[_Fingerprint, list[Run]] = defaultdict(list)
        self._unfinished: dict[str, Run] = {}
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
                self._take(run)
            token = runs.token or ""

    def _take(self, run: Run) -> None:
        key = run.data.tags.get(_RESULT)
        if run.info.status != "FINISHED":
            if key:
                self._unfinished[key] = run
        elif key:
            self._by_key[key].append(run)
        else:
            self._unkeyed[_fingerprint(run)].append(run)

    def runs_of(self, result: Result) -> list[Run]:
        """Those that hold this result, oldest first; several where it was trained again, and also those
        that were deleted in MLflow."""
        fingerprint = (result.stage, frozenset(_best_metrics(result).items()))
        live = [run for run in self._unkeyed.get(fingerprint, []) if _is_of(run, result)]
        return [*self._by_key.get(result.key, []), *live]

    def active_runs_of(self, result: Result) -> list[Run]:
        """Those that hold this result, oldest first, without deleted ones."""
        return [run for run in self.runs_of(result) if _is_active(run)]

    def backfill(self, result: Result) -> Run:
        """A run made from what DVC holds."""
        at = result.revision
        moment = int(at.time * 1000)
        # One that was cut off is written again: MLflow takes equal values twice.
        run = self._unfinished.get(result.key)
        if run is None or not _is_active(run):
            tags = {
                "model": result.model,
                "source": BACKFILL,
                "git.revision": at.baseline or at.commit,
                "dvc.stage": result.stage,
                "dvc.experiment": at.name if at.baseline else "",
                _RESULT: result.key,
            } | {f"data.{path}": digest for path, digest in result.hashes.items()}
            run = self.client.create_run(
                self.experiment,
                start_time=moment,
                tags={key: value for key, value in tags.items() if value},
                run_name=f"{at.name} {result.model}",
            )
        number = run.info.run_id
        log_params(self.client, number, result.params)
        best = _best_metrics(result)
        self._log(number, [Metric(name, value, moment, 0) for name, value in best.items()])
        if best:  # a training
            self.client.set_tag(number, _CURVES, "missing")
            self.log_curves(number, result)
        self.client.set_terminated(number, "FINISHED", end_time=moment)
        made = self.client.get_run(number)
        self._by_key[result.key].append(made)
        return made

    def log_curves(self, run: str, result: Result) -> bool:
        """Log the curves to a run that lacks them; False if DVC cannot get at them, with a warning."""
        try:
            curves = result.curves()
        except ValueError as error:
            print(f"warning: a run without curves: {error}", file=sys.stderr)
            return False
        moment = int(result.revision.time * 1000)
        points = [
            Metric(metric, value, moment, step)
            for metric, curve in curves.items()
            for step, value in curve
        ]
        self._log(run, points)
        self.client.delete_tag(run, _CURVES)
        return True

    def _log(self, run: str, metrics: Sequence[Metric]) -> None:
        for start in range(0, len(metrics), _METRICS_A_BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + _METRICS_A_BATCH])

    def tag(self, run: Run, wanted: Mapping[str, str]) -> bool:
        """Set tags; whether any was another."""
        changed = {k: v for k, v in wanted.items() if v and run.data.tags.get(k) != v}
        for key, value in changed.items():
            self.client.set_tag(run.info.run_id, key, value)
        return bool(changed)

    def log_test(self, run: Run, scores: Mapping[str, float]) -> bool:
        """Log metrics of the test split; whether any was another."""
        if run.data.metrics.items() >= scores.items():
            return False
        now = int(time.time() * 1000)
        self._log(run.info.run_id, [Metric(name, value, now, 0) for name, value in scores.items()])
        return True

    def address(self, run: Run) -> str:
        """Where MLflow's pages show a run."""
        uri = store_uri()
        scheme, _, rest = uri.partition("://")
        base = f"{scheme}://{rest.rpartition('@')[2]}" if scheme in ("http", "https") else _LOCAL_UI
        return f"{base.rstrip('/')}/#/experiments/{self.experiment}/runs/{run.info.run_id}"

    def versions(self, run_id: str | None = None, **tags: str) -> list[Any]:
        """Registered versions of a run or with tags, oldest first."""
        wanted = f"name = '{REGISTERED}'" + (f" and run_id = '{run_id}'" if run_id else "")
        found = self.client.search_model_versions(wanted, max_results=1000)
        matching = [v for v in found if v.tags.items() >= tags.items()]
        return sorted(matching, key=lambda version: int(version.version))

    def register(self, result: Result, run: Run) -> Any:
        """Log the network as a model of its run, and make it a version."""
        from titles.serve import mlflow_model

        at = result.revision
        tags = {
            "model": result.model,
            _RESULT: result.key,
            "dvc.experiments": run.data.tags.get("dvc.experiments", at.name),
            "dvc.commit": at.commit,
            "dvc.get": at.get,
            _MEASURE: str(result.scores[_MEASURE]),
            f"data.{VALIDATION}": result.data[VALIDATION],
        }
        tags = {key: value for key, value in tags.items() if value}
        with tempfile.TemporaryDirectory() as made:
            folder, out = Path(made) / result.model, Path(made) / "mlflow"
            at.fetch(MODELS / result.model, folder)
            logged = self.client.create_logged_model(
                self.experiment, REGISTERED, run.info.run_id, tags=tags, params=result.params
            )
            number = logged.model_id
            try:
                model = Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=number,
                    run_id=run.info.run_id,
                    model_id=number,
                )
                mlflow_model.write([folder], out, model)
                self.client.log_model_artifacts(number, str(out))
                self.client.finalize_logged_model(number, "READY")
            except BaseException:
                self.client.delete_logged_model(number)
                raise
        self.client.log_outputs(run.info.run_id, [LoggedModelOutput(number, step=0)])
        try:
            self.client.create_registered_model(
                REGISTERED, description="Titles to categories; `best` is the best on validation."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(
            REGISTERED, f"models:/{number}", run.info.run_id, tags=tags, model_id=number
        )

    def point_at_best(self, result: Result) -> Any:
        """Put the alias on the best version judged on the validation split of `result`."""
        split = f"data.{VALIDATION}"
        comparable = self.versions(**{split: result.data[VALIDATION]})
        best = max(comparable, key=lambda version: float(version.tags[_MEASURE]))
        if best.version != self._aliased():
            self.client.set_registered_model_alias(REGISTERED, BEST, best.version)
        return best

    def _aliased(self) -> str | None:
        aliases: dict[str, str] = self.client.get_registered_model(REGISTERED).aliases
        return aliases.get(BEST)


@contextmanager
def _store() -> Iterator[_Store]:
    """The store, for this process alone among those that fill it from this folder."""
    if not Path("dvc.yaml").is_file():
        raise ValueError("dvc.yaml is missing: run from the project's folder")
    try:
        with FileLock("mlflow.db.sync.lock"):
            yield _Store()
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"MLflow at {concealed(store_uri())} does not answer or refuses: {concealed(first)}\n"
            "Start it, or set MLFLOW_TRACKING_URI to another; unset, mlflow.db in this folder is used."
        ) from None


def _states() -> list[State]:
    reading = tqdm(revisions(), "reading DVC", unit=" revisions", leave=False, disable=None)
    return [state(at) for at in reading]


def _sync(store: _Store, states: Iterable[State]) -> Counter[str]:
    """Complete and backfill runs; counts of runs by what was done to them."""
    held: dict[str, list[Result]] = defaultdict(list)
    judged: dict[str, Result] = {}
    for at in states:
        for result in _results(at):
            held[result.key].append(result)
            if at.evaluation is not None:
                judged[result.key] = at.evaluation  # the newest comes last
    done: Counter[str] = Counter()
    for key, results in tqdm(held.items(), "filling MLflow", unit=" runs", leave=False, disable=None):
        known = store.runs_of(results[0])
        runs = [run for run in known if _is_active(run)] if known else [store.backfill(results[0])]
        done["deleted"] += not runs
        for run in runs:
            changed = store.tag(run, _links(run, results))
            if known and _CURVES in run.data.tags:
                changed |= store.log_curves(run.info.run_id, results[0])
            if key in judged:
                changed |= store.log_test(run, _test_metrics(results[0].model, judged[key]))
            done["backfilled" if not known else "completed" if changed else "unchanged"] += 1
    return done


def _results(at: State) -> list[Result]:
    return [*at.trainings.values(), *([at.evaluation] if at.evaluation else [])]


def _links(run: Run, results: Sequence[Result]) -> dict[str, str]:
    """Tags that lead to all revisions of a result, and to the first: the one that it was logged in, if
    that is still there, else the oldest."""
    saved = [r.revision for r in results if r.revision.name != WORKSPACE] or [results[0].revision]
    logged = run.data.tags.get("dvc.experiment")
    first = next((at for at in saved if at.baseline and at.name == logged), saved[0])
    names = ", ".join(dict.fromkeys(at.name for at in saved))
    return {
        _RESULT: results[0].key,
        "dvc.experiments": names if len(names) <= _LONGEST_TAG else f"{names[: _LONGEST_TAG - 4]} ...",
        "dvc.commit": first.commit,
        "dvc.baseline": first.baseline,
        "dvc.get": first.get,
    }


def _test_metrics(model: str, evaluation: Result) -> dict[str, float]:
    scores = evaluation.scores
    found = {f"test/{name}": value for name, value in scores.get(model, {}).items()}
    if model == evaluation.model:
        pair = scores.get("cnn_minus_mlp", {})
        found |= {f"test/cnn_minus_mlp/{name}": value for name, value in pair.items()}
    return found


def _best_metrics(result: Result) -> dict[str, float]:
    if result.model == "average":
        return {}
    return {f"best/{name}": float(value) for name, value in result.scores.items()}


def _fingerprint(run: Run) -> _Fingerprint:
    best = {name: value for name, value in run.data.metrics.items() if name.startswith("best/")}
    return run.data.tags.get("dvc.stage", ""), frozenset(best.items())


def _is_of(run: Run, result: Result) -> bool:
    """Whether a live run is the training of a result: the same parameters read, the same data."""
    params, tags = run.data.params, run.data.tags
    return all(canonical(params.get(k, "")) == canonical(v) for k, v in result.read.items()) and all(
        tags.get(f"data.{path}") == digest for path, digest in result.data.items()
    )


def _is_active(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == "active")


def _source(run: Run) -> str:
    return str(run.data.tags.get("source", LIVE))


def _best(at: State) -> Result | None:
    return max(at.trainings.values(), key=_rank, default=None)


def _best_comparable(states: Sequence[State]) -> Result | None:
    """The best saved training of those that were judged on the workspace's validation split."""
    now = next((_best(at) for at in states if at.revision.name == WORKSPACE), None)
    if now is None:
        raise ValueError(
            "the workspace has no trained network, so that nothing says which validation split counts: "
            "name an experiment, or `dvc repro` first"
        )
    saved = [r for at in states if at.revision.commit for r in at.trainings.values()]
    comparable = [r for r in saved if r.data[VALIDATION] == now.data[VALIDATION]]
    return max(comparable, key=_rank, default=None)


def _rank(result: Result) -> tuple[float, float]:
    # The order by which a training picks its best epoch.
    return result.scores[_MEASURE], -result.scores["validation_loss"]


def _version(version: Any) -> str:
    tags = version.tags
    return (
        f"models:/{REGISTERED}/{version.version}: {tags.get('model', '?')} of "
        f"{tags.get('dvc.experiments', '?')}, balanced accuracy on validation {tags.get(_MEASURE, '?')}"
    )


def _told(done: Counter[str]) -> Iterator[str]:
    if not done.total():
        yield "DVC holds no results yet: `dvc exp run` makes some"
    texts = {
        "completed": "got their results and links",
        "backfilled": "were written from what DVC holds",
        "unchanged": "were up to date",
        "deleted": "were deleted in MLflow and stay so",
    }
    for kind, text in texts.items():
        if done[kind]:
            yield f"{done[kind]} runs {text}"
