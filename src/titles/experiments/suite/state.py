"""Which experiments of a plan are finished on a commit, and which are in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titles.experiments.commands import git
from titles.experiments.older import upgraded
from titles.experiments.queue import Queue, Task
from titles.experiments.store import Revision, canonical, experiments
from titles.experiments.suite.plan import Wanted
from titles.params import Params
from titles.tracking.provenance import flat


def state(
    queue: Queue, baseline: str, plan: Mapping[str, Wanted]
) -> tuple[dict[str, Revision], dict[str, Task]]:
    """The experiments of a plan that are finished on a commit, and their tasks in the queue, by name.

    Raises:
        ValueError: a name is taken by an experiment with other settings or code.
    """
    done: dict[str, Revision] = {}
    tasks: dict[str, Task] = {}
    taken: dict[str, list[str]] = {}
    problems = []

    def fits(name: str, commit: str, remedy: str) -> bool:
        if why := difference(plan[name], commit):
            problems.append(f"{name} ({commit[:7]}) has {why}")
            taken.setdefault(remedy, []).append(name)
        return not why

    waiting, running = queue.waiting(), queue.running()
    for found in experiments(baseline):
        if found.name in plan and fits(found.name, found.commit, "exp remove"):
            done[found.name] = found
    for remedy, in_queue in (("queue kill", running), ("queue remove", waiting)):
        for task in in_queue:
            ours = task.baseline == baseline and task.name in plan
            if ours and task.name not in done and fits(task.name, task.revision, remedy):
                tasks.setdefault(task.name, task)
    if problems:
        remedies = " && ".join(f"dvc {remedy} {' '.join(names)}" for remedy, names in taken.items())
        rename = " (or keep it: `dvc exp rename OLD NEW`)" if "exp remove" in taken else ""
        raise ValueError(
            "names are taken by other experiments on this commit:\n  "
            + "\n  ".join(problems)
            + f"\nTo run them anew: {remedies}{rename}"
        )
    return done, tasks


def difference(one: Wanted, commit: str, than: str | None = None) -> str:
    """How an experiment, finished or stashed, differs from the one wanted; "" if it does not.

    Its code and data are compared with those of the commit `than`, or of the working tree.
    """
    found = Revision(one.name, commit, "", 0)
    try:
        if differing := differing_params(one.params, found.params):
            return differing
    except ValueError:
        return "no readable params.yaml"
    commits = [commit, than] if than else [commit]
    changed = git("diff", "--name-only", "--relative", *commits, "--", *found.inputs).splitlines()
    return f"other code or data: {', '.join(changed)}" if changed else ""


def differing_params(ours: Params, theirs: Mapping[str, Any]) -> str:
    """The parameters that differ, for a message; `theirs` may be of an older version."""
    wanted, had = upgraded(flat(ours.model_dump(mode="json"))), upgraded(theirs)
    values = {name: (had.get(name), wanted.get(name)) for name in {**wanted, **had}}
    return ", ".join(
        f"{name} {found}, not {value}"
        for name, (found, value) in values.items()
        if canonical(found) != canonical(value)
    )
