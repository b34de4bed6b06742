"""The programs git and DVC."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def environment() -> dict[str, str]:
    """Environment in which stages find the `python` and `dvc` that run this program, and their own code.

    Python looks for `titles` in the stage's folder first. This matters in temporary folders: the
    installed package is the code of the working tree, not of the experiment.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    source = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PATH": path, "PYTHONPATH": source}


def git(*arguments: str, folder: Path | None = None) -> str:
    """Run git and return its output.

    Raises:
        ValueError: git is missing or reports an error.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed, or not in PATH") from None
    if done.returncode:
        problem = done.stderr.decode(errors="replace").strip()
        if "not a git repository" in problem:
            raise ValueError("this is not the folder of a project in git: change to the project's")
        raise ValueError(f"git {' '.join(arguments)}: {problem}")
    return done.stdout.decode()  # not by `text=True`, which would change line ends


def dvc(*arguments: str, folder: Path | None = None) -> str:
    """Run a short DVC command and return its output.

    An interrupt waits for the command: if it is cut off, the working tree stays stashed away.

    Raises:
        ValueError: DVC reports an error.
    """
    # Not through a pipe: the workers that `dvc queue start` leaves behind would hold it open.
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
