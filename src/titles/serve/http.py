"""Predictions over HTTP, by MLflow's model server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

_SHUTDOWN_SECONDS = 10  # for requests in progress


def serve(folders: Sequence[Path], host: str, port: int) -> NoReturn:
    """Run `mlflow models serve` on these model folders until interrupted.

    Raises:
        ValueError: the address is not available, a folder is not a network, or the server ended
            unexpectedly.
    """
    check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="titles-serve-") as made:
        model = Path(made) / "model"
        _write_apart(folders, model)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model)]
        command += ["--env-manager", "local", "--host", host, "--port", str(port)]
        # MLflow searches PATH for the server's program.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        shown = f"[{host}]" if ":" in host else host
        print(f"serving at http://{shown}:{port}/invocations; Ctrl-C ends it", file=sys.stderr)
        process = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)
        try:
            code = process.wait()
        finally:
            _end(process)
    raise ValueError(f"the server ended with exit code {code}, see its messages above")


def check_free(host: str, port: int, options: str = "--port or --host") -> None:
    """Raise ValueError if the address is not available, before anything is loaded.

    Args:
        options: the command-line options that the message suggests to change.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address[0]), port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        message = f"cannot serve at port {port} of {host}: {reason}. Choose a different {options}"
        raise ValueError(f"{message}, or stop the program that uses it") from None


def _write_apart(folders: Sequence[Path], out: Path) -> None:
    """Write the model in a process of its own: this one, which only waits, then does not load torch."""
    try:
        pool = ProcessPoolExecutor(1, get_context("spawn"))
    except (OSError, ImportError):  # it needs semaphores, which need /dev/shm
        _write(folders, out)
        return
    with pool:
        pool.submit(_write, folders, out).result()


def _write(folders: Sequence[Path], out: Path) -> None:
    from titles.serve import mlflow_model
    from titles.tracking.mlflow import as_default

    with as_default():
        mlflow_model.write(folders, out)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its processes, ignoring further Ctrl-C, which would leave some behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            last = time.monotonic() + _SHUTDOWN_SECONDS
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                while time.monotonic() < last:
                    process.poll()
                    os.killpg(process.pid, 0)
                    time.sleep(0.05)
    finally:
        process.wait()
        signal.signal(signal.SIGINT, before)
