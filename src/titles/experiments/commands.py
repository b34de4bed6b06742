"""The programs git and DVC."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from tqdm import tqdm

from titles.data import processor
from titles.data.interrupts import undisturbed
from titles.experiments.paths import unfit

# What git says of a commit that it does not have.
_UNKNOWN = re.compile(
    "bad (object|revision)|unknown revision|invalid object|not a (tree|valid object)"
    "|single revision|unable to read tree|could not (get|parse)|no such commit",
    re.I,
)
_PATIENCE = 15.0  # seconds that an interrupted command has to clean up


def environment() -> dict[str, str]:
    """Environment in which stages find the `python` and `dvc` that run this program, and their own code.

    Python looks for `titles` in the stage's folder first. This matters in temporary folders: the
    installed package is the code of the working tree, not of the experiment. Each stage makes the
    settings of data/processor.py itself, if its code and its params.yaml say so.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    source = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))
    return processor.without(os.environ) | {"PATH": path, "PYTHONPATH": source}


def git(*arguments: str, folder: Path | None = None) -> str:
    """Run git and return its output, without its warnings.

    Raises:
        ValueError: git is missing or reports an error.
    """
    try:
        command = ["git", "-c", "core.quotePath=false", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed, or not in PATH") from None
    if done.returncode:
        problem = done.stderr.decode(errors="replace").strip()
        if "not a git repository" in problem:
            raise ValueError("this is not the folder of a project in git: change to the project's")
        lacking = cut_off(folder) if _UNKNOWN.search(problem) else ""
        raise ValueError(f"git {' '.join(arguments)}: {problem}{lacking}")
    return done.stdout.decode()  # not by `text=True`, which would change line ends


def cut_off(folder: Path | None = None) -> str:
    """The end of a message on a commit that git does not have, where a shallow clone may be the cause;
    "" elsewhere."""
    if git("rev-parse", "--is-shallow-repository", folder=folder).strip() != "true":
        return ""
    return "; this clone is shallow, without older commits: `git fetch --unshallow` gets them"


def top(folder: Path | None = None) -> Path:
    """The root of the git repository around a folder, which may be larger than the project.

    Raises:
        ValueError: this is no git repository, or its path is not UTF-8.
    """
    try:
        return Path(git("rev-parse", "--show-toplevel", folder=folder).removesuffix("\n"))
    except UnicodeDecodeError:
        raise ValueError(unfit(folder or Path.cwd())) from None


def project() -> Path:
    """The folder of the project around the current one: the nearest with a dvc.yaml, within its git
    repository, else the root of that.

    Raises:
        ValueError: this is no git repository.
    """
    root, here = top(), Path.cwd()
    within = [folder for folder in (here, *here.parents) if folder.is_relative_to(root)]
    return next((folder for folder in within if (folder / "dvc.yaml").is_file()), root)


def dvc(*arguments: str, folder: Path | None = None) -> str:
    """Run a short DVC command and return its output, without its warnings.

    An interrupt waits for the command: if it is cut off, the working tree stays stashed away.

    Raises:
        ValueError: DVC reports an error.
    """
    # Not through pipes: the workers that `dvc queue start` leaves behind would hold them open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = None
        try:
            with undisturbed():
                process = subprocess.Popen(
                    [sys.executable, "-m", "dvc", *arguments],
                    cwd=folder,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,  # Ctrl-C in a terminal goes to all processes of a session
                )
            process.wait()
        except BaseException:
            if process:
                process.wait()
            raise
        output, problem = (_content(stream) for stream in (out, err))
    if process.returncode:
        told = "\n".join(filter(None, [output, problem]))
        raise ValueError(f"dvc {' '.join(arguments[:2])} failed:\n{told}")
    return output


def warn(text: str) -> None:
    """Print a line on stderr, above a progress bar if there is one."""
    tqdm.write(f"warning: {text}", file=sys.stderr)


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace").strip()


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process that began a session, with all that it started, and kill what does not end.

    A second interrupt kills at once.
    """
    try:
        _signal(process, signal.SIGINT)
        _wait_for_all(process, _PATIENCE)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()
        _wait_for_all(process, 1.0)  # no longer: where none takes care of orphans, they stay listed


def _wait_for_all(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while _signal(process, 0) and time.monotonic() < end:
        time.sleep(0.05)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Signal the group of a process; returns whether any of it is left."""
    process.poll()  # else it stays in its group when it has ended
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
