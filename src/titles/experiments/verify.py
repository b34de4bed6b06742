"""Runs an experiment again in a temporary folder, and compares its outputs with its dvc.lock."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from titles.data.contract import METRICS
from titles.data.interrupts import undisturbed
from titles.experiments.clones import CLONE, cloned
from titles.experiments.commands import dvc, end, environment, git, project
from titles.experiments.store import Revision, Stages, find, stages_of
from titles.models.parts.inference import machine
from titles.models.registry import NETWORKS
from titles.params import Compute


class Output(NamedTuple):
    """An output of a stage. expected, got: its hash in the lock of the experiment, and now."""

    stage: str
    path: str
    expected: str
    got: str

    @property
    def same(self) -> bool:
        return self.expected == self.got


class Verification(NamedTuple):
    """The result of a second run. stale: code and parameters that differ from those in the lock."""

    revision: Revision
    outputs: list[Output]
    stale: list[str]

    @property
    def different(self) -> list[Output]:
        return [output for output in self.outputs if not output.same]


def verify(name: str, stages: Sequence[str] = (), keep: bool = False) -> Verification:
    """Run stages of an experiment again and compare the hashes of all their outputs.

    The run takes place in a temporary clone, with the code of the experiment. It reads the project's
    cache and adds only inputs that had to be fetched. The run cache is not used.

    Args:
        name: of an experiment, or a revision of git.
        stages: those to run, with inputs as the experiment had them; () runs all.
        keep: do not remove the folder of the run.

    Raises:
        ValueError: there is no such experiment or stage, an input cannot be had, or a stage failed.
    """
    revision = find(name)
    if not revision.commit:
        raise ValueError("the workspace cannot be verified: commit it, or `dvc exp save`")
    before = revision.stages
    if unknown := [stage for stage in stages if stage not in before]:
        raise ValueError(f"{name} has no stage {', '.join(unknown)}; it has {', '.join(before)}")
    chosen = [stage for stage in before if stage in (stages or before)]
    refuse_other_machine(revision, chosen)
    with _workspace(revision.commit, keep) as folder:
        # `dvc exp save` puts plots into git that DVC then refuses to make.
        made = [path for stage in chosen for path in _hashes(before[stage], "outs")]
        git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *made, folder=folder)
        _fetch_inputs(folder, before, chosen, made)
        # Without --single-item, DVC also runs the stages before a named one.
        some = ["--single-item", *chosen] if stages else []
        _repro([*some, "--force", "--no-run-cache", "--no-commit"], folder)
        after = stages_of((folder / "dvc.lock").read_bytes(), "dvc.lock")
    return Verification(revision, compare(before, after, chosen), stale(before, after, chosen))


def refuse_other_machine(revision: Revision, stages: Sequence[str]) -> None:
    """Bytes compare only within a class of machines: others would be found different for nothing."""
    if stages == ["prepare"]:  # it computes with whole numbers
        return
    values = revision.params
    device, portable = (values.get(f"compute.{name}") for name in ("device", "portable"))
    here = machine(Compute(device=device or "auto", threads=1, portable=bool(portable)))
    for network in NETWORKS:
        try:
            used = revision.json(METRICS / f"{network}.json").get("used")
        except (ValueError, OSError):
            continue  # the stages say what is missing
        there = used.get("machine") if isinstance(used, dict) else None  # older runs did not note it
        if there and there != here:
            raise ValueError(
                f"{revision.name} was run on {there}, and this machine is {here}: bytes compare only "
                "within a class of machines. Verify it on one of that class, or compare metrics with "
                "`titles report`; `titles verify --stage prepare` works everywhere"
            )


def compare(before: Stages, after: Stages, stages: Sequence[str]) -> list[Output]:
    """The outputs of stages in two locks; the hash of an output that one of them lacks is "missing"."""
    found = []
    for stage in stages:
        old, new = (_hashes(lock.get(stage, {}), "outs") for lock in (before, after))
        found += [
            Output(stage, path, old.get(path, "missing"), new.get(path, "missing"))
            for path in {**old, **new}
        ]
    return found


def stale(before: Stages, after: Stages, stages: Sequence[str]) -> list[str]:
    """Code, parameters and commands that differ between two locks of the same commit."""
    made = {path for stage in before.values() for path in _hashes(stage, "outs")}
    found: dict[str, None] = {}
    for stage in stages:
        old, new = before.get(stage, {}), after.get(stage, {})
        one, other = _hashes(old, "deps"), _hashes(new, "deps")
        found |= {p: None for p in other if p not in made and one.get(p) != other[p]}
        for key, what in (("params", "parameters"), ("cmd", "command")):
            if old.get(key) != new.get(key):
                found[f"{what} of {stage}"] = None
    return list(found)


def _hashes(stage: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {item["path"]: str(item.get("md5", "none")) for item in stage.get(kind, [])}


@contextmanager
def _workspace(commit: str, keep: bool) -> Iterator[Path]:
    """A clone at a commit that shares the project's cache; removed at the end, unless `keep`."""
    here = project()
    folder = Path(tempfile.mkdtemp(prefix="titles-verify-"))
    try:
        yield cloned(here, commit, folder)
    finally:
        if keep:
            print(f"kept in {folder / CLONE}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch_inputs(folder: Path, lock: Stages, stages: Sequence[str], made: Sequence[str]) -> None:
    """Bring the inputs that none of the stages makes, from the project's cache or a remote."""
    read = dict.fromkeys(path for stage in stages for path in _hashes(lock[stage], "deps"))
    wanted = [
        path
        for path in read
        if not (folder / path).exists() and not any(Path(path).is_relative_to(out) for out in made)
    ]
    if wanted:
        dvc("pull", "--quiet", *wanted, folder=folder)


def _repro(options: Sequence[str], folder: Path) -> None:
    """Run `dvc repro` with its output passing through; an interrupt reaches it and waits for its end."""
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", *options],
                cwd=folder,
                # Its MLflow runs go with the folder, not to the server of the project's runs.
                env={k: v for k, v in environment().items() if k != "MLFLOW_TRACKING_URI"},
                start_new_session=True,  # so that it and its stages are signalled once, and together
            )
        code = process.wait()
    except BaseException:
        if process:
            end(process)
        raise
    if code:
        raise ValueError(f"dvc repro failed with exit code {code}: its output is above")


