"""Experiments, commits and the workspace: how to find them, and how to read their files.

DVC stores an experiment as a commit under refs/exps/, below the commit that it started from, its
baseline. Files are read from git where git has them: this needs no lock, and works while experiments
run. Other files come from DVC's cache or remote. Nothing is checked out.
"""

from __future__ import annotations

import glob
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from titles.data.contract import METRICS, PLOTS
from titles.data.documents import parse_json, parse_yaml
from titles.experiments.commands import cut_off, git, project, top
from titles.experiments.measures import excerpt, measures
from titles.experiments.older import BY_WORDS, upgraded
from titles.params import Concerns, Params, Text
from titles.tracking.provenance import flat

WORKSPACE = "workspace"
DETAILS = METRICS / "details.json"
OLDER_DETAILS = METRICS / "evaluate.json"  # before there were two files
_SHORT = 7
SPLIT_SEED = "prepare.split_seed"
# Parameters that decide to which split a title belongs.
SPLITTING = tuple(
    f"prepare.{name}"
    for name in (
        "source",
        "language",
        "max_title_chars",
        "min_rows",
        "validation_fraction",
        "test_fraction",
        "holdout_quality",
        "split_seed",
    )
)
_SPLIT = re.compile("^(train|validation)_")  # before the measure, in the columns of a curve
_OLDER_CURVES = ("train/loss", "validation/loss", "validation/accuracy", "validation/balanced_accuracy")

Curve = list[tuple[int, float]]  # epoch and value
Scores = dict[str, dict[str, float]]  # measures by model
Stages = dict[str, dict[str, Any]]  # of a dvc.lock


