"""Runs an experiment again, apart from the project, and compares what comes out with its dvc.lock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from titles.experiments.revisions import dvc, environment, git, params_of, resolve, table

_PATIENCE = 15.0  # seconds that an interrupted stage has to clean up
Stages = dict[str, dict[str, Any]]


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
    """What came of a second run. stale: code and parameters other than the lock was written with."""

    revision: str
    outputs: list[Output]
    stale: list[str]

    @property
    def different(self) -> list[Output]:
        return [output for output in self.outputs if not output.same]


def verify(name: str, stages: Sequence[str] = (), keep: bool = False) -> Verification:
    """Run stages of an experiment again and compare the hashes of all that they make.

    The run takes place in a temporary clone, with the code of the experiment; it reads the project's
    cache and adds nothing to it but inputs that had to be fetched. The run cache is not used.

    Args:
        name: of an experiment, or a revision of git.
        stages: those to run, with inputs as the experiment had them; () runs all.
        keep: leave the folder of the run there.

    Raises:
        ValueError: there is no such experiment or stage, an input cannot be had, or a stage failed.
    """
    revision = resolve(name)
    before = _lock(git("show", f"{revision}:dvc.lock"), f"dvc.lock of {name}")
    if unknown := [stage for stage in stages if stage not in before]:
        raise ValueError(f"{name} has no stage {', '.join(unknown)}; it has {', '.join(before)}")
    chosen = [stage for stage in before if stage in stages] if stages else list(before)
    with _workspace(revision, keep) as folder:
        # `dvc exp save` puts plots into git that DVC then refuses to make.
        made = [path for stage in chosen for path in _hashes(before[stage], "outs")]
        git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *made, folder=folder)
        _fetch_inputs(folder, before, chosen)
        # Without --single-item, a stage that is named takes those before it along.
        some = ["--single-item", *chosen] if stages else []
        _watched(["repro", "--force", "--no-run-cache", "--no-commit", *some], folder)
        after = _lock((folder / "dvc.lock").read_text(encoding="utf-8"), "dvc.lock")
    return Verification(revision, compare(before, after, chosen), stale(before, after, chosen))


def compare(before: Stages, after: Stages, stages: Sequence[str]) -> list[Output]:
    """The outputs of stages in two locks; what one of them lacks has the hash "missing"."""
    found = []
    for stage in stages:
        old, new = (_hashes(lock.get(stage, {}), "outs") for lock in (before, after))
        for path in [*old, *(path for path in new if path not in old)]:
            found.append(Output(stage, path, old.get(path, "missing"), new.get(path, "missing")))
    return found


def stale(before: Stages, after: Stages, stages: Sequence[str]) -> list[str]:
    """Code and parameters in which two locks differ: the first was written with others."""
    made = {path for stage in before.values() for path in _hashes(stage, "outs")}
    found = []
    for stage in stages:
        old, new = before.get(stage, {}), after.get(stage, {})
        one, other = _hashes(old, "deps"), _hashes(new, "deps")
        found += [path for path in other if path not in made and one.get(path) != other[path]]
        if old.get("params") != new.get("params"):
            found.append(f"parameters of {stage}")
        if old.get("cmd") != new.get("cmd"):
            found.append(f"command of {stage}")
    return list(dict.fromkeys(found))


def _hashes(stage: dict[str, Any], kind: str) -> dict[str, str]:
    return {item["path"]: str(item.get("md5", "none")) for item in stage.get(kind, [])}


def _lock(text: str, name: str) -> Stages:
    try:
        stages: Stages = yaml.safe_load(text)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise ValueError(f"{name} is no lock file of DVC: run `dvc repro` and commit it") from None
    return stages


@contextmanager
def _workspace(revision: str, keep: bool) -> Iterator[Path]:
    """A clone of the commit that shares the project's cache; it goes when the block ends, however."""
    project = Path(git("rev-parse", "--show-toplevel").strip())
    folder = Path(tempfile.mkdtemp(prefix="titles-verify-"))
    clone = folder / "project"
    try:
        # --shared finds commits of experiments too, which no branch leads to.
        git("clone", "--quiet", "--shared", "--no-checkout", str(project), str(clone))
        git("checkout", "--quiet", "--detach", revision, folder=clone)
        settings = project / ".dvc/config.local"
        if settings.exists():  # remotes of one's own
            shutil.copy(settings, clone / ".dvc/config.local")
        cache = dvc("cache", "dir").strip()
        dvc("cache", "dir", "--local", cache, folder=clone)
        # DVC keeps notes on each project elsewhere: those of this one are to go with it.
        dvc("config", "--local", "core.site_cache_dir", str(folder / "site"), folder=clone)
        yield clone
    finally:
        if keep:
            print(f"kept in {clone}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch_inputs(folder: Path, lock: Stages, stages: Sequence[str]) -> None:
    """Bring what the stages read and none of them makes: from the project's cache, or a remote."""
    made = [path for stage in stages for path in _hashes(lock[stage], "outs")]
    read = [path for stage in stages for path in _hashes(lock[stage], "deps")]
    wanted = [
        path
        for path in dict.fromkeys(read)
        if not (folder / path).exists()
        and not any(path == out or path.startswith(f"{out}/") for out in made)
    ]
    if wanted:
        dvc("pull", "--quiet", *wanted, folder=folder)


def _watched(arguments: Sequence[str], folder: Path) -> None:
    """Run DVC with its output passing through; an interrupt reaches it and waits for its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        # Its MLflow runs go with the folder, and not to a server among those that count.
        env={k: v for k, v in environment().items() if k != "MLFLOW_TRACKING_URI"},
        start_new_session=True,  # so that it and its stages are signalled once, and together
    )
    try:
        code = process.wait()
    except BaseException:
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(_PATIENCE)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        raise
    if code:
        raise ValueError(f"dvc {arguments[0]} failed with exit code {code}: its output is above")


def shown(found: Verification) -> str:
    """All outputs as a table."""
    return table(
        [
            {
                "stage": output.stage,
                "output": output.path,
                "expected": _short(output.expected),
                "got": _short(output.got),
                "": "same" if output.same else "DIFFERENT",
            }
            for output in found.outputs
        ]
    )


def _short(digest: str) -> str:
    return digest if digest in ("missing", "none") else digest[:7]


def verdict(found: Verification) -> str:
    """How much differs, and what that can come from."""
    told = (
        f"{len(found.different)} of {len(found.outputs)} outputs of {found.revision[:7]} differ from "
        "its dvc.lock"
    )
    if found.stale:
        return (
            f"{told}, which was written with other {', '.join(found.stale)} than are committed: "
            "`dvc repro` and commit both together"
        )
    params = params_of(found.revision)
    if params and params.embed.method != "pretrained" and params.embed.workers > 1:
        return (
            f"{told}: embed.workers is {params.embed.workers}, and only 1 gives the same vectors twice"
        )
    return (
        f"{told}, though code, data and parameters are the same. Another processor or a GPU rounds "
        "otherwise, and so do another version of torch and other threads "
        f"(compute.threads: {params.compute.threads if params else 'unknown'}): then networks differ a "
        "little and metrics hardly"
    )
