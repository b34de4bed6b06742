"""Real servers on the loopback address that serve a folder, for tests that need another machine."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncssh

HOST = "127.0.0.1"
USER = "ana"
# Drawn, so that a search for it finds no test; in hex, as a command takes a leading dash for an option.
PASSWORD = secrets.token_hex(16)


@contextmanager
def serve_http(folder: Path) -> Iterator[str]:
    """Files over HTTP, read only and open to all; the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *values: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), partial(Quiet, directory=str(folder)))
    with server, _thread(server.serve_forever, server.shutdown):
        yield f"http://{HOST}:{server.server_port}"


@contextmanager
def serve_webdav(folder: Path, pause: float = 0.0) -> Iterator[str]:
    """Files over WebDAV, for USER with PASSWORD; the address.

    A `pause` in seconds before each block that is received makes the line slow.
    """
    from cheroot.wsgi import Server
    from wsgidav.wsgidav_app import WsgiDAVApp

    class SlowLine:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def read(self, size: int) -> bytes:
            time.sleep(pause)
            block: bytes = self.stream.read(size)
            return block

    application = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {
                "accept_basic": True,
                "accept_digest": False,
                "default_to_digest": False,
            },
            "verbose": 0,
        }
    )

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if pause:
            environ["wsgi.input"] = SlowLine(environ["wsgi.input"])
        return application(environ, start_response)

    server = Server((HOST, 0), answer)
    server.prepare()
    with _thread(server.serve, server.stop):
        yield f"webdav://{HOST}:{server.bind_addr[1]}"


@contextmanager
def serve_ssh(folder: Path, pause: float = 0.0) -> Iterator[str]:
    """Files over SFTP, for USER with PASSWORD; the address.

    A `pause` in seconds before each block that is received makes the line slow.
    """

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Files(asyncssh.SFTPServer):
        line = asyncio.Lock()  # the client sends many blocks at once

        async def write(self, file_obj: object, offset: int, data: bytes) -> Any:
            async with self.line:
                await asyncio.sleep(pause)
            return super().write(file_obj, offset, data)

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            HOST,
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            server_factory=Login,
            sftp_factory=partial(Files, chroot=str(folder).encode()),
        )

    async def close(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        with suppress(TimeoutError):  # a client of a test that failed may hold its line
            await asyncio.wait_for(server.wait_closed(), 5)

    loop = asyncio.new_event_loop()
    with closing(loop), _thread(loop.run_forever, lambda: loop.call_soon_threadsafe(loop.stop)):
        server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
        try:
            yield f"ssh://{HOST}:{server.get_port()}"
        finally:
            asyncio.run_coroutine_threadsafe(close(server), loop).result()


@contextmanager
def _thread(work: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    """`work` beside the test; `stop` ends it, also where the test failed, or pytest would not end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


SERVERS = {"http": serve_http, "ssh": serve_ssh, "webdav": serve_webdav}
