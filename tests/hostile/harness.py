"""What the hostile cases share: a fresh folder for each, commands as processes, and what all must keep.

Whatever the input, a command ends in time, shows no traceback, prints nothing that a terminal obeys, and
tells a failure in one line that fits a screen. A command that fails changes nothing in its folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import small_project
from titles.datasets import croissant

ROOT = Path(__file__).parent.parent.parent
TITLES = str(Path(sys.executable).with_name("titles"))
MIB = 2**20
SECONDS = 180  # of a command; a busy machine is slow
MESSAGE = 4000  # characters: a screen
# Bytes in memory of any command here, whose listings and networks are tiny; torch takes 400 MiB.
MEMORY = 1200 * MIB
# Of data that a command may ask for at all, so that a fault here does no harm to the machine.
_SAFETY = 4096 * MIB
# Without these, the superuser is refused what others are.
_AS_OTHERS = "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"
# Obeyed by terminals (C0, C1), or change the order of what is read (marks of direction).
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# May stand before the line of an error.
_ASIDE = re.compile(r"(warning|note): |usage: |\s+\S|\S+ \d\d:\d\d:\d\d INFO |.*; again in \d")


class SkippedError(Exception):
    """The case needs something that this machine lacks."""


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    run: Callable[[Place], None]
    row: int  # in its table, from 0


CASES: dict[tuple[str, str], Case] = {}


def chosen(rows: int | None) -> dict[tuple[str, str], Case]:
    """The cases; of each table at most so many rows, if not None."""
    return {key: found for key, found in CASES.items() if rows is None or found.row < rows}


def case(
    kind: str, name: str, *given: Any, row: int = 0
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function of a `Place`, and of `given` after it."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        assert (kind, name) not in CASES, f"two cases are {kind}: {name}"
        CASES[kind, name] = Case(kind, name, lambda place: function(place, *given), row)
        return function

    return add


def cases(kind: str, table: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function for each row of a table, named by both; the row's values follow the place."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for row, (name, given) in enumerate(table.items()):
            values = given if isinstance(given, tuple) else (given,)
            full = f"{function.__name__.replace('_', ' ')}: {name}"
            case(kind, full, *values, row=row)(function)
        return function

    return add


@dataclass(frozen=True)
class Done:
    """A command that has ended. code: as subprocess has it. peak: bytes of memory."""

    code: int
    out: bytes
    err: str
    peak: int

    @property
    def last(self) -> str:
        return self.err.rstrip("\n").rpartition("\n")[2]


def signature(path: Path) -> str:
    """Kind, mode and content of what is at a path."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"link to {path.readlink()}"
    content = ""
    if stat.S_ISREG(found.st_mode):
        content = hashlib.md5(path.read_bytes()).hexdigest() if found.st_size < 2**24 else "large"
    return f"{found.st_mode:o} {content}"


