"""What is wrong with the environment, and what to do about it.

Looks and changes nothing, but for what DVC and git note down when asked for a status: .dvc/tmp, and the
times of files in git's index. What can keep one waiting, which is networks and other programs, has
seconds, then counts as a finding. Only the standard library is imported at the top: the doctor is there
when packages are not. No credential is printed: addresses are cut to what is no secret.
"""

from __future__ import annotations

import importlib.util
import json
import locale
import os
import platform
import queue
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_ANSWER = 5.0  # seconds a server has to answer
_GIT = 10.0  # seconds
_PROGRAM = 60.0  # seconds; DVC and torch take some to start on a busy machine
_NAMED = 5  # names in a line, at the most
_LONGEST = 400  # characters of a line
_PORTS = {"http": 80, "webdav": 80, "https": 443, "webdavs": 443, "ssh": 22, "postgresql": 5432}
_PORTS |= {"mysql": 3306, "mssql": 1433}
# These share blocks between copies of a file.
_REFLINKS = {"apfs", "bcachefs", "btrfs", "ocfs2", "xfs"}

T = TypeVar("T")
Config = dict[str, str]


class Finding(NamedTuple):
    """One line of what was found, and one of what to do, "" where nothing is to be done.

    level: OK, WARNING (works, but not as it should) or PROBLEM (something does not work).
    """

    check: str
    level: str
    found: str
    do: str = ""


class _Ran(NamedTuple):
    """How a program ended; code is None where it did not in time."""

    code: int | None
    out: str
    err: str

    @property
    def reason(self) -> str:
        if self.code is None:
            return "it does not end in time"
        lines = self.err.strip().splitlines()
        for line in lines:
            if line.startswith(("ERROR: ", "fatal: ", "error: ")):
                return line.partition(": ")[2]
        return lines[-1] if lines else f"exit code {self.code}"


def examine(folder: Path) -> Iterator[Finding]:
    """Everything that can be looked at from `folder`, the project's or any other, as it is found."""
    root = next(
        (
            place
            for place in (folder, *folder.parents)
            if (place / "dvc.yaml").is_file() and (place / "params.yaml").is_file()
        ),
        None,
    )
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", lambda: _python(root)),
        ("packages", lambda: _packages(root)),
        ("encoding", _encoding),
        ("git", lambda: _git(root or folder, root is not None)),
        ("project", lambda: _project(root, folder)),
    ]
    if root:
        checks += [
            ("params", lambda: _params(root)),
            ("leftovers", lambda: _leftovers(root)),  # before DVC runs, which tidies up itself
            ("dvc", lambda: _dvc(root)),
            ("file names", lambda: _file_names(root)),
        ]
    checks.append(("mlflow", lambda: _mlflow(root)))
    for name, check in checks:
        try:
            for finding in check():
                yield finding._replace(found=_line(finding.found), do=_line(finding.do))
        except ImportError as error:
            told = f"cannot be checked: {error.name} is not installed"
            yield Finding(name, PROBLEM, told, "`make install`")
        except Exception as error:  # the others still have something to say
            yield Finding(name, PROBLEM, _line(f"cannot be checked: {type(error).__name__}: {error}"))


