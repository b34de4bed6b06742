"""Predictions over HTTP, by MLflow's model server in this process: where it ends, however it ends, the
server has ended, and there is no file to remove."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SHUTDOWN_SECONDS = 10  # for requests in progress


def serve(folders: Sequence[Path], host: str, port: int, allowed_hosts: Sequence[str] = ()) -> NoReturn:
    """Answer requests with the networks of these model folders until interrupted.

    Args:
        allowed_hosts: see `guard.allowed`; `host` is allowed as well.

    Raises:
        ValueError: the address is not available, a folder is not a network, a name is no name of a host,
            or the server ended unexpectedly.
    """
    from titles.serve import guard

    own = [] if _is_wildcard(host) else [host]
    hosts = guard.allowed([*own, *allowed_hosts])
    check_free(host, port)
    import uvicorn

    from titles.serve.connections import KEPT_SECONDS, Connection
    from titles.serve.http_requests import application
    from titles.serve.mlflow_model import loaded

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            # Threads that predict cannot be stopped, and Python would wait for them.
            last = threading.Timer(_SHUTDOWN_SECONDS + 2, os._exit, [128 + sig])
            last.daemon = True
            last.start()

    model = loaded(folders)
    config = uvicorn.Config(
        application(model, hosts),
        host,
        port,
        http=Connection,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEPT_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        server_header=False,
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"serving at http://{shown}:{port}/invocations; Ctrl-C ends it", file=sys.stderr)
    try:
        Server(config).run()
    except SystemExit as error:
        if error.code not in (1, 3):  # of uvicorn; a signal has another
            raise
    raise ValueError("the server ended unexpectedly, see its messages above")


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::", "*")  # noqa: S104  compared, not listened at


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
