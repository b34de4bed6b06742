"""An MLflow server for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of this machine that refuses; nobody else can take it meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a server that keeps everything in `folder`, and a way to end it."""
    with closed_port() as port:
        pass
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db", *options]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(1200):
            try:
                with closing(urllib.request.urlopen(f"{address}/health", timeout=2)):
                    break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.25)
        else:
            pytest.fail((folder / "server.log").read_text())
        yield address, lambda: _end(process)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With its workers, which are in its process group."""
    if process.poll() is None:
        os.killpg(process.pid, 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
