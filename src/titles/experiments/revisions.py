"""Experiments and commits as git keeps them, and the programs git and DVC.

DVC stores an experiment as a commit under refs/exps/, below the commit that it started from, its
baseline. Files of it are read straight from there: that needs no lock, and works while others run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tabulate import tabulate

from titles.data.contract import METRICS
from titles.models.registry import parse_params
from titles.params import Params

NETWORKS = ("cnn", "mlp", "average")


class Experiment(NamedTuple):
    """An experiment that is done. revision, baseline: full hashes of commits."""

    name: str
    revision: str
    baseline: str


def environment() -> dict[str, str]:
    """Environment in which stages find the `python` and `dvc` that run this program, and their own code.

    A stage's folder comes first where Python looks for `titles`, which matters in temporary folders: the
    package as installed is the code of the working tree, not of the experiment.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    source = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PATH": path, "PYTHONPATH": source}


def git(*arguments: str, folder: Path | None = None) -> str:
    """What git prints.

    Raises:
        ValueError: git is missing or reports an error.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ValueError("git is not installed, or not in PATH") from None
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def dvc(*arguments: str, folder: Path | None = None) -> str:
    """What a short command of DVC prints.

    An interrupt waits for the command: one that is cut off leaves the working tree stashed away.

    Raises:
        ValueError: DVC reports an error.
    """
    # Not through a pipe, which the workers that `dvc queue start` leaves behind would hold open.
    with tempfile.TemporaryFile() as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal goes to all processes of a session
        )
        try:
            process.wait()
        except BaseException:
            process.wait()
            raise
        stream.seek(0)
        output = stream.read().decode(errors="replace").strip()
    if process.returncode:
        raise ValueError(f"dvc {' '.join(arguments[:2])} failed:\n{output}")
    return output


def head() -> str:
    """Full hash of the commit that is checked out."""
    return git("rev-parse", "--verify", "HEAD^{commit}").strip()


def experiments(baseline: str | None = None) -> list[Experiment]:
    """Experiments that are done, in order of time: those of a commit, or all."""
    below = f"refs/exps/{baseline[:2]}/{baseline[2:]}" if baseline else "refs/exps"
    lines = git("for-each-ref", "--sort=creatordate", "--format=%(refname) %(objectname)", below)
    found = re.findall(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(\S+) (\S+)$", lines, re.M)
    return [Experiment(name, revision, start + rest) for start, rest, name, revision in found]


def resolve(name: str) -> str:
    """Full hash of the commit of an experiment, or of what else git knows by that name.

    Raises:
        ValueError: there is nothing of that name, or experiments of several commits have it.
    """
    named = [experiment for experiment in experiments() if experiment.name == name]
    here = head()
    if chosen := [e for e in named if e.baseline == here] or named:
        if len(chosen) > 1:
            revisions = ", ".join(experiment.revision[:7] for experiment in chosen)
            raise ValueError(f"{name} names several experiments: say which, {revisions}")
        return chosen[0].revision
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except ValueError:
        raise ValueError(
            f"there is no experiment, branch, tag or commit named {name!r}; `dvc exp list` names the "
            "experiments of this commit, `dvc exp list --all-commits` those of all"
        ) from None


def params_of(revision: str) -> Params | None:
    """Parameters of a commit; None where it has none that this version of the project understands."""
    try:
        values = yaml.safe_load(git("show", f"{revision}:params.yaml"))
        return parse_params(values) if isinstance(values, dict) else None
    except (ValueError, yaml.YAMLError):
        return None


def inputs_of(params: Params) -> list[str]:
    """Paths in git of code and data: parameters apart, all that an experiment follows from."""
    data = [Path(path) for path in (params.prepare.source, params.embed.pretrained)]
    within = [path.as_posix() for path in data if not path.is_absolute() and ".." not in path.parts]
    return ["dvc.yaml", "src", *within, *(f"{path}.dvc" for path in within)]


def scores_of(revision: str) -> dict[str, dict[str, float]] | None:
    """metrics/evaluate.json of a commit: the measures of each network; None where it has none."""
    try:
        scores: dict[str, Any] = json.loads(git("show", f"{revision}:{METRICS}/evaluate.json"))
    except ValueError:
        return None
    return scores if isinstance(scores, dict) and set(NETWORKS) <= set(scores) else None


def table(rows: list[dict[str, str]], form: str = "simple") -> str:
    """Rows as a table for the terminal ("simple") or in Markdown ("github")."""
    return str(tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True))
