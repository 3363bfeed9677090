"""Who gets through to a student's service: whoever has the token, is brief and does not dawdle.

Who has no token is turned away before a byte of a body is read, and a body that is too large or too slow before it is parsed.
"""

import asyncio
import hmac
from typing import Final

import h11
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_OPEN: Final = ("/healthz", "/readyz")
"""What may be asked without a token."""
_SLOWEST_HEAD: Final = 10.0
_SLOWEST_BODY: Final = 60.0
"""Seconds in which a whole body must have come."""
_CLOSE: Final = {"Connection": "close"}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A reply that says what is wrong (`protocol.wire.Problem`)."""
    return JSONResponse({"detail": detail[:10_000]}, status, headers)


class Guard:
    """Turns away who has no token, and bodies that are too large or too slow."""

    def __init__(self, app: ASGIApp, token: str, max_body: int):
        self._app, self._expected, self._max_body = app, f"Bearer {token}".encode(), max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization")
        if given is None:
            await problem(401, "there is no Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        elif not hmac.compare_digest(given, self._expected):
            await problem(403, "the token is not this service's")(scope, receive, send)
        else:
            await self._read_and_go_on(scope, receive, send, headers.get(b"content-length", b"0"))

    async def _read_and_go_on(self, scope: Scope, receive: Receive, send: Send, announced: bytes) -> None:
        too_large = problem(413, f"the body is larger than {self._max_body} bytes; send less at once, or raise max_body_mb", _CLOSE)
        if not announced.isdigit() or int(announced[:20]) > self._max_body:
            await too_large(scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(_SLOWEST_BODY):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > self._max_body:
                        await too_large(scope, receive, send)
                        return
                    if not message.get("more_body"):
                        break
                else:
                    return  # gone
        except TimeoutError:
            await problem(408, f"the body did not come within {_SLOWEST_BODY:.0f} s", _CLOSE)(scope, receive, send)
            return
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def read() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, read, send)


class Impatient(H11Protocol):
    """Hangs up on who does not come to the end of a request's head."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_SLOWEST_HEAD, self._hang_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif self.conn.their_state is h11.IDLE and self._deadline is None and self.conn.trailing_data[0]:
            self._deadline = self.loop.call_later(_SLOWEST_HEAD, self._hang_up)

    def _hang_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
