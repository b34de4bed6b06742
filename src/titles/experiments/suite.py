"""Named experiments from a file, queued with DVC, waited for and shown beside published figures."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from titles.data.contract import atomic_file
from titles.experiments.queue import Queue, Task
from titles.experiments.revisions import experiments, git, head, inputs_of, params_of, scores_of, table
from titles.models.registry import load_params, parse_params
from titles.params import Params

_POLL = 2.0  # seconds
_HEARTBEAT = 60.0  # seconds between lines where there is no terminal
_WORKER_STARTS = 15.0  # seconds a worker may take until it is seen, or takes a task
_STALLED = 120.0  # seconds without a task taken or ended, though workers are idle
_MOST_RETRIES = 2  # of a run whose worker died
_MOST_RESTARTS = 5  # of workers, without a run that ends in between
_LOG_LINES = 20

Settings = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Strict):
    balanced_accuracy: Annotated[float, Field(ge=0, le=1)]
    loss: Annotated[float, Field(ge=0)]


class Prueba(_Strict):
    """One experiment: the network that it is about, what it changes, what others measured."""

    network: Literal["cnn", "mlp", "average"]
    settings: Settings = {}
    published: Figures | None = None


class Plan(_Strict):
    """A file of experiments. settings: of all of them; those of an experiment go before."""

    about: Annotated[str, Field(min_length=1)]
    published_on: str | None = None
    settings: Settings = {}
    experiments: Annotated[dict[Name, Prueba], Field(min_length=1)]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                line = node.value[number][0].start_mark.line + 1
                raise ValueError(f"line {line}: {key} stands there twice")
        return super().construct_mapping(node, deep)


def read_plan(file: Path) -> Plan:
    """Read a file of experiments.

    Raises:
        ValueError: the file is missing, is no YAML, or breaks the schema; all problems are listed.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506, a SafeLoader
        return Plan.model_validate(values)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: name a file such as experiments/course.yaml") from None
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors()]
    except (ValueError, yaml.YAMLError) as error:  # not UTF-8 is a ValueError too
        problems = [str(error)]
    raise ValueError(f"{file} is no file of experiments:\n  " + "\n  ".join(problems))


def merged(base: Settings, *changes: Settings) -> Settings:
    """Sections of parameters with those of `changes` put over them, the last on top."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            result[key] = merged(old or {}, value) if both else value
    return result


def overrides(settings: Settings, params: Params) -> list[str]:
    """What `dvc exp run -S` takes for the keys of `settings`, with their values in `params`."""
    values = params.model_dump(mode="json")
    found = []
    for section, keys in settings.items():
        if isinstance(keys, dict):
            found += [f"{section}.{key}={_literal(values[section][key])}" for key in keys]
        else:
            found.append(f"{section}={_literal(values[section])}")
    return found


def _literal(value: Any) -> str:
    """A value in the grammar of overrides, where commas, spaces and words such as true say more."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def differences(ours: Params, theirs: Params | None) -> str:
    """The parameters in which two differ, for a message."""
    if theirs is None:
        return "parameters that this version of the project does not understand"
    one, other = _flat(ours.model_dump(mode="json")), _flat(theirs.model_dump(mode="json"))
    return ", ".join(f"{key} {other[key]}, not {one[key]}" for key in one if one[key] != other[key])


def _flat(values: Settings) -> Settings:
    flat: Settings = {}
    for section, keys in values.items():
        if isinstance(keys, dict):
            flat |= {f"{section}.{key}": value for key, value in keys.items()}
        else:
            flat[section] = keys
    return flat


class _Wanted(NamedTuple):
    """An experiment with all its parameters, and what to change for them."""

    name: str
    params: Params
    overrides: list[str]


