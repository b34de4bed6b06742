"""Python, its packages, git, the project's folder and parameters, and files left by killed runs."""

from __future__ import annotations

import json
import locale
import platform
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

from titles.data.scratch import leftovers as unfinished
from titles.doctor.findings import MOST_NAMES, Finding, listed, ok, problem, warning
from titles.doctor.probes import run
from titles.experiments.paths import unfit

_LOCKS = ("requirements.lock", "requirements-torch.txt")

# Files that killed commands leave behind: patterns, description, and what to do before removing them.
_LEFTOVERS = (
    (
        (".*.old.partial", "*/.*.old.partial", "data/*/.*.old.partial"),
        "old contents of outputs whose replacement was cut",
        "look at them; then ",
    ),
    (("data/*/*.part",), "interrupted downloads", "`titles download` again resumes them; or "),
    (("models/*.last_good",), "best epochs of trainings that diverged", "look at them; then "),
    ((".dvc/tmp/exps/tmp*",), "folders of temporary runs", "if no experiment is running: "),
)


def python(root: Path | None) -> Iterator[Finding]:
    """Whether the project supports this version of Python."""
    from packaging.specifiers import SpecifierSet

    expected, _ = _declared(root)
    here = platform.python_version()
    if SpecifierSet(expected).contains(here, prereleases=True):
        yield ok("python", f"{here}, in {sys.prefix}")
    else:
        do = "`make clean`, then `make install PYTHON=/path/to/python3` with a supported version"
        yield problem("python", f"{here}, expected {expected}", do)


def packages(root: Path | None) -> Iterator[Finding]:
    """Whether all packages are installed, in supported and in locked versions."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    needed = [r for r in map(Requirement, _declared(root)[1]) if not r.marker or r.marker.evaluate()]
    found = [(r, version(r.name)) for r in needed]
    missing = [r.name for r, here in found if here is None]
    unfit = [
        f"{r.name} {here} (expected {r.specifier})"
        for r, here in found
        if here and not r.specifier.contains(here, prereleases=True)
    ]
    for text, names in (("not installed", missing), ("unsupported versions", unfit)):
        if names:
            yield problem("packages", f"{text}: {listed(names)}", "`make install`")
    if not needed:
        yield warning("packages", "the package titles is not installed", "`make install`")
    elif not missing + unfit:
        yield ok("packages", f"all {len(needed)} direct dependencies are installed")
    if not root or not (locked := _locked(root)):
        return
    differing = [
        f"{name} {here or 'missing'} (locked {expected})"
        for name, expected in locked.items()
        # `public` drops what follows a +, which names a build such as torch's for CPUs.
        if not (here := version(name)) or Version(here).public != Version(expected).public
    ]
    if differing:
        text = f"{len(differing)} of {len(locked)} differ from requirements.lock: {listed(differing)}"
        yield warning("lock", text, "`make install`: different versions may give different results")
    else:
        yield ok("lock", f"all {len(locked)} packages are as in requirements.lock")


def _locked(root: Path) -> dict[str, str]:
    """The version of each package that the pipeline's lock has for this Python and system."""
    from packaging.requirements import Requirement

    lines = chain.from_iterable(
        (root / name).read_text(encoding="utf-8").splitlines()
        for name in _LOCKS
        if (root / name).is_file()
    )
    # A package is on a line of its own, which a backslash ends where hashes follow.
    named = (Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum())
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in named
        if not one.marker or one.marker.evaluate()
    }


def version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _declared(root: Path | None) -> tuple[str, list[str]]:
    """Python versions and requirements, from the folder's pyproject.toml or the installed package."""
    if root and (root / "pyproject.toml").is_file():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    if version("titles") is None:
        return "", []
    python = metadata.metadata("titles")["Requires-Python"] or ""
    return python, metadata.requires("titles") or []


def encoding(root: Path | None) -> Iterator[Finding]:
    """Whether Python reads and prints UTF-8."""
    used = {
        "file names": sys.getfilesystemencoding(),
        "text files": locale.getpreferredencoding(False),
        "output": getattr(sys.stdout, "encoding", None) or "utf-8",
    }
    wrong = [f"{what}: {name}" for what, name in used.items() if name.lower() not in ("utf-8", "utf8")]
    do = "`export PYTHONUTF8=1`, or a UTF-8 locale such as LC_ALL=C.UTF-8"
    found = f"not UTF-8: {', '.join(wrong)}"
    yield problem("encoding", found, do) if wrong else ok("encoding", "UTF-8")


def git(root: Path | None) -> Iterator[Finding]:
    """Whether git runs, the project is a repository with a commit, and git knows who commits."""
    installed = run(root, "git", "--version")
    if not installed.ok:
        yield problem("git", f"git cannot be run: {installed.reason}", "install git, or put it in PATH")
        return
    repository = run(root, "git", "rev-parse", "--show-toplevel")
    head = run(root, "git", "rev-parse", "--verify", "HEAD")
    if root and not repository.ok:
        do = "`git clone` the project: an archive lacks the history, which experiments need"
        yield problem("git", f"not a git repository: {repository.reason}", do)
    elif root and not head.ok:
        yield problem("git", "no commit, which experiments start from", "`git add . && git commit`")
    else:
        yield ok("git", installed.out.strip() + (f", at {head.out[:7]}" if root else ""))
    strict = ("git", "-c", "user.useConfigOnly=true", "var")
    if run(root, *strict, "GIT_AUTHOR_IDENT").ok and run(root, *strict, "GIT_COMMITTER_IDENT").ok:
        yield ok("identity", "git knows who commits")
    else:
        do = "`git config --global user.name NAME`, and user.email ADDRESS"
        yield warning("identity", "git does not know who you are: commits fail", do)


