"""Trained networks that answer over HTTP, by MLflow's own server."""

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

# Seconds that the server has to answer what it was asked before.
_LAST_ANSWERS = 10


def serve(folders: Sequence[Path], host: str, port: int) -> NoReturn:
    """Run `mlflow models serve` on these model folders until it is ended from outside.

    Raises:
        ValueError: the address cannot be had, a folder is no network, or the server ended by itself.
    """
    check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="titles-serve-") as made:
        model = Path(made) / "model"
        # In a process of its own, so that this one, which only waits, does not hold torch.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(_write, folders, model).result()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model)]
        command += ["--env-manager", "local", "--host", host, "--port", str(port)]
        # MLflow looks for the server's program there.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        print(f"serving at http://{_written(host)}:{port}/invocations; Ctrl-C ends it", file=sys.stderr)
        process = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)
        try:
            code = process.wait()
        finally:
            _end(process)
    raise ValueError(f"the server ended with exit code {code}, it says why above")


def check_free(host: str, port: int, options: str = "--port or --host") -> None:
    """Raises ValueError if nothing could listen there, before anything is loaded.

    Args:
        options: what may be given instead.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address[0]), port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ValueError(
            f"cannot serve at port {port} of {host}: {reason}. Name another {options}, or end what "
            "listens there"
        ) from None


def _write(folders: Sequence[Path], out: Path) -> None:
    from titles.serve import mlflow_model

    mlflow_model.write(folders, out)


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all its processes; a second Ctrl-C does not leave some of them behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            last = time.monotonic() + _LAST_ANSWERS
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                while time.monotonic() < last:
                    process.poll()
                    os.killpg(process.pid, 0)
                    time.sleep(0.05)
    finally:
        process.wait()
        signal.signal(signal.SIGINT, before)
