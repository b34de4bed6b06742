"""The page's server, for this machine alone.

It is Streamlit, which fits the versions that the lock pins; Gradio wants older ones of two packages.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
_NAMES = [HOST, "localhost"]
_PAGE = Path(__file__).with_name("page.py")

# They stand above what the user's own settings of Streamlit say.
_SETTINGS = {
    "server.address": HOST,
    "server.baseUrlPath": "",
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.maxUploadSize": 1,  # nothing is uploaded; megabytes
    "browser.gatherUsageStats": False,
    "logger.hideWelcomeMessage": True,
    "client.toolbarMode": "minimal",
    "client.allowedOrigins": [],  # else pages of the maker's may steer this one in a frame
    "client.showErrorDetails": "none",  # they go to the terminal
    "client.showErrorLinks": False,
    "runner.magicEnabled": False,
}
# The browser's own word that nothing comes from elsewhere or goes there, and that no script stands in
# the page's text. That refuses one line of Streamlit's page too, which is for search engines.
_POLICY = (
    "default-src 'self'; img-src 'self' data:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def serve(folders: Sequence[Path], port: int) -> NoReturn:
    """Show the page with the networks of these model folders until it is ended from outside.

    Raises:
        ValueError: Streamlit is missing or too old, a folder is no network, or the server ended by
            itself.
    """
    try:
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from streamlit.starlette import App
    except ImportError:
        raise ValueError("Streamlit is missing or too old: pip install 'streamlit>=1.67'") from None
    from titles.serve.demo import comparison

    comparison.load(folders)
    # Another host's name that leads here is how a page of the web would read this one (DNS rebinding).
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(_OwnPageOnly)]
    print(f"the demo is at http://{HOST}:{port}; Ctrl-C ends it", file=sys.stderr)
    App(_PAGE, middleware=guards).run(config=_SETTINGS | {"server.port": port})
    raise ValueError("the demo's server ended by itself, it says why above")


class _OwnPageOnly:
    """Refuses what other pages send, and sends the policy along.

    Streamlit itself, asked by another page, asks outside for this machine's address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
            await send(message)

        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if headers.get("origin", own := f"http://{headers['host']}") != own:
                await PlainTextResponse("from another page", 403)(scope, receive, send)
                return
        await self._app(scope, receive, answer)