@dataclass(frozen=True)
class Revision:
    """A state of the project.

    name: of the experiment, or the commit's short hash, or "workspace". commit: its hash, empty for the
        workspace. baseline: the commit that an experiment started from, else empty. time: of the commit,
        seconds.
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

    def read(self, path: Path) -> bytes:
        """The content of a file.

        Raises:
            ValueError: this state has no such file, or neither DVC's cache nor a remote has it.
        """
        if self.commit:
            try:
                return git("show", f"{self.commit}:./{path.as_posix()}", folder=project()).encode()
            except ValueError:  # not in git, or not text
                pass
        with self._reachable(path):
            content: bytes = self._files.read_bytes(self._place(path))
            return content

    def fetch(self, path: Path, into: Path) -> None:
        """Copy a folder of this state.

        Raises:
            ValueError: as `read`.
        """
        with self._reachable(path):
            self._files.get(self._place(path), str(into), recursive=True)

    @cached_property
    def _files(self) -> Any:
        from dvc.api import DVCFileSystem  # slow to import

        # With subrepos: of a commit, DVC looks at the whole git repository, where the project may be a
        # folder.
        return DVCFileSystem(rev=self.commit or None, subrepos=bool(self.commit))

    def _place(self, path: Path) -> str:
        """The path of a file of the project in `_files`."""
        here = project()
        root = top() if self.commit else Path(self._files.repo.root_dir)
        return f"/{(here.relative_to(root) / path).as_posix()}"

    @contextmanager
    def _reachable(self, path: Path) -> Iterator[None]:
        from dvc.exceptions import DvcException
        from dvc_data.index import DataIndexError

        try:
            yield
            return
        except (FileNotFoundError, DataIndexError) as error:
            # DataIndexError: the list of a folder's files is missing.
            if isinstance(error, FileNotFoundError) and not self._was_made(path):
                raise ValueError(
                    f"{self.name} has no {path}: it was not run to its end, or by an older version; "
                    "`dvc exp run` makes it"
                ) from None
        except (DvcException, OSError) as error:
            raise ValueError(f"{path} of {self.name} cannot be read: {error}") from None
        raise ValueError(
            f"{path} of {self.name} is neither in DVC's cache nor in a remote: get an experiment's with "
            f"`dvc exp pull origin {self.name}`, the current commit's with `dvc pull`, others' with "
            "`dvc fetch --all-commits`"
        )

    def _was_made(self, path: Path) -> bool:
        """Whether dvc.lock holds the hash of a file; a file that only dvc.yaml declares has none."""
        try:
            return "md5" in self._files.info(self._place(path))
        except FileNotFoundError:
            return False

    def json(self, path: Path) -> dict[str, Any]:
        """The content of a JSON file; raises ValueError if it is missing or damaged."""
        content = self.read(path)
        try:
            values: dict[str, Any] = parse_json(content)
        except ValueError as error:
            raise ValueError(f"{path} of {self.name} is damaged: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} of {self.name} is damaged: it has no sections")
        return values

    @cached_property
    def scores(self) -> Scores:
        """The measures of each model on the test split; raises ValueError if there are none."""
        try:
            found = self.json(DETAILS)
        except ValueError:
            try:
                found = older_details(self.json(OLDER_DETAILS))
            except ValueError:
                found = {}
            if not found:
                raise
        scores = found.get("models", {})
        if not scores:
            raise ValueError(f"{DETAILS} of {self.name} has no scores")
        if not isinstance(scores, dict):
            raise ValueError(f"{DETAILS} of {self.name} is damaged: models is {excerpt(scores)}")
        return {
            model: measures(values, f"{DETAILS} of {self.name}, {model}")
            for model, values in scores.items()
        }

    @cached_property
    def params(self) -> dict[str, Any]:
        """The values of params.yaml under dotted names, in the form of this version: `older.upgraded`.

        Raises:
            ValueError: the file is missing or damaged.
        """
        content = self.read(Path("params.yaml"))
        try:
            return upgraded(flat(parse_yaml(content)))
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"params.yaml of {self.name} is damaged") from None

    @property
    def inputs(self) -> list[str]:
        """Paths in git of code and data: besides parameters, all that the results depend on."""
        given = [self.params.get(name) for name in ("prepare.source", "embed.pretrained")]
        data = [Path(str(path)) for path in given if path]
        within = [path.as_posix() for path in data if not path.is_absolute() and ".." not in path.parts]
        return ["dvc.yaml", "src", *within, *(f"{path}.dvc" for path in within)]

    @cached_property
    def stages(self) -> Stages:
        """The stages of dvc.lock; raises ValueError if it is missing or damaged."""
        return stages_of(self.read(Path("dvc.lock")), f"dvc.lock of {self.name}")

    def curves(self, network: str) -> dict[str, Curve]:
        """The learning curves of a network, by metric, such as validation/loss; finite values only.

        Raises:
            ValueError: they are missing or damaged.
        """
        path = PLOTS / f"{network}.json"
        found: dict[str, Curve] = {}
        try:
            content = self.read(path)
        except ValueError:
            if older := self._older_curves(network):
                return older
            raise
        try:
            for record in parse_json(content):
                epoch = int(record.pop("epoch"))
                for name, value in record.items():
                    curve = found.setdefault(_SPLIT.sub(r"\1/", name), [])
                    curve += [(epoch, value)] if math.isfinite(value) else []
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(f"{path} of {self.name} is damaged: not records of epochs") from None
        return found

    def _older_curves(self, network: str) -> dict[str, Curve]:
        """The curves of a version that wrote a table of steps and values for each; {} if it did not."""
        found: dict[str, Curve] = {}
        for name in _OLDER_CURVES:
            try:
                lines = self.read(PLOTS / network / f"plots/metrics/{name}.tsv").decode().split("\n")[1:]
                points = [line.split("\t") for line in lines if line]
                curve = [(int(epoch), float(value)) for epoch, value in points]
            except ValueError:
                continue
            found[name] = [(epoch, value) for epoch, value in curve if math.isfinite(value)]
        return found


def canonical(value: Any) -> Any:
    """A parameter in the form to compare: YAML 1.1 reads 1e-3 as text, and 0 and 0.0 are equal."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def decides_split(name: str, split_seed: Any) -> bool:
    """Whether a parameter decides to which split a title belongs, given the value of SPLIT_SEED."""
    section, _, key = name.partition(".")
    by_words = str(split_seed).endswith(BY_WORDS)
    return name in SPLITTING or (by_words and section == "prepare" and key in Text.model_fields)


def older_details(values: dict[str, Any]) -> dict[str, Any]:
    """What an older metrics/evaluate.json says in the form of metrics/details.json; {} if nothing."""
    sections = {name: section for name, section in values.items() if isinstance(section, dict)}
    models = {name: found for name, found in sections.items() if "balanced_accuracy" in found}
    pairs = {
        name.replace("_less_", "_minus_"): found
        for name, found in sections.items()
        if "difference" in found
    }
    return {"models": models, "pairs": pairs} if models else {}


