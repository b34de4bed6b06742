"""The page's server, which only this machine can reach.

Streamlit works with the locked versions of packages; Gradio needs older versions of two.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from titles.texts import chosen

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("page.py")

# They override the user's own Streamlit settings.
_SETTINGS = {
    "server.address": HOST,
    "server.baseUrlPath": "",
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.maxUploadSize": 1,  # nothing is uploaded; megabytes
    "browser.gatherUsageStats": False,
    "logger.hideWelcomeMessage": True,
    "client.toolbarMode": "minimal",
    "client.allowedOrigins": [],  # otherwise pages of Streamlit's maker may control this one in a frame
    "client.showErrorDetails": "none",  # they go to the terminal
    "client.showErrorLinks": False,
    "runner.magicEnabled": False,
}
# Makes the browser refuse inline scripts and connections to other hosts. It also refuses one line of
# Streamlit's page, which is for search engines.
_POLICY = (
    "default-src 'self'; img-src 'self' data:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def serve(folders: Sequence[Path], port: int, at_least: float | None = None) -> NoReturn:
    """Serve the page with the networks of these model folders until interrupted.

    Args:
        at_least: see `Comparison`.

    Raises:
        ValueError: Streamlit is missing or too old, TITLES_LANG names another language than those of
            the page, a folder is not a network, or the server ended unexpectedly.
    """
    try:
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from streamlit.starlette import App
    except ImportError:
        raise ValueError(
            "Streamlit is missing or too old: `make install-dev`, or pip install 'streamlit>=1.67'"
        ) from None
    from titles.serve.demo.comparison import Comparison, loaded

    chosen()  # fails now, not for the first visitor
    comparison = Comparison(folders, at_least)
    comparison.explain("a")  # compile loops now, not while the first visitor waits
    loaded[:] = [comparison]
    # The check of host names prevents DNS rebinding, by which a page on the web could read this one.
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(_OwnPageOnly),
    ]
    print(f"the demo is at http://{HOST}:{port}; Ctrl-C ends it", file=sys.stderr)
    App(_PAGE, middleware=guards).run(config=_SETTINGS | {"server.port": port})
    raise ValueError("the demo's server ended unexpectedly, see its messages above")


class _OwnPageOnly:
    """Refuses requests of other pages, and adds the content security policy to responses.

    On a request of another page, Streamlit would ask an outside server for this machine's address.
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
                await PlainTextResponse("request from another page", 403)(scope, receive, send)
                return
        await self._app(scope, receive, answer)
