"""A student over HTTP: a FastAPI application in front of a queue.

It hears and answers in JSON, the protocol's messages and nothing else; training goes on in another thread. Who has no token is turned away
before a byte of a body is read, and a body that is too large or too slow before it is parsed.
"""

import asyncio
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import h11
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from protocol.errors import InvalidInput, TutelageError
from protocol.messages import PROTOCOL_VERSION, StudentCard
from protocol.schema import component_schemas
from protocol.wire import API, Cancellation, Problem, Results, Submission, Wanted, tell_problem
from student.queue import Queue, QueueFull

M = TypeVar("M", bound=BaseModel)

_OPEN: Final = ("/healthz", "/readyz")
"""What may be asked without a token."""
_MOST_CONNECTIONS: Final = 1000
_SLOWEST_HEAD: Final = 10.0
_SLOWEST_BODY: Final = 60.0
"""Seconds in which a whole body must have come."""

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "No token"},
    403: {"model": Problem, "description": "Another token"},
    408: {"model": Problem, "description": "The body came too slowly"},
    413: {"model": Problem, "description": "More than the service takes at once"},
    422: {"model": Problem, "description": "Not the protocol's message"},
}
_FULL: Final[dict[int | str, dict[str, Any]]] = {429: {"model": Problem, "description": "Too much waits; Retry-After says for how long"}}


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
            await _problem(401, "there is no Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        elif not hmac.compare_digest(given, self._expected):
            await _problem(403, "the token is not this service's")(scope, receive, send)
        else:
            await self._read_and_go_on(scope, receive, send, headers.get(b"content-length", b"0"))

    async def _read_and_go_on(self, scope: Scope, receive: Receive, send: Send, announced: bytes) -> None:
        too_large = _problem(413, f"the body is larger than {self._max_body} bytes; send less at once, or raise max_body_mb", _CLOSE)
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
            await _problem(408, f"the body did not come within {_SLOWEST_BODY:.0f} s", _CLOSE)(scope, receive, send)
            return
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def read() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, read, send)


_CLOSE: Final = {"Connection": "close"}


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail[:10_000]}, status, headers)


class Arrivals:
    """Lets coroutines wait for what another thread has done."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Wake all who wait. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """What is set with the next arrival. Listen first, then look, and nothing is missed."""
        self._loop = asyncio.get_running_loop()
        return self._next


class QueueMetrics(Collector):
    """A queue's figures, as Prometheus has them."""

    def __init__(self, queue: Queue):
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("tutelage_requests_waiting", "Requests that wait or are being answered.", self._queue.size)
        yield GaugeMetricFamily("tutelage_requests_limit", "How many may.", self._queue.most)
        answered = CounterMetricFamily("tutelage_requests_answered", "Requests answered since the start.", labels=["answer"])
        for name in ("rewards", "answers", "versions", "refusals", "repeated"):
            answered.add_metric([name], getattr(self._queue.counts, name))
        yield answered
        yield CounterMetricFamily("tutelage_trained_tokens", "Tokens trained on since the start.", self._queue.counts.trained_tokens)