def unknown(params: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each revision of `lacking`."""
    return [
        f"{revision} has no {', '.join(names)}: its version did not know them"
        for revision, names in lacking(params).items()
    ]


def lacking(params: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The parameters or sections that another revision has and that can change results, of each revision
    that lacks some.

    Args:
        params: those of each revision, by its name.
    """
    names = dict.fromkeys(name for values in params.values() for name in values)
    names = {name: None for name in names if not _without_results(name)}
    found = {}
    for revision, values in params.items():
        left = [name for name in names if name not in values]
        sections = {name.partition(".")[0] for name in values}
        told = dict.fromkeys(n if n.partition(".")[0] in sections else n.partition(".")[0] for n in left)
        if told:
            found[revision] = list(told)
    return found


def _without_results(name: str) -> bool:
    """Whether a parameter concerns only speed or messages."""
    section, _, key = name.partition(".")
    field = Params.model_fields.get(section)
    about = getattr(field and field.annotation, "model_fields", {}).get(key)
    return any(isinstance(mark, Concerns) for mark in (about.metadata if about else ()))


def differing(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What differs between mappings: by name, the value in each; None where there is none."""
    names = dict.fromkeys(name for values in found for name in values)
    rows = {name: [values.get(name) for values in found] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def stages_of(lock: bytes, name: str) -> Stages:
    """The stages of a dvc.lock; `name` opens the error message.

    Raises:
        ValueError: it is not a lock file of DVC.
    """
    try:
        stages: Stages = parse_yaml(lock)["stages"]
        known = all(isinstance(stage, dict) for stage in stages.values())
    except (AttributeError, LookupError, TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{name} is not a lock file of DVC: run `dvc repro` and commit it")
    return stages


def head() -> str:
    """Full hash of the commit that is checked out."""
    return git("rev-parse", "--verify", "HEAD^{commit}").strip()


def experiments(baseline: str | None = None) -> list[Revision]:
    """Finished experiments, oldest first: those of a commit, or all."""
    below = f"refs/exps/{baseline[:2]}/{baseline[2:]}" if baseline else "refs/exps"
    form = "--format=%(refname) %(objectname) %(committerdate:unix)"
    pattern = r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(\S+) (\S+) (\d+)$"
    found = re.findall(pattern, git("for-each-ref", form, below), re.M)
    made = [Revision(name, commit, a + b, float(when)) for a, b, name, commit, when in found]
    return sorted(made, key=_age)


def revisions() -> list[Revision]:
    """All experiments, the commits they started from, HEAD and the workspace, oldest first."""
    named = experiments()
    commits = {head(), *(found.baseline for found in named)} - {found.commit for found in named}
    found = [*named, *map(_commit, sorted(commits))]
    return [*sorted(found, key=_age), find(WORKSPACE)]


def find(name: str) -> Revision:
    """An experiment, commit, branch or tag by its name, or the workspace.

    Raises:
        ValueError: there is none of that name, or experiments of several commits have it.
    """
    if name == WORKSPACE:
        return Revision(WORKSPACE, "", "", time.time())
    known, here = experiments(), head()
    named = [experiment for experiment in known if experiment.name == name]
    if chosen := [found for found in named if found.baseline == here] or named:
        if len(chosen) > 1:
            commits = ", ".join(found.commit[:_SHORT] for found in chosen)
            raise ValueError(f"several experiments are named {name}: give the commit of one, {commits}")
        return chosen[0]
    try:
        options = ("--verify", "--quiet", "--end-of-options")
        commit = git("rev-parse", *options, f"{name}^{{commit}}").strip()
    except ValueError:
        raise ValueError(
            f"there is no experiment, branch, tag or commit named {name!r}: `dvc exp list "
            f"--all-commits` lists the experiments, `dvc exp pull origin {name}` fetches one"
            + _elsewhere(name)
        ) from None
    return next((found for found in known if found.commit == commit), None) or _commit(commit)


def _elsewhere(name: str) -> str:
    """Where a name may be that this clone does not have, for a message: those of CI have one branch and
    few commits."""
    pattern = f"refs/remotes/*/{glob.escape(name)}"
    form = "--format=%(refname:lstrip=2)"
    there = git("for-each-ref", form, pattern).split() if name.strip("-/") else []
    return (f"; there is a branch {there[0]}" if there else "") + cut_off()


def _age(revision: Revision) -> tuple[float, str]:
    return revision.time, revision.name


def _commit(commit: str) -> Revision:
    made = git("show", "--no-patch", "--no-show-signature", "--format=%ct", commit)
    return Revision(commit[:_SHORT], commit, "", float(made))