class Place:
    """The folder of a case, with the models, and the commands that run there."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self._shared = folder, shared
        self.environment = small_project.environment() | {
            "PYTHONPATH": str(ROOT / "src"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            "no_proxy": "*",
            # Damage of one case concerns no other.
            "NUMBA_CACHE_DIR": str(shared / "numba"),
        }
        self.environment.pop("COLUMNS", None)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def models(self, name: str = "models") -> Path:
        """Tiny networks, trained on words "word2" to "word11" and four categories."""
        made = small_project.once(self._shared / "models", _make_models)
        return Path(shutil.copytree(made, self.folder / name))

    def project(self) -> None:
        """Turn the folder into a small project that has run, with git, DVC and an MLflow store."""
        made = small_project.once(self._shared / "project", _make_project)
        self.folder.rmdir()
        small_project.copy(made, self.folder)

    def parameters(self, **changes: object) -> Path:
        """Quick parameters; the source is listing.csv."""
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        values = small_project.QUICK | {"threads": 1, "source": "listing.csv", "min_rows": 1}
        for key, value in (values | changes).items():
            text = re.sub(rf"^(  {key}:) \S+( \S+\])?", rf"\1 {value}", text, flags=re.M)
        return self.write("params.yaml", text)

    def listing(self, rows: Iterable[tuple[str, str]] = (), name: str = "listing.csv") -> Path:
        """A listing of some hundred good rows, and the given ones."""
        good = [f"palabra{i} cosa{i % 7} algo{i % 31},KIND{i % 4}" for i in range(300)]
        bad = ['"' + '","'.join(cell.replace('"', '""') for cell in row) + '"' for row in rows]
        return self.write(name, "\n".join(["title,category", *good, *bad]) + "\n")

    def python(self, code: str, *arguments: str) -> None:
        """Run code with the project's packages, which makes an input; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            env=self.environment | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"the case is broken: {done.stderr.strip()[-300:]}"

    def start(self, *command: str | bytes, **settings: Any) -> subprocess.Popen[bytes]:
        """A command of titles, or a stage if the first word is one, in a session of its own."""
        variables: dict[str, str] = settings.pop("variables", {})
        limits: dict[int, int] = settings.pop("limits", {})
        umask: int = settings.pop("umask", 0o022)
        program = [TITLES]
        if command and str(command[0]) in small_project.STAGES:
            program, command = [sys.executable, "-m", f"titles.stages.{command[0]!s}"], command[1:]
        if settings.pop("as_others", False):
            program = [*dropping(), *program]
        program = [*settings.pop("through", ()), *program]

        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (_SAFETY, _SAFETY))
            for limit, value in limits.items():
                resource.setrlimit(limit, (value, value))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.umask(umask)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where this runs under nohup

        return subprocess.Popen(
            [*program, *command],
            **{
                "cwd": self.folder,
                "env": self.environment | variables,
                "start_new_session": True,
                "preexec_fn": prepare,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                **settings,
            },
        )

    def run(self, *command: str | bytes, seconds: float = SECONDS, **settings: Any) -> Done:
        """Run a command to its end, under the rules that hold for all.

        Args:
            settings: limits, variables, umask, as_others (without the rights of the superuser), through
                (words before the command), loose (the rules do not hold), and those of Popen.
        """
        loose = settings.pop("loose", False)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            settings = {"stdout": out, "stderr": err} | settings
            process = self.start(*command, **settings)
            code, peak = _waited(process, seconds)
            told = []
            for stream in (out, err):
                stream.seek(0)
                told.append(stream.read())
        done = Done(code, told[0], told[1].decode("utf-8", "surrogateescape"), peak)
        if not loose:
            orderly(done)
        return done

    def done(self, *command: str | bytes, makes: Iterable[str] = (), **settings: Any) -> Done:
        """Run a command that must succeed and change only the entries `makes`."""
        before = self.entries()
        done = self.run(*command, **settings)
        assert done.code == 0, f"exit code {done.code}: {excerpt(done.err)}"
        self.unchanged(before, [*makes, *_described(command)])
        return done

    def refused(
        self,
        *command: str | bytes,
        says: str = "",
        code: int = 1,
        makes: Iterable[str] = (),
        **settings: Any,
    ) -> str:
        """Run a command that must fail in one line, with `says` (a pattern), and change nothing."""
        before = self.entries()
        done = self.run(*command, **settings)
        assert done.code == code, f"exit code {done.code}, not {code}: {excerpt(done.err)}"
        one_line(done)
        assert re.search(says, done.err, re.I), f"does not say {says!r}: {excerpt(done.err)}"
        self.unchanged(before, makes)
        return done.err

    def refused_unseen(self, *command: str) -> str:
        """As `refused`, without the rights of the superuser, and in a folder that cannot be compared."""
        done = self.run(*command, as_others=True)
        assert done.code == 1, f"exit code {done.code}: {excerpt(done.err)}"
        one_line(done)
        return done.err

    def settled(self, *command: str | bytes, makes: Iterable[str] = (), **settings: Any) -> Done:
        """Run a command that may succeed or fail in one line."""
        before = self.entries()
        done = self.run(*command, **settings)
        assert done.code in (0, 1), f"exit code {done.code}: {excerpt(done.err)}"
        if done.code:
            one_line(done)
        self.unchanged(before, makes)
        return done

    def entries(self) -> dict[str, str]:
        """All that is in the folder but what git and DVC keep for themselves."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if not name.startswith((".git/", ".dvc/")) and "__pycache__" not in name:
                found[name] = signature(path)
        return found

    def unchanged(self, before: Mapping[str, str], but: Iterable[str] = ()) -> None:
        """Nothing is new, changed or gone in the folder, but the entries `but` and those below."""
        after, allowed = self.entries(), [*but, ".titles"]
        for name in sorted(before.keys() | after.keys()):
            path = self.folder / name
            if name not in before and path.is_dir() and not path.is_symlink() and not [*path.iterdir()]:
                continue  # made for an output that was refused
            if before.get(name) != after.get(name) and not any(
                name == each or name.startswith(f"{each}/") or each.startswith(f"{name}/")
                for each in allowed
            ):
                state = "gone" if name not in after else "changed" if name in before else "left behind"
                raise AssertionError(f"{excerpt(name)} is {state}")


def _described(command: tuple[str | bytes, ...]) -> list[str]:
    """The metadata that `titles sample` writes beside its output."""
    if command[0] not in ("sample", b"sample"):
        return []
    return [str(croissant.beside(Path(os.fsdecode(command[1]))))]


def orderly(done: Done) -> None:
    """The rules for all commands."""
    assert "Traceback (most recent" not in done.err, f"a traceback: {excerpt(done.last)}"
    assert done.code >= 0 or done.code in (-signal.SIGPIPE, -signal.SIGTERM, -signal.SIGINT), (
        f"died of signal {-done.code}: {excerpt(done.err)}"
    )
    if found := _UNSAFE.search(done.err):
        raise AssertionError(
            f"stderr has {found[0]!a}: {excerpt(done.err[max(0, found.start() - 40) :])}"
        )
    assert len(done.err) <= MESSAGE, f"a message of {len(done.err)} characters: {excerpt(done.err)}"
    assert done.peak <= MEMORY, f"{done.peak // MIB} MiB of memory"


def one_line(done: Done) -> None:
    """What is told of a failure is one line; a usage, warnings and notes may stand before it."""
    lines = [line for line in done.err.splitlines() if line and not _ASIDE.match(line)]
    assert len(lines) == 1, f"{len(lines)} lines: {excerpt(done.err)}"
    assert "error: " in lines[0], f"no line of an error: {excerpt(lines[0])}"


def excerpt(text: str) -> str:
    """The start of a text, in printable ASCII."""
    return ascii(text)[1:-1][:200]


def _waited(process: subprocess.Popen[bytes], seconds: float) -> tuple[int, int]:
    """Exit code, and peak of memory in bytes; the process and its session are ended after `seconds`."""
    last = time.monotonic() + seconds
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss * 1024
        if time.monotonic() > last:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"has not ended after {seconds:g} s")
        time.sleep(0.01)


@functools.cache
def dropping() -> tuple[str, ...]:
    """The words that take the superuser's rights to all files from a command; none for others."""
    if os.geteuid() != 0:
        return ()
    words = ("setpriv", *_AS_OTHERS)
    if not shutil.which("setpriv") or subprocess.run([*words, "true"], check=False).returncode:
        raise SkippedError("setpriv cannot take rights away here")
    return words


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of `size` bytes, mounted at a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise SkippedError("no small disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def attempt(found: Case, shared: Path) -> tuple[str, str]:
    """Run a case in a fresh folder: "pass", "FAIL" or "skip", and the reason."""
    top = Path(tempfile.mkdtemp(prefix=f"{found.kind}-", dir=shared))
    folder = top / "here"
    folder.mkdir()
    try:
        found.run(Place(folder, shared))
    except SkippedError as error:
        return "skip", str(error)
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        return "FAIL", str(error).partition("\n")[0] or line
    except Exception as error:  # of the case itself, as where a command left nothing to read
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        return "FAIL", f"{type(error).__name__}: {excerpt(str(error))} (line {line})"
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=False)
    return "pass", ""


def _make_models(folder: Path) -> None:
    code = "import titles, sys, pathlib, saved_models as s; s.write_models(pathlib.Path(sys.argv[1]))"
    path = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=os.environ | {"PYTHONPATH": path}, check=True
    )


def _make_project(folder: Path) -> None:
    small_project.write_project(folder, small_project.ROWS, threads=1)
    small_project.run(folder, "dvc", "repro", mlflow=True, PYTHONPATH=str(ROOT / "src"))
    small_project.run(folder, "dvc", "push", "-q")
    small_project.commit(folder, "run")
