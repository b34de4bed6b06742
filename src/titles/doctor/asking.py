"""Other programs and machines, which get seconds to answer."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

GIT_PATIENCE = 10.0  # seconds
PATIENCE = 60.0  # seconds; DVC and torch take some to start on a busy machine
_ANSWER = 5.0  # seconds a server has to answer
_PORTS = {"http": 80, "webdav": 80, "https": 443, "webdavs": 443, "ssh": 22, "postgresql": 5432}
_PORTS |= {"mysql": 3306, "mssql": 1433}

T = TypeVar("T")


class Ran(NamedTuple):
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


def run(command: list[str], folder: Path, patience: float) -> Ran:
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
        return Ran(127, "", f"error: {error.strerror}")
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        return Ran(None, "", "")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ran(process.returncode, out, err)


def dvc(root: Path, *arguments: str) -> Ran:
    """Run a command of DVC."""
    return run([sys.executable, "-m", "dvc", *arguments], root, PATIENCE)


def answers(url: str, method: str) -> str:
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
            address = f"{web}://{host}:{port}{parts.path}"
            request = urllib.request.Request(address, method=method)  # noqa: S310, http or https
            try:
                with urllib.request.urlopen(request, timeout=_ANSWER) as response:  # noqa: S310
                    return f"answers {response.status}"
            except urllib.error.HTTPError as error:
                error.close()
                return f"answers {error.code}"
        with socket.create_connection((parts.hostname, port), timeout=_ANSWER) as connection:
            if kind == "ssh" and not connection.recv(64).startswith(b"SSH-"):
                raise ValueError("what answers is no SSH server")
        return "answers"

    return within(_ANSWER, ask)


def within(seconds: float, work: Callable[[], T]) -> T:
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


def why(error: BaseException) -> str:
    """Why a server could not be reached, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {_ANSWER:g} s"
    return str(getattr(cause, "strerror", None) or cause)


def version(name: str) -> str | None:
    """The installed version of a package, if it is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
