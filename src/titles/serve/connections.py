"""HTTP connections of `titles serve`: what is no HTTP is answered, and none is held for nothing."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from titles.serve.guard import refusal

KEPT_SECONDS = 75  # an idle connection; above the usual pause of clients between two requests
HEADER_SECONDS = 30.0  # from the start of a request, or of a connection, to the end of its headers
_LINGER_SECONDS = 2.0  # to be read by one who still sends


class Connection(H11Protocol):
    """uvicorn's, which answers what is no HTTP in JSON and reads on until its sender has the answer."""

    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        self._watch(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The sender has nothing more to say, but may wait for an answer."""
        if self._refused or self.cycle is None or self.cycle.response_complete:
            return None
        if self.conn.their_state is h11.SEND_BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                return None
            self._refuse(HTTPStatus.BAD_REQUEST, "the body is shorter than announced")
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where a request is no HTTP."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(HTTPStatus(hint), f"the request is no valid HTTP: {HTTPStatus(hint).phrase}")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._refused = True
        self._forget()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            start, content = refusal(status, message, closes=True)
            response = h11.Response(
                status_code=int(status), headers=start["headers"], reason=status.phrase
            )
            for event in (response, h11.Data(data=content["body"]), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _watch(self, data: bytes = b"") -> None:
        """Set the time by which the headers have to be there, if they are awaited."""
        if self._refused or self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._forget()
        elif self._deadline is None and (data or self.cycle is None):
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._late)

    def _late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the headers did not arrive in time")
        else:
            self.transport.close()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