def show(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print findings, in colour on a terminal unless NO_COLOR is set; whether none is a problem."""
    counts = {OK: 0, WARNING: 0, PROBLEM: 0}
    told = []
    line = _printer()
    for finding in findings:
        counts[finding.level] += 1
        told.append(finding._asdict())
        if not as_json:
            line(finding)
    if as_json:
        print(json.dumps({"problems": counts[PROBLEM], "warnings": counts[WARNING], "checks": told}))
    else:
        print(f"problems: {counts[PROBLEM]}, warnings: {counts[WARNING]}")
    return not counts[PROBLEM]


def _printer() -> Callable[[Finding], None]:
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:  # the finding says so
        return lambda finding: print(*_lines(finding), sep="\n", flush=True)
    console = Console(highlight=False)
    colours = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}

    def line(finding: Finding) -> None:
        first, *rest = _lines(finding)
        text = Text(first)
        text.stylize(colours[finding.level], 0, len(finding.level))
        console.print(text, soft_wrap=True)
        for other in rest:
            console.print(Text(other, "bold" if finding.level == PROBLEM else ""), soft_wrap=True)

    return line


def _lines(finding: Finding) -> list[str]:
    lines = [f"{finding.level:8} {finding.check:13} {finding.found}"]
    return [*lines, *[f"{'':22} -> {finding.do}"] * bool(finding.do)]


# Python and its packages


def _declared(root: Path | None) -> tuple[str, list[str]]:
    """Versions of Python and requirements: those of the folder's pyproject.toml, or as installed."""
    if root and (root / "pyproject.toml").is_file():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    try:
        installed = metadata.metadata("titles")
    except metadata.PackageNotFoundError:
        return "", []
    every = metadata.requires("titles") or []
    return installed["Requires-Python"] or "", [text for text in every if "extra ==" not in text]


def _python(root: Path | None) -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    wanted, _ = _declared(root)
    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Finding("python", OK, f"{here}, in {sys.prefix}")
    else:
        do = "`make clean`, then `make install PYTHON=/path/to/python3` with one of those"
        yield Finding("python", PROBLEM, f"{here}, expected {wanted}", do)


def _packages(root: Path | None) -> Iterator[Finding]:
    from packaging.requirements import Requirement
    from packaging.version import Version

    _, wanted = _declared(root)
    if not wanted:
        yield Finding("packages", WARNING, "the package titles is not installed", "`make install`")
    missing, unfit = [], []
    for requirement in map(Requirement, wanted):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = _version(requirement.name)
        if version is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            unfit.append(f"{requirement.name} {version} (expected {requirement.specifier})")
    if missing:
        yield Finding("packages", PROBLEM, f"not installed: {_some(missing)}", "`make install`")
    if unfit:
        yield Finding("packages", PROBLEM, f"of another version: {_some(unfit)}", "`make install`")
    if wanted and not missing + unfit:
        yield Finding("packages", OK, f"all {len(wanted)} that the project imports are there")
    if not root or not (root / "requirements.lock").is_file():
        return
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    other = []
    for name, version in pinned.items():
        found = _version(name)
        # What follows a + names a build, such as torch's for CPUs.
        if found is None or Version(found).public != Version(version).public:
            other.append(f"{name} {found or 'missing'} (locked {version})")
    if other:
        told = f"{len(other)} of {len(pinned)} differ from requirements.lock: {_some(other)}"
        yield Finding("lock", WARNING, told, "`make install`: other versions may give other results")
    else:
        yield Finding("lock", OK, f"all {len(pinned)} packages are as in requirements.lock")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _encoding() -> Iterator[Finding]:
    used = {
        "file names": sys.getfilesystemencoding(),
        "text files": locale.getpreferredencoding(False),
        "output": getattr(sys.stdout, "encoding", None) or "utf-8",
    }
    other = [f"{what}: {name}" for what, name in used.items() if name.lower() not in ("utf-8", "utf8")]
    if other:
        do = "`export PYTHONUTF8=1`, or a UTF-8 locale such as LC_ALL=C.UTF-8"
        yield Finding("encoding", PROBLEM, f"not UTF-8: {', '.join(other)}", do)
    else:
        yield Finding("encoding", OK, "UTF-8")


# The project's folder


def _project(root: Path | None, folder: Path) -> Iterator[Finding]:
    if root is None:
        told = f"{folder} is outside of a project (no dvc.yaml and params.yaml): it was not looked at"
        yield Finding("project", WARNING, told, "run `titles doctor` in the project's folder")
        return
    code = Path(__file__).resolve().parent
    if root != folder:
        told = f"the project is in {root}, and commands look for it here"
        yield Finding("project", WARNING, told, f"`cd {shlex.quote(str(root))}`")
    elif code != (root / "src/titles").resolve():
        told = f"`titles` runs the code in {code}, stages that in {root}/src/titles"
        yield Finding("project", WARNING, told, "`make install`, then `source .venv/bin/activate`")
    else:
        yield Finding("project", OK, str(root))


def _params(root: Path) -> Iterator[Finding]:
    from joblib import cpu_count

    from titles.params import load_params

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
    asked = _run([sys.executable, "-c", code], root, _PROGRAM)
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


def _file_names(root: Path) -> Iterator[Finding]:
    if (root / "DVC.YAML").exists() and (root / "DVC.YAML").samefile(root / "dvc.yaml"):
        do = "do not use names that differ in their case alone"
        yield Finding("file names", OK, "upper and lower case are the same here", do)


def _leftovers(root: Path) -> Iterator[Finding]:
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
            command = f"rm -r {' '.join(shlex.quote(str(path)) for path in found[:_NAMED])}"
            told = f"{what}: {_some(list(map(str, found)))}"
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


# git and DVC


def _git(folder: Path, project: bool) -> Iterator[Finding]:
    version = _run(["git", "--version"], folder, _GIT)
    if version.code != 0:
        do = "install git (on Debian: apt-get install git), or put it in PATH"
        yield Finding("git", PROBLEM, f"git cannot be run: {version.reason}", do)
        return
    if project:
        inside = _run(["git", "rev-parse", "--show-toplevel"], folder, _GIT)
        head = _run(["git", "rev-parse", "--verify", "HEAD"], folder, _GIT)
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
        if _run([*strict, who], folder, _GIT).code != 0:
            do = "`git config --global user.name NAME`, and user.email ADDRESS"
            yield Finding("identity", WARNING, "git does not know who you are: commits fail", do)
            return
    yield Finding("identity", OK, "git knows who commits")


def _dvc(root: Path) -> Iterator[Finding]:
    if not (root / ".dvc").is_dir():
        do = "`git checkout .dvc`, or `dvc init` where there never was one"
        yield Finding("dvc", PROBLEM, f"no DVC repository: {root}/.dvc is missing", do)
        return
    listed = _command(root, "config", "--list")
    if listed.code != 0:
        told = f"DVC cannot be run here: {listed.reason}"
        yield Finding("dvc", PROBLEM, told, "see packages; `dvc config --list` says more")
        return
    # Of a key that stands twice, the later line is that of the file that wins.
    config = dict(line.split("=", 1) for line in listed.out.splitlines() if "=" in line)
    yield Finding("dvc", OK, f"DVC {_version('dvc')}")
    name = config.get("core.remote", "")
    reachable = False
    for finding in _remote(root, config, name):
        reachable |= finding.check == "remote" and finding.level == OK
        yield finding
    yield from _data(root, name, reachable)
    yield from _workspace(root, config)
    yield from _bytes(root, config, name)
    yield from _disk(root, config)


def _remote(root: Path, config: Config, name: str) -> Iterator[Finding]:
    """The first finding is about whether it can be reached."""
    url = config.get(f"remote.{name}.url", "")
    if not name:
        do = "`dvc remote default store`, or add your own: see README.md, Remotes"
        yield Finding("remote", WARNING, "there is no default remote: nothing can be pulled", do)
        return
    if not url:
        do = f"`dvc remote list` names those there are; `dvc remote add --local {name} ADDRESS`"
        yield Finding("remote", PROBLEM, f"the default remote {name!r} has no address", do)
        return
    path = Path(url.removeprefix("file://"))
    local = "://" not in url or url.startswith("file://")
    try:
        told = _folder(path) if local else _answers(url, "HEAD")
    except (OSError, ValueError) as error:
        do = "is its address right, and are you online?" if not local else "is the disk there? or else "
        do += f" `dvc remote modify --local {name} url ADDRESS` sets another"
        yield Finding("remote", PROBLEM, f"{name}, {_address(url)}: {_why(error)}", do)
    else:
        yield Finding("remote", OK, f"{name}, {_address(url)}: {told}")
    if config.get(f"remote.{name}.verify", "").lower() != "true":
        told = f"the remote {name} has no `verify`: damaged data would be taken for good"
        yield Finding("verify", WARNING, told, f"`dvc remote modify --local {name} verify true`")
    if local and path.is_relative_to(root):
        yield from _line_endings(root, path)


def _folder(path: Path) -> str:
    if not path.is_dir():
        raise ValueError("there is no such folder")
    os.scandir(path).close()
    return "the folder is there"


def _line_endings(root: Path, remote: Path) -> Iterator[Finding]:
    """git must not touch objects in the repository: their names are the hashes of their bytes."""
    place = f"{remote.relative_to(root)}/files/md5/00/0"
    attribute = _run(["git", "check-attr", "text", "--", place], root, _GIT)
    if attribute.code != 0:
        return  # see git
    setting = _run(["git", "config", "core.autocrlf"], root, _GIT).out.strip() or "false"
    if attribute.out.strip().endswith(": unset"):
        yield Finding("line endings", OK, f"git leaves those of the remote alone (autocrlf {setting})")
        return
    converts = setting in ("true", "input")
    told = f"git may convert line endings in {remote.relative_to(root)} (core.autocrlf is {setting})"
    do = f"add `/{remote.relative_to(root)}/** -text` to .gitattributes, then clone anew"
    yield Finding("line endings", PROBLEM if converts else WARNING, told, do)


def _data(root: Path, remote: str, reachable: bool) -> Iterator[Finding]:
    options = ["--not-in-remote"] if reachable else []
    asked = _command(root, "data", "status", "--json", *options)
    if asked.code != 0:
        do = "`dvc data status --not-in-remote` says more"
        yield Finding("data", PROBLEM, f"DVC cannot say where data is: {asked.reason}", do)
        return
    status: dict[str, Any] = json.loads(asked.out)
    here_not, there_not = set(status.get("not_in_cache", [])), set(status.get("not_in_remote", []))
    if lost := sorted(here_not & there_not):
        do = "`dvc repro` makes what stages make; or whoever has it: `dvc push`"
        yield Finding("data", PROBLEM, f"neither here nor in {remote}: {_some(lost)}", do)
    elif here_not:
        where = f"in {remote} alone" if reachable else "not here"
        yield Finding("data", WARNING, f"{where}: {_some(sorted(here_not))}", "`dvc pull`")
    elif there_not:
        do = "to hand it to others: `dvc push`, see docs/sharing.md"
        yield Finding("data", OK, f"here, and not in {remote}: {_some(sorted(there_not))}", do)
    else:
        yield Finding("data", OK, "all is in the cache" + f", and in {remote}" * reachable)


def _workspace(root: Path, config: Config) -> Iterator[Finding]:
    from titles import objects

    if not (root / "dvc.lock").is_file():
        yield Finding("workspace", WARNING, "there is no dvc.lock: nothing has run", "`dvc exp run`")
        return
    asked = _command(root, "status", "--json")
    if asked.code != 0:
        told = f"DVC cannot compare files with dvc.lock: {asked.reason}"
        yield Finding("workspace", PROBLEM, told, "`dvc status` says more")
    elif changed := list(json.loads(asked.out)):
        do = "`dvc status` says what; `dvc exp run` runs it, `git checkout . && dvc checkout` drops it"
        yield Finding("workspace", WARNING, f"not as in dvc.lock: {_some(changed)}", do)
    elif damaged := objects.read_workspace(root, _cache(root, config), objects.cached(root)):
        outs = list(dict.fromkeys(damage.out for damage in damaged))
        told = f"damaged, though DVC takes them for whole: {_some([str(d.path) for d in damaged])}"
        do = f"`rm -rf {shlex.join(outs[:_NAMED])}`, then `dvc checkout`"
        yield Finding("workspace", PROBLEM, told, do)
    else:
        yield Finding("workspace", OK, "all files are as in dvc.lock, to the byte")


def _bytes(root: Path, config: Config, name: str) -> Iterator[Finding]:
    """Read all objects, of the cache and of a remote that is a folder; DVC trusts those it has."""
    from titles import objects

    outs = objects.cached(root)
    remote = Path(config.get(f"remote.{name}.url", "").removeprefix("file://"))
    size, damaged = 0, False
    for place, what, effect, heal in (
        (
            _cache(root, config),
            "DVC's cache",
            "which DVC may take for whole",
            "`dvc pull`, or `dvc repro`",
        ),
        (remote, f"the remote {name}", "which `dvc pull` refuses", "`dvc push` where they are whole"),
    ):
        if not (place / "files/md5").is_dir():
            continue
        store = objects.read_store(place, outs)
        size += store.size
        if store.damaged:
            damaged = True
            owners = list(dict.fromkeys(damage.out for damage in store.damaged))
            told = (
                f"{len(store.damaged)} damaged or missing objects in {what}, {effect}: {_some(owners)}"
            )
            wrong = [damage.path for damage in store.damaged[:_NAMED]]
            if place == remote:  # where DVC takes a folder for whole if its listing is there
                wrong += [objects.place(place, outs[owner]) for owner in owners[:_NAMED]]
            else:  # what was checked out from a damaged object is damaged too
                wrong += [root / owner for owner in owners[:_NAMED]]
            paths = dict.fromkeys(objects.relative(wrong, root))
            do = f"`rm -rf {shlex.join(paths)}`, then {heal}, and look again"
            yield Finding("bytes", PROBLEM, told, do)
    if not damaged:
        yield Finding("bytes", OK, f"{_size(size)} of objects are what their names say")


def _cache(root: Path, config: Config) -> Path:
    return root / ".dvc" / config.get("cache.dir", "cache")


def _disk(root: Path, config: Config) -> Iterator[Finding]:
    """Room for one more run: outputs in the workspace, and the same in DVC's cache."""
    import psutil
    import yaml

    try:
        stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"].values()
        size = sum(out.get("size", 0) for stage in stages for out in stage.get("outs", []))
    except FileNotFoundError:
        size = 0
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        do = "`git checkout dvc.lock`, or remove it and `dvc repro`"
        yield Finding("disk", PROBLEM, "dvc.lock is damaged, so that sizes are not known", do)
        return
    cache = Path(config.get("cache.dir", ""))
    cache = cache if cache.is_dir() and cache.is_absolute() else root
    free = min(shutil.disk_usage(root).free, shutil.disk_usage(cache).free)
    told = f"{_size(free)} free; a run's data and models take {_size(2 * size)}, with DVC's cache"
    do = "make room: `dvc gc --workspace --all-commits` removes what no commit needs, experiments too"
    level = PROBLEM if free < 2 * size else WARNING if free < 6 * size else OK
    yield Finding("disk", level, told, do if level != OK else "")
    mounts = [
        part
        for part in psutil.disk_partitions(all=True)
        if root.resolve().is_relative_to(part.mountpoint)
    ]
    if mounts and "cache.type" not in config:
        kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype
        if kind not in _REFLINKS:
            told = f"{kind} has no reflinks: data is there twice, in the workspace and in DVC's cache"
            do = (
                "where room is short: `dvc config --local cache.type hardlink,copy`, for read-only files"
            )
            yield Finding("links", OK, told, do)


# MLflow


def _mlflow(root: Path | None) -> Iterator[Finding]:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    store = root / "mlflow.db" if root else None
    if uri.startswith("sqlite:///"):
        store = Path(uri.removeprefix("sqlite:///"))
    elif uri:
        yield from _mlflow_server(uri)
    if store and store.is_file():
        yield from _mlflow_schema(store)
    elif uri.startswith("sqlite:///") or (root and not uri):
        yield Finding("mlflow store", OK, f"{store} is not there yet: the first training makes it")


def _mlflow_server(uri: str) -> Iterator[Finding]:
    scheme = urlsplit(uri).scheme
    do = "start it, or `unset MLFLOW_TRACKING_URI`: runs then go to mlflow.db; trainings go on without"
    if scheme in ("", "file"):
        told = f"MLFLOW_TRACKING_URI={_address(uri)} names a folder, which MLflow no longer takes"
        yield Finding("mlflow server", PROBLEM, told, "sqlite:///PATH names a local store")
        return
    try:
        http = scheme in ("http", "https")
        told = _answers(uri.rstrip("/") + "/health" if http else uri, "GET")
    except (OSError, ValueError) as error:
        yield Finding("mlflow server", PROBLEM, f"{_address(uri)}: {_why(error)}", do)
        return
    fine = not http or told == "answers 200"
    yield Finding(
        "mlflow server", OK if fine else WARNING, f"{_address(uri)}: {told}", "" if fine else do
    )


def _mlflow_schema(store: Path) -> Iterator[Finding]:
    found = importlib.util.find_spec("mlflow")
    if not found or not found.submodule_search_locations:
        return  # see packages
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    # Read as MLflow does, but without MLflow, which would take its time and write.
    scripts = ScriptDirectory(str(Path(found.submodule_search_locations[0]) / "store/db_migrations"))
    try:
        address = f"file:{quote(str(store.resolve()))}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=2)
        try:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
        ((version,),) = rows
    except (sqlite3.Error, ValueError) as error:
        do = "move it away: the next training makes a new one, and `titles mlflow sync` fills it"
        yield Finding("mlflow store", PROBLEM, f"{store} is no store of MLflow: {error}", do)
        return
    installed = f"MLflow {_version('mlflow')}"
    if version == scripts.get_current_head():
        yield Finding("mlflow store", OK, f"{store} fits {installed}")
        return
    try:
        known = scripts.get_revision(version) is not None
    except CommandError:
        known = False
    if known:
        do = f"keep a copy of it, then `mlflow db upgrade sqlite:///{store}`"
        yield Finding("mlflow store", PROBLEM, f"{store} is of an older version than {installed}", do)
    else:
        told = f"{store} is of a newer version than {installed} (schema {version})"
        do = "`make install`; else move it away: `titles mlflow sync` fills a new one"
        yield Finding("mlflow store", PROBLEM, told, do)


# Other programs and machines


def _run(command: list[str], folder: Path, patience: float) -> _Ran:
    """Run a program that cannot ask anything; after `patience` seconds it is ended with its children."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "DVC_NO_ANALYTICS": "1"}
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | quiet | {"LC_MESSAGES": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # without a terminal to ask for a password
        )
    except OSError as error:
        return _Ran(127, "", f"error: {error.strerror}")
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        return _Ran(None, "", "")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _Ran(process.returncode, out, err)


def _command(root: Path, *arguments: str) -> _Ran:
    return _run([sys.executable, "-m", "dvc", *arguments], root, _PROGRAM)


def _answers(url: str, method: str) -> str:
    """What a server answers, in a word; nothing secret is sent.

    Raises:
        OSError, ValueError: it cannot be reached, is silent for seconds, or has no address to ask.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme.partition("+")[0] not in _PORTS:
        return "not asked here, see data"
    kind = parts.scheme.partition("+")[0]
    port = parts.port or _PORTS[kind]

    def ask() -> str:
        if kind in ("http", "https", "webdav", "webdavs"):
            web = kind.replace("webdav", "http")
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            request = urllib.request.Request(f"{web}://{host}:{port}{parts.path}", method=method)
            try:
                with urllib.request.urlopen(request, timeout=_ANSWER) as response:
                    return f"answers {response.status}"
            except urllib.error.HTTPError as error:
                error.close()
                return f"answers {error.code}"
        with socket.create_connection((parts.hostname, port), timeout=_ANSWER) as connection:
            if kind == "ssh" and not connection.recv(64).startswith(b"SSH-"):
                raise ValueError("what answers is no SSH server")
        return "answers"

    return _within(_ANSWER, ask)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` gives; TimeoutError after `seconds`, whatever it waits for, a name server as well."""
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error:
        raise error
    return value  # type: ignore[return-value]


def _why(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {_ANSWER:g} s"
    return str(getattr(cause, "strerror", None) or cause)


# Words


def _address(url: str) -> str:
    """An address without user, password, query and fragment, where tokens stand."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    authority = rest.rpartition("@")[2]
    return f"{scheme}://{re.split('[?#]', authority)[0]}"


def _line(text: str) -> str:
    """One line, printable, without what looks like a credential in an address."""
    text = " ".join(re.sub(r"(\w[\w+.-]*://)\S*@", r"\1***@", text).split())
    for key, secret in os.environ.items():
        if re.search("PASSWORD|TOKEN|SECRET", key) and len(secret) > 3:
            text = text.replace(secret, "***")
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
