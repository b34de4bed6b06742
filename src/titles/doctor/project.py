"""The project's folder, its parameters, what killed runs left in it, and git."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from titles.doctor import asking, words
from titles.doctor.finding import OK, PROBLEM, WARNING, Finding


def place(root: Path | None, folder: Path) -> Iterator[Finding]:
    """Whether this is the project's folder, and the package is that of the folder."""
    if root is None:
        told = f"{folder} is outside of a project (no dvc.yaml and params.yaml): it was not looked at"
        yield Finding("project", WARNING, told, "run `titles doctor` in the project's folder")
        return
    code = Path(__file__).resolve().parents[1]
    if root != folder:
        told = f"the project is in {root}, and commands look for it here"
        yield Finding("project", WARNING, told, f"`cd {shlex.quote(str(root))}`")
    elif code != (root / "src/titles").resolve():
        told = f"`titles` runs the code in {code}, stages that in {root}/src/titles"
        yield Finding("project", WARNING, told, "`make install`, then `source .venv/bin/activate`")
    else:
        yield Finding("project", OK, str(root))


def params(root: Path) -> Iterator[Finding]:
    """Whether params.yaml holds, and a GPU is there if it asks for one."""
    from joblib import cpu_count

    from titles.models.registry import load_params

    try:
        compute = load_params(root / "params.yaml").compute
    except ValueError as error:
        yield Finding(
            "params", PROBLEM, str(error), "correct params.yaml, or `git checkout params.yaml`"
        )
        return
    yield Finding("params", OK, "params.yaml is valid")
    cores = cpu_count()
    if compute.threads > cores:
        told = (
            f"compute.threads is {compute.threads}, and there are {cores} cores: they wait for another"
        )
        do = f"`dvc exp run -S compute.threads={cores}`; weights then differ in their last digits"
        yield Finding("threads", WARNING, told, do)
    else:
        yield Finding("threads", OK, f"{compute.threads} of {cores} cores")
    if compute.device == "cpu":
        return
    # Apart, since a broken driver can block for ever.
    code = "import torch; print(torch.cuda.is_available(), torch.version.cuda)"
    asked = asking.run([sys.executable, "-c", code], root, asking.PATIENCE)
    gpu, _, build = asked.out.strip().partition(" ")
    if asked.code == 0 and gpu == "True":
        yield Finding("device", OK, f"{compute.device}: torch has a GPU")
    elif compute.device == "cuda":
        why = f"torch has no GPU (built for CUDA {build})" if build else f"torch: {asked.reason}"
        do = "install the GPU's driver and a torch for CUDA, or `dvc exp run -S compute.device=auto`"
        yield Finding("device", PROBLEM, f"compute.device is cuda, and {why}", do)
    elif shutil.which("nvidia-smi"):
        told = f"there is an NVIDIA driver, but torch has no GPU (built for CUDA {build})"
        yield Finding("device", WARNING, told, "install a torch for that driver's CUDA; see nvidia-smi")
    else:
        yield Finding("device", OK, "auto: the CPU, since torch has no GPU")


def file_names(root: Path) -> Iterator[Finding]:
    """Whether the disk tells names apart that differ in their case alone."""
    if (root / "DVC.YAML").exists() and (root / "DVC.YAML").samefile(root / "dvc.yaml"):
        do = "do not use names that differ in their case alone"
        yield Finding("file names", OK, "upper and lower case are the same here", do)


def leftovers(root: Path) -> Iterator[Finding]:
    """What killed commands leave behind; of DVC's locks only what it does not clear away itself."""
    lock = root / ".dvc/tmp/rwlock"
    running = set()
    try:
        noted = json.loads(lock.read_text(encoding="utf-8"))
        readers = chain.from_iterable(noted.get("read", {}).values())
        holders = [*noted.get("write", {}).values(), *readers]
        running = {holder["pid"] for holder in holders if _alive(holder["pid"])}
    except FileNotFoundError:
        pass
    except (ValueError, AttributeError, TypeError, KeyError):
        do = f"if no DVC command is running: `rm {shlex.quote(str(lock.relative_to(root)))}`"
        yield Finding("leftovers", PROBLEM, f"{lock} is damaged, so that DVC refuses to run", do)
    if running:
        pids = ", ".join(map(str, sorted(running)))
        yield Finding("leftovers", OK, f"not looked for: DVC is running (process {pids})")
        return
    clean = True
    for patterns, what, otherwise in (
        (("*.partial", "*/*.partial", "data/*/*.partial"), "half-written", ""),
        (("data/*/*.part",), "cut downloads", "the same `titles download` goes on with them; or "),
        (("models/*.last_good",), "the best epoch of trainings that broke", "look at them; then "),
        ((".dvc/tmp/exps/tmp*",), "folders of temporary runs", "if no experiment is running: "),
    ):
        found = sorted({path.relative_to(root) for pattern in patterns for path in root.glob(pattern)})
        if found:
            clean = False
            command = f"rm -r {' '.join(shlex.quote(str(path)) for path in found[: words.NAMED])}"
            told = f"{what}: {words.some(list(map(str, found)))}"
            yield Finding("leftovers", WARNING, told, f"{otherwise}`{command}`")
    if clean:
        yield Finding("leftovers", OK, "none of killed runs")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 asks and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def git(folder: Path, project: bool) -> Iterator[Finding]:
    """Whether git is there and knows the folder."""
    version = asking.run(["git", "--version"], folder, asking.GIT_PATIENCE)
    if version.code != 0:
        do = "install git (on Debian: apt-get install git), or put it in PATH"
        yield Finding("git", PROBLEM, f"git cannot be run: {version.reason}", do)
        return
    if project:
        inside = asking.run(["git", "rev-parse", "--show-toplevel"], folder, asking.GIT_PATIENCE)
        head = asking.run(["git", "rev-parse", "--verify", "HEAD"], folder, asking.GIT_PATIENCE)
        if inside.code != 0:
            do = "`git clone` the project; an archive of it has no history, which experiments need"
            yield Finding("git", PROBLEM, f"no git repository: {inside.reason}", do)
        elif head.code != 0:
            do = "`git add . && git commit`: experiments start from a commit"
            yield Finding("git", PROBLEM, "the repository has no commit", do)
        else:
            yield Finding("git", OK, f"{version.out.strip()}, at {head.out[:7]}")
    else:
        yield Finding("git", OK, version.out.strip())
    strict = ["git", "-c", "user.useConfigOnly=true", "var"]
    for who in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        if asking.run([*strict, who], folder, asking.GIT_PATIENCE).code != 0:
            do = "`git config --global user.name NAME`, and user.email ADDRESS"
            yield Finding("identity", WARNING, "git does not know who you are: commits fail", do)
            return
    yield Finding("identity", OK, "git knows who commits")