def _takes(kind: type[BaseModel]) -> dict[str, Any]:
    """For the document: what a call's body is."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _read(request: Request, kind: type[M]) -> M:
    """What a call brings; in another thread, since large bodies take long to read."""
    return await run_in_threadpool(kind.model_validate_json, await request.body())


def create_app(queue: Queue, token: str, max_body: int) -> FastAPI:
    """The service of a student whose work waits in a queue.

    Args:
        token: What `Authorization: Bearer` must bring, for everything but health and readiness.
        max_body: In bytes.
    """
    app = FastAPI(
        title="tutelage student",
        version=str(PROTOCOL_VERSION),
        summary="Scores self-edits: trains on each, answers, forgets.",
        separate_input_output_schemas=False,
        docs_url=None,
        redoc_url=None,
    )
    arrivals = Arrivals()
    queue.on_results = arrivals.tell
    bearer = [Depends(HTTPBearer(auto_error=False))]  # for the document alone: the guard has looked at it

    @app.get(f"{API}/student", responses=_PROBLEMS, dependencies=bearer)
    async def student() -> StudentCard:
        """Who the student is, and what it takes."""
        return queue.card

    @app.post(
        f"{API}/submissions",
        status_code=202,
        response_class=Response,
        responses=_PROBLEMS | _FULL,
        dependencies=bearer,
        openapi_extra=_takes(Submission),
    )
    async def submit(request: Request) -> Response:
        """Hand requests over. What has a result, or waits already, is not computed again."""
        await run_in_threadpool(queue.submit, await _read(request, Submission))
        return Response(status_code=202)

    @app.post(f"{API}/results", response_model=Results, responses=_PROBLEMS, dependencies=bearer, openapi_extra=_takes(Wanted))
    async def results(request: Request) -> Response:
        """Results so far, once there is one or the wait is over. Asked again, it answers again."""
        wanted = await _read(request, Wanted)
        deadline = time.monotonic() + wanted.wait
        while True:
            arrival = arrivals.listen()
            found = await run_in_threadpool(queue.results, wanted.ids)
            left = deadline - time.monotonic()
            if found.done or found.unknown or left <= 0:
                return Response(found.model_dump_json(), media_type="application/json")
            with suppress(TimeoutError):
                await asyncio.wait_for(arrival.wait(), left)

    @app.post(
        f"{API}/cancel",
        status_code=204,
        response_class=Response,
        responses=_PROBLEMS,
        dependencies=bearer,
        openapi_extra=_takes(Cancellation),
    )
    async def cancel(request: Request) -> Response:
        """Drop requests that nobody waits for any more; what is being trained may be trained to its end."""
        await run_in_threadpool(queue.cancel, (await _read(request, Cancellation)).ids)
        return Response(status_code=204)

    @app.get("/metrics", response_class=PlainTextResponse, responses=_PROBLEMS, dependencies=bearer)
    async def metrics() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/healthz", response_class=PlainTextResponse)
    async def health() -> PlainTextResponse:
        """Whether the process answers."""
        return PlainTextResponse("ok")

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "It is stopping"}})
    async def readiness() -> PlainTextResponse:
        """Whether it takes submissions."""
        return PlainTextResponse("stopping", 503) if queue.is_stopping else PlainTextResponse("ready")

    @app.exception_handler(ValidationError)
    async def malformed(request: Request, error: ValidationError) -> JSONResponse:
        return _problem(422, f"{tell_problem(error, 'the body')}; see the protocol's schema (/openapi.json, or tutelage schema)")

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        return _problem(429, str(error), {"Retry-After": str(int(error.retry_after))})

    @app.exception_handler(InvalidInput)
    async def strange(request: Request, error: InvalidInput) -> JSONResponse:
        return _problem(422, str(error))

    @app.exception_handler(TutelageError)
    async def too_much(request: Request, error: TutelageError) -> JSONResponse:
        return _problem(413, str(error))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    def document() -> dict[str, Any]:
        """FastAPI's, with the protocol's own schemas: it rounds large numbers."""
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            app.openapi_schema["components"]["schemas"] |= component_schemas()
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    registry = CollectorRegistry()
    registry.register(QueueMetrics(queue))
    app.add_middleware(Guard, token=token, max_body=max_body)
    return app


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


@contextmanager
def listening(app: FastAPI, host: str, port: int, certificate: str | None = None, key: str | None = None) -> Iterator[str]:
    """Answer in a thread of its own, for as long as it is needed; yields the address.

    Args:
        port: 0 takes any that is free.
        certificate, key: Files, for TLS.

    Raises:
        InvalidInput: The address cannot be listened on, or the files are no certificate and key.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ear = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"host {host!r}, port {port} cannot be listened on ({error}); choose others") from error
    config = uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:
        ear.close()
        raise InvalidInput(f"tls_certificate {certificate!r}, tls_key {key!r} cannot be used ({error})") from error
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]}, name="service", daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{ear.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        ear.close()
