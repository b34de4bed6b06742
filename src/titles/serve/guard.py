"""A guard in front of the model server: who may ask, how much, and how errors are answered.

Plain ASGI without a library, as it is stored with exported models, whose server it guards as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

HOSTS = "TITLES_ALLOWED_HOSTS"  # in the environment: names, separated by commas
ANY = "*"
MOST_BYTES = 16 * 2**20  # of a body
_DRAINED = 4 * MOST_BYTES  # of a body that is refused, so that its sender reads why
_DRAIN_SECONDS = 5.0
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?")
_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class _EndedError(Exception):
    """The sender has gone before the end of its request."""


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def allowed(hosts: Iterable[str]) -> frozenset[str]:
    """Host names that are answered besides those of this machine: `hosts`, and those of HOSTS.

    Raises:
        ValueError: one is no name of a host.
    """
    names = [*hosts, *filter(None, os.environ.get(HOSTS, "").split(","))]
    return frozenset(ANY if name.strip() == ANY else _named(name) for name in names)


def _named(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        name = text.strip().lower().rstrip(".")
        if not re.fullmatch("[a-z0-9._-]+", name):
            told = "expected a name such as titles.example.com, an address, or * for any"
            raise ValueError(f"{text.strip()!r} is no name of a host: {told}") from None
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _name(host: str) -> str:
    """The name in a Host header, without its port; "" if it is none."""
    found = _HOST.fullmatch(host.lower())
    with contextlib.suppress(ValueError):
        return _named(found[1] or found[2]) if found else ""
    return ""


def _is_loopback(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


class Guard:
    """Hands requests to `app` if their Host is allowed, they come from no other page, and their body is
    whole and not too large. All errors are JSON with a message of one line.

    A page on the web can let a browser ask this machine (by a name that it lets point here, DNS
    rebinding, or by a request to another site): the headers Host and Origin tell.

    Args:
        hosts: what `allowed` returned. Names and addresses of this machine are allowed as well: those of
            loopback, and the one at which the request arrived.
        seconds: for a body to arrive.
    """

    def __init__(self, app: App, hosts: frozenset[str], seconds: float) -> None:
        self._app, self._hosts, self._seconds = app, hosts, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            with contextlib.suppress(_EndedError):
                await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key, []).append(value)
        try:
            body = await self._body(headers, receive)
        except _RefusedError as error:
            # The rest of the body would be taken for the next request.
            start, content = refusal(error.status, str(error), closes=True)
            await send(start)
            await send({**content, "more_body": True})
            if b"expect" not in headers:
                await _drain(receive)
            await send({"type": "http.response.body"})
            return
        if wrong := self._wrong(scope, headers):
            for message in refusal(wrong.status, str(wrong)):
                await send(message)
            return
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(given, None) or await receive()

        sent = _Sent(send)
        try:
            await self._app(scope, replay, sent)
        except Exception:
            if sent.started:
                raise  # the server closes the connection
            _log.exception("a request failed")
            for message in refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed"):
                await send(message)

    async def _body(self, headers: dict[bytes, list[bytes]], receive: Receive) -> bytes:
        too_much = _RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is longer than {MOST_BYTES} bytes: send fewer titles in a request",
        )
        if b"transfer-encoding" in headers and b"content-length" in headers:
            told = "the request has both Content-Length and Transfer-Encoding"
            raise _RefusedError(HTTPStatus.BAD_REQUEST, told)
        if int(headers.get(b"content-length", [b"0"])[0]) > MOST_BYTES:
            raise too_much
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _EndedError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MOST_BYTES:
                        raise too_much
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            told = f"the body did not arrive within {self._seconds:g} s"
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, told) from None

    def _wrong(self, scope: Message, headers: dict[bytes, list[bytes]]) -> _RefusedError | None:
        """Why a request is not handed on."""
        host, origin = (_last(headers, name) for name in (b"host", b"origin"))
        name = _name(host)
        at = str((scope.get("server") or ("",))[0])
        here = _name(f"[{at}]" if ":" in at else at)
        own = name and (_is_loopback(name) or name == here or name in self._hosts)
        if ANY not in self._hosts:
            if not own:
                told = f"the host is not allowed: --allowed-host or {HOSTS} allows it"
                return _RefusedError(HTTPStatus.BAD_REQUEST, told)
            if origin:
                _, _, asking = origin.lower().partition("://")
                if asking != host.lower() and _name(asking) not in self._hosts:
                    told = "the request is from a page of another site"
                    return _RefusedError(HTTPStatus.FORBIDDEN, told)
        coding = _last(headers, b"content-encoding").strip().lower()
        if coding not in ("", "identity"):
            told = "the content coding is unknown: send the body as it is"
            return _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, told)
        return None


class _Sent:
    """Passes responses on, of which errors get a body of JSON with a message if they have none."""

    def __init__(self, send: Send) -> None:
        self._send, self._body = send, b""
        self._held: Message | None = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
            return
        if self._held is None:
            self.started = True
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        self.started = True
        start, body = self._held, self._body
        if not _is_told(body):
            status = HTTPStatus(start["status"])
            kept = [pair for pair in start["headers"] if pair[0].lower() == b"allow"]
            start, content = refusal(status, f"{status.phrase}: POST /invocations takes titles")
            start["headers"] += kept
            body = content["body"]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _is_told(body: bytes) -> bool:
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        return isinstance(found, dict) and "message" in found
    return False


def refusal(status: HTTPStatus, message: str, closes: bool = False) -> tuple[Message, Message]:
    """The two messages of an error's response. closes: its connection is not used any more."""
    code = "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST"
    body = json.dumps({"error_code": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(b"connection", b"close")] * closes
    return (
        {"type": "http.response.start", "status": int(status), "headers": headers},
        {"type": "http.response.body", "body": body},
    )


def _last(headers: dict[bytes, list[bytes]], name: bytes) -> str:
    return headers.get(name, [b""])[-1].decode("latin-1")


async def _drain(receive: Receive) -> None:
    """Read on for a while: one who still sends when the connection is closed may not see the answer."""
    left = _DRAINED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                left -= len(message.get("body", b""))