def wanted(plan: Plan, file: Path, base: Settings) -> list[_Wanted]:
    """The experiments of a plan, over the parameters `base`.

    Raises:
        ValueError: settings break the schema of params.yaml.
    """
    found, problems = [], []
    for name, prueba in plan.experiments.items():
        settings = merged(plan.settings, prueba.settings)
        try:
            params = parse_params(merged(base, settings), f"{file}, {name},")
            found.append(_Wanted(name, params, overrides(settings, params)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return found


def default_jobs(threads: int) -> int:
    """Runs at once that `threads` threads each leave this machine's cores to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


class _State(NamedTuple):
    """Where experiments stand on this baseline: by name, revisions that are done and tasks under way."""

    done: dict[str, str]
    tasks: dict[str, Task]


def _state(queue: Queue, baseline: str, experiments_: list[_Wanted]) -> _State:
    """Where the experiments stand.

    Raises:
        ValueError: one has a name that is taken by another experiment, with other settings or code.
    """
    names = {one.name: one for one in experiments_}
    done: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    taken: dict[str, list[str]] = {"exp remove": [], "queue remove": [], "queue kill": []}
    told = []

    def fits(name: str, revision: str, remedy: str) -> bool:
        why = _unlike(names[name], revision)
        if why:
            told.append(f"{name} ({revision[:7]}) has {why}")
            taken[remedy].append(name)
        return not why

    waiting, running = queue.waiting(), queue.running()
    for found in experiments(baseline):
        if found.name in names and fits(found.name, found.revision, "exp remove"):
            done[found.name] = found.revision
    for tasks_, remedy in ((running, "queue kill"), (waiting, "queue remove")):
        for task in tasks_:
            ours = task.baseline == baseline and task.name in names
            if ours and task.name not in done and fits(task.name, task.revision, remedy):
                tasks.setdefault(task.name, task)
    if told:
        remedies = [f"dvc {command} {' '.join(found)}" for command, found in taken.items() if found]
        rename = " (or keep it: `dvc exp rename OLD NEW`)" if taken["exp remove"] else ""
        raise ValueError(
            "names are taken by other experiments on this commit:\n  "
            + "\n  ".join(told)
            + f"\nTo run them anew: {' && '.join(remedies)}{rename}"
        )
    return _State(done, tasks)


def _unlike(one: _Wanted, revision: str, than: str | None = None) -> str:
    """In what an experiment, done or stashed, is not the one wanted; "" where it is the same.

    Its code and data are compared with those of the revision `than`, or of the working tree.
    """
    params = params_of(revision)
    if params != one.params:
        return differences(one.params, params)
    commits = [revision, than] if than else [revision]
    changed = git("diff", "--name-only", *commits, "--", *inputs_of(one.params)).splitlines()
    return f"other code or data: {', '.join(changed)}" if changed else ""


def run(
    file: Path, jobs: int | None = None, tell: Callable[[str], None] = tqdm.write
) -> tuple[Plan, dict[str, str]]:
    """Run the experiments of a file that are not done yet on the commit that is checked out.

    An interrupt ends the queue's workers; what is done stays, and a second call goes on from there. If
    this process is killed, workers go on, and a second call waits for them.

    Args:
        jobs: runs at once; None takes the machine's cores over compute.threads.
        tell: is given each line to show.

    Returns:
        The plan and the revision of each experiment, by name.

    Raises:
        ValueError: the file or the parameters are wrong, names are taken, workers do not stay alive, or
            experiments failed; those that did not are done all the same.
    """
    plan = read_plan(file)
    load_params()  # tells what is wrong with the file before the plan lies over it
    base = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    pruebas = wanted(plan, file, base)
    if jobs is None:
        jobs = default_jobs(max(one.params.compute.threads for one in pruebas))
    elif jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    baseline = head()
    if untracked := git("ls-files", "--others", "--exclude-standard", "--", "src").splitlines():
        tell(f"warning: runs in the queue do not see what git does not track: {', '.join(untracked)}")
    queue = Queue()
    state = _state(queue, baseline, pruebas)
    tell(
        f"{plan.about}, on {baseline[:7]}: {len(state.done)} of {len(pruebas)} done, "
        f"{len(state.tasks)} in the queue"
    )
    runner = _Runner(queue, baseline, pruebas, state, tell)
    if len(state.done) < len(pruebas):
        runner.queue_missing()
        try:
            runner.wait(min(jobs, len(pruebas) - len(state.done)))
        except BaseException:
            tell("stopping the queue's workers; what is done stays, the same command goes on from there")
            queue.stop()
            raise
    if runner.failed:
        raise ValueError(runner.failures())
    return plan, runner.done


class _Runner:
    """Waits for experiments in the queue, and helps it up where it falls."""

    def __init__(
        self,
        queue: Queue,
        baseline: str,
        pruebas: list[_Wanted],
        state: _State,
        tell: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._baseline = baseline
        self._wanted = {one.name: one for one in pruebas}
        self._tell = tell
        self.done = dict(state.done)
        self.tasks = dict(state.tasks)
        self.failed: dict[str, Task] = {}
        self._lost: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._restarts = 0

    def queue_missing(self) -> None:
        old = [task for task in self._queue.failed() if task.baseline == self._baseline]
        for name in self._wanted:
            if name in self.done or name in self.tasks:
                continue
            for task in old:
                if task.name == name:
                    self._queue.forget(task)
            self._put(name)

    def _put(self, name: str) -> None:
        self._gone.pop(name, None)
        self._started.pop(name, None)
        self.tasks[name] = self._queue.put(name, self._wanted[name].overrides)
        self._tell(f"{name}: queued")

    def wait(self, jobs: int) -> None:
        """Until each experiment is done or failed."""
        seen = moved = time.monotonic()  # a worker was last seen, a task last taken or ended
        begun = -_WORKER_STARTS
        beat = time.monotonic()
        last: tuple[Any, ...] = ()
        total = len(self._wanted)
        with tqdm(
            total=total, initial=len(self.done), unit=" runs", disable=None, desc="experiments"
        ) as bar:
            while self.tasks:
                # In this order: a task on its way from one list to the next is then in one at least.
                waiting = {task.revision for task in self._queue.waiting()}
                running = {task.revision for task in self._queue.running()}
                self._note(waiting, running)
                bar.n = len(self.done)
                now = time.monotonic()
                workers = self._queue.workers()
                if workers:
                    seen = now
                if (waiting, running) != last:
                    last, moved = (waiting, running), now
                if waiting and len(workers) < jobs and now - begun > _WORKER_STARTS:
                    self._start(jobs)
                    begun = seen = moved = time.monotonic()
                elif not workers and now - seen > _WORKER_STARTS:
                    self._requeue_lost(running)
                elif waiting and not running and now - moved > _STALLED:
                    self._tell("the queue's workers take nothing: starting others")
                    self._queue.kill_workers()
                bar.set_postfix_str(self._running(running))
                if bar.disable and now - beat > _HEARTBEAT:
                    beat = now
                    self._tell(f"{len(self.done)} of {total} done; {self._running(running)}")
                if self.tasks:
                    time.sleep(_POLL)

    def _start(self, jobs: int) -> None:
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise ValueError(
                f"the queue's workers ended {_MOST_RESTARTS} times before a run did: see "
                f"{self._queue.where_workers_log()}"
            )
        self._queue.start(jobs)

    def _note(self, waiting: set[str], running: set[str]) -> None:
        """Tell what has begun and ended."""
        refs = {found.name: found.revision for found in experiments(self._baseline)}
        for name, task in list(self.tasks.items()):
            if task.revision in running and name not in self._started:
                self._started[name] = time.monotonic()
                self._tell(f"{name}: running")
            if task.revision in running | waiting:
                continue
            revision = refs.get(name)
            # Not with the working tree, which may have been edited since.
            if revision and not _unlike(self._wanted[name], revision, task.revision):
                self.done[name] = revision
                self._end(name, "done")
            elif self._gone.setdefault(name, 0) == 0:
                self._gone[name] = 1  # looked at once more: its last steps may just be under way
            else:
                self.failed[name] = task
                self._end(name, "FAILED")
                why = f"DVC could not set it up, {self._queue.where_workers_log()} says why"
                self._tell(_indented(_tail(self._queue.log(task) or f"it printed nothing: {why}")))

    def _end(self, name: str, how: str) -> None:
        del self.tasks[name]
        self._restarts = 0
        begun = self._started.get(name)
        took = f" after {_duration(time.monotonic() - begun)}" if begun else ""
        counted = f"{len(self.done)} of {len(self._wanted)} done"
        self._tell(f"{name}: {how}{took} ({counted})")

    def _requeue_lost(self, running: set[str]) -> None:
        """No worker is left: what the queue calls running is not."""
        for name, task in list(self.tasks.items()):
            if task.revision not in running:
                continue
            self._lost[name] = self._lost.get(name, 0) + 1
            if self._lost[name] > _MOST_RETRIES:
                self.failed[name] = task
                self._end(name, f"FAILED, its worker died {self._lost[name]} times,")
                continue
            self._tell(f"{name}: its worker died, queueing it again")
            self._queue.forget(task)
            self._put(name)

    def _running(self, running: set[str]) -> str:
        shown = []
        for name, task in self.tasks.items():
            if task.revision in running:
                took = _duration(time.monotonic() - self._started.get(name, time.monotonic()))
                line = _tail(self._queue.log(task), 1).split("(")[0].strip()
                shown.append(f"{name} for {took}: {line[:60] or 'starting'}")
        waiting = len(self.tasks) - len(shown)
        return "; ".join([*shown, f"{waiting} waiting"])

    def failures(self) -> str:
        names = ", ".join(self.failed)
        return (
            f"{len(self.failed)} of {len(self._wanted)} experiments failed: {names}. "
            f"`dvc queue logs {next(iter(self.failed))}` has the whole log; the same command runs again "
            "what failed, and nothing else"
        )


def _tail(log: str, lines: int = _LOG_LINES) -> str:
    kept = [line for line in re.split(r"[\r\n]+", log) if line.strip()]
    return "\n".join(kept[-lines:])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


Scores = dict[str, dict[str, float]]


def measured(revisions: dict[str, str]) -> dict[str, Scores]:
    """What experiments came to, each named with its revision.

    Raises:
        ValueError: an experiment has no metrics.
    """
    found = {name: scores_of(revision) for name, revision in revisions.items()}
    if lacking := [name for name, scores in found.items() if scores is None]:
        raise ValueError(f"without metrics/evaluate.json: {', '.join(lacking)}")
    return {name: scores for name, scores in found.items() if scores is not None}


def results(plan: Plan, scores: dict[str, Scores], form: str = "simple") -> str:
    """The measures of experiments beside published ones, as a table."""
    rows = []
    for name, prueba in plan.experiments.items():
        score = scores[name][prueba.network]
        published = prueba.published
        rows.append(
            {
                "experiment": name,
                "network": prueba.network,
                "what it sets": ", ".join(f"{k} {v}" for k, v in _flat(prueba.settings).items()),
                "balanced accuracy": f"{score['balanced_accuracy']:.3f}",
                "95 % interval": f"{score['balanced_accuracy_low']:.3f} .. "
                f"{score['balanced_accuracy_high']:.3f}",
                "loss": f"{score['loss']:.3f}",
                "published": f"{published.balanced_accuracy:.3f}" if published else "-",
                "published loss": f"{published.loss:.3f}" if published else "-",
            }
        )
    if not any(prueba.published for prueba in plan.experiments.values()):
        rows = [{k: v for k, v in row.items() if not k.startswith("published")} for row in rows]
    return table(rows, form)


def caveat(plan: Plan) -> str:
    """Why the columns of a table of results do not compare; "" where nothing is published."""
    if not any(prueba.published for prueba in plan.experiments.values()):
        return ""
    where = f" on {plan.published_on}" if plan.published_on else ""
    return (
        f"Published figures were measured{where}, with other code. Data and code differ from those "
        "here, so that the columns do not compare one to one: look at how experiments rank within each."
    )


def write_markdown(plan: Plan, scores: dict[str, Scores], baseline: str, path: Path) -> None:
    """Write the table and how to get it to a Markdown file.

    Raises:
        ValueError: the file cannot be written.
    """
    common = ", ".join(f"`{key}` {value}" for key, value in _flat(plan.settings).items())
    parts = [
        f"# {plan.about}",
        "Figures are those of the network that an experiment is about, on the test split; intervals by "
        "a bootstrap within categories.",
        results(plan, scores, "github"),
        caveat(plan),
        f"All experiments set {common}." if common else "",
        f"Commit {baseline[:7]}. `titles pruebas` runs them, `dvc exp show` has all that was measured.",
    ]
    with atomic_file(path) as partial:
        partial.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")
