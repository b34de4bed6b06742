"""Programs and servers, each with a time limit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from titles.data.interrupts import undisturbed

Answer = TypeVar("Answer")
DVC = (sys.executable, "-m", "dvc")
TIMEOUTS = {"git": 10.0, sys.executable: 60.0}  # seconds; DVC and torch start slowly on a busy machine
_SERVER_TIMEOUT = 5.0  # seconds
_PORTS = {"http": 80, "webdav": 80, "https": 443, "webdavs": 443, "ssh": 22, "postgresql": 5432}
_PORTS |= {"mysql": 3306, "mssql": 1433}
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "DVC_NO_ANALYTICS": "1"}


class Result(NamedTuple):
    """Whether a program succeeded, what it printed and, if it failed, the reason."""

    ok: bool
    out: str
    reason: str


def run(folder: Path | None, *command: str) -> Result:
    """Run a program that cannot prompt; after its timeout it is killed with its children."""
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | _QUIET | {"LC_MESSAGES": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # without a terminal to ask for a password
            )
        out, err = process.communicate(timeout=TIMEOUTS[command[0]])
    except OSError as error:
        return Result(False, "", str(error.strerror))
    except subprocess.TimeoutExpired:
        return Result(False, "", f"it did not end within {TIMEOUTS[command[0]]:g} s")
    finally:
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = err.strip().splitlines() or [f"exit code {process.returncode}"]
    marked = [line for line in lines if line.startswith(("ERROR: ", "fatal: ", "error: "))]
    reason = marked[0].partition(": ")[2] if marked else lines[-1]
    return Result(process.returncode == 0, out, reason)


def reach(url: str, method: str) -> tuple[bool, str]:
    """Whether a folder or server can be reached, and its answer or the reason why not.

    Sends no credentials.
    """
    try:
        return _in_time(_ask, url, method)
    except ValueError:  # whose message may hold a part of a password
        return False, "the address is not valid"
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)  # of urllib's errors
        if isinstance(cause, TimeoutError):
            return False, f"no answer within {_SERVER_TIMEOUT:g} s"
        return False, str(getattr(cause, "strerror", None) or cause)


def _in_time(function: Callable[..., Answer], *args: str) -> Answer:
    """The result of a function; raises TimeoutError if there is none within _SERVER_TIMEOUT.

    A socket's timeout covers neither name servers nor disks of other machines.
    """
    result: Future[Answer] = Future()

    def work() -> None:
        try:
            result.set_result(function(*args))
        except Exception as error:
            result.set_exception(error)

    Thread(target=work, daemon=True).start()  # one that hangs does not keep the process
    return result.result(_SERVER_TIMEOUT)


def _ask(url: str, method: str) -> tuple[bool, str]:
    if "://" not in url or url.startswith("file://"):
        os.scandir(url.removeprefix("file://")).close()
        return True, "the folder exists"
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[0]
    if not parts.hostname or kind not in _PORTS:
        return True, "not asked here, see data"
    port = parts.port or _PORTS[kind]
    if kind.startswith(("http", "webdav")):
        host = parts.netloc.rpartition("@")[2]
        address = f"{kind.replace('webdav', 'http')}://{host}{parts.path}"
        try:
            with urlopen(Request(address, method=method), timeout=_SERVER_TIMEOUT) as response:  # noqa: S310
                return True, f"answers {response.status}"
        except HTTPError as error:
            with error:
                return True, f"answers {error.code}"
    with socket.create_connection((parts.hostname, port), timeout=_SERVER_TIMEOUT) as connection:
        if kind == "ssh" and not connection.recv(64).startswith(b"SSH-"):
            return False, "the server does not speak SSH"
    return True, "answers"