def location(root: Path | None) -> Iterator[Finding]:
    """Whether the current folder is the project's, and its code is the code that runs."""
    code = Path(__file__).resolve().parents[1]
    if root is None:
        found = f"{Path.cwd()} is outside of a project (no dvc.yaml and params.yaml): it was not checked"
        yield warning("project", found, "run `titles doctor` in the project's folder")
    elif root != Path.cwd():
        found = f"the project is in {root}, but commands look for it in the current folder"
        yield warning("project", found, f"`cd {shlex.quote(str(root))}`")
    elif code != (root / "src/titles").resolve():
        found = f"`titles` runs the code in {code}, stages run the code in {root}/src/titles"
        yield warning("project", found, "`make install`, then `source .venv/bin/activate`")
    else:
        yield ok("project", str(root))
    if root is None:
        return
    if reason := unfit(root):
        yield problem("path", *reason.rsplit(": ", 1))
    elif reason := unfit(root, temporary=True):
        yield warning("path", *reason.rsplit(": ", 1))


def params(root: Path) -> Iterator[Finding]:
    """Whether params.yaml is valid and asks for no more cores and GPUs than there are."""
    from joblib import cpu_count

    from titles.models.registry import NETWORKS, load_params

    try:
        known = load_params(root / "params.yaml")
        compute = known.compute
    except ValueError as error:
        yield problem("params", str(error), "correct params.yaml, or `git checkout params.yaml`")
        return
    yield ok("params", "params.yaml is valid")
    yield from _processor(compute.portable, [getattr(known, name).precision for name in NETWORKS])
    cores = cpu_count()
    if compute.threads > cores:
        found = f"compute.threads is {compute.threads}, more than the {cores} cores: threads will wait"
        do = f"`dvc exp run -S compute.threads={cores}`"
        yield warning("threads", found, do)
    else:
        yield ok("threads", f"{compute.threads} of {cores} cores")
    if compute.device == "cpu":
        return
    # In a process of its own, since a broken driver can block forever.
    code = "import torch; print(torch.cuda.is_available(), torch.version.cuda)"
    asked = run(root, sys.executable, "-c", code)
    gpu, _, build = asked.out.strip().partition(" ")
    if asked.ok and gpu == "True":
        yield ok("device", f"{compute.device}: torch has a GPU")
    elif compute.device == "cuda":
        reason = f"torch has no GPU (built for CUDA {build})" if build else f"torch: {asked.reason}"
        do = "install the GPU's driver and a torch for CUDA, or `dvc exp run -S compute.device=auto`"
        yield problem("device", f"compute.device is cuda, but {reason}", do)
    elif shutil.which("nvidia-smi"):
        found = f"an NVIDIA driver is installed, but torch has no GPU (built for CUDA {build})"
        yield warning("device", found, "install a torch for the CUDA version that nvidia-smi shows")
    else:
        yield ok("device", "auto: the CPU, since torch has no GPU")


def _processor(portable: bool, precisions: list[str]) -> Iterator[Finding]:
    """Whether runs here give the bytes of other processors, and are as fast as their precision says."""
    from titles.data import processor

    here = processor.machine(portable)
    if portable and processor.conflicts():
        do = "undo it, or set compute.portable to false: stages refuse to run"
        yield problem("processor", "; ".join(processor.conflicts()), do)
    elif here == processor.PORTABLE_CLASS:
        yield ok("processor", f"runs give the same bytes on every {here}")
    elif portable:
        found = f"bytes are the same on every {processor.PORTABLE_CLASS}, which this is not: {here}"
        yield warning("processor", found, "compare metrics with runs of other machines, not hashes")
    else:
        yield ok("processor", f"compute.portable is false: bytes are those of {here}")
    if "bfloat16" in precisions and (where := processor.emulates_bfloat16(portable)):
        found = f"products in bfloat16 are emulated {where}: about ten times as slow as float32"
        yield warning(
            "precision", found, "precision: float32, or compute.portable: false and a newer processor"
        )


def file_names(root: Path) -> Iterator[Finding]:
    """Report a file system that ignores case."""
    if (root / "DVC.YAML").exists() and (root / "DVC.YAML").samefile(root / "dvc.yaml"):
        yield ok("file names", "upper and lower case are the same here: names must differ in more")


def leftovers(root: Path) -> Iterator[Finding]:
    """Files of killed commands, and a damaged lock of DVC, which DVC does not remove itself."""
    import psutil

    lock = root / ".dvc/tmp/rwlock"
    try:
        held = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {}
        holders = chain(held.get("write", {}).values(), *held.get("read", {}).values())
        running = sorted({holder["pid"] for holder in holders if psutil.pid_exists(holder["pid"])})
    except (ValueError, AttributeError, TypeError, KeyError):
        do = f"if no DVC command is running: `rm {lock.relative_to(root)}`"
        yield problem("leftovers", f"{lock} is damaged: DVC refuses to run", do)
        running = []
    if running:
        pids = ", ".join(map(str, running))
        yield ok("leftovers", f"not checked: DVC is running (process {pids})")
        return
    folders = [root, *root.glob("*/"), *root.glob("data/*/"), *root.glob(".titles/*/")]
    half_written = {place for folder in folders for place in unfinished(folder)}
    found = [(half_written, "half-written files", "")]
    for patterns, what, before in _LEFTOVERS:
        found.append(({file for pattern in patterns for file in root.glob(pattern)}, what, before))
    for files, what, before in found:
        if files:
            paths = sorted(file.relative_to(root) for file in files)
            names = shlex.join(map(str, paths[:MOST_NAMES]))
            yield warning("leftovers", f"{what}: {listed(paths)}", f"{before}`rm -r {names}`")
    if not any(files for files, _, _ in found):
        yield ok("leftovers", "none")