def shown(found: Verification) -> str:
    """All outputs as a table."""
    rows = [
        (o.stage, o.path, _short(o.expected), _short(o.got), "same" if o.same else "DIFFERENT")
        for o in found.outputs
    ]
    headers = ["stage", "output", "expected", "got", ""]
    return str(tabulate(rows, headers, "simple", disable_numparse=True))


def _short(digest: str) -> str:
    return digest if digest in ("missing", "none") else digest[:7]


def _cause(params: Mapping[str, Any]) -> str:
    if params.get("compute.portable"):
        return "Another version of torch, numpy or gensim"
    threads = params.get("compute.threads", "unknown")
    return (
        "Another processor, a GPU, another version of torch or another number of threads "
        f"(compute.threads: {threads})"
    )


def verdict(found: Verification) -> str:
    """The number of differences, and possible causes."""
    told = (
        f"{len(found.different)} of {len(found.outputs)} outputs of {found.revision.commit[:7]} differ "
        "from its dvc.lock"
    )
    if found.stale:
        return (
            f"{told}, which was written with other {', '.join(found.stale)} than are committed: "
            "`dvc repro` and commit both together"
        )
    try:
        params = found.revision.params
    except ValueError:
        params = {}
    if params.get("embed.method") != "pretrained" and params.get("embed.workers", 1) != 1:
        return (
            f"{told}: embed.workers is {params.get('embed.workers')}, and only 1 gives the same vectors "
            "twice"
        )
    return (
        f"{told}, though code, data and parameters are the same. {_cause(params)} rounds differently: "
        "then networks differ slightly and metrics hardly"
    )
