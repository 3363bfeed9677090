"""A student over HTTP: a FastAPI application in front of a queue.

It hears and answers in JSON, the protocol's messages and nothing else; training goes on in another thread. `student.guard` stands in front.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

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

from protocol.errors import InvalidInput, TutelageError
from protocol.feedback import FeedbackBatch, FeedbackReceipt
from protocol.messages import PROTOCOL_VERSION, StudentCard
from protocol.schema import component_schemas
from protocol.wire import API, Cancellation, Problem, Results, Submission, Wanted, tell_problem
from student.feedback_desk import FeedbackDesk, NotKept
from student.guard import Guard, Impatient, problem
from student.queue import Queue, QueueFull

M = TypeVar("M", bound=BaseModel)

_MOST_CONNECTIONS: Final = 1000
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "No token"},
    403: {"model": Problem, "description": "Another token"},
    408: {"model": Problem, "description": "The body came too slowly"},
    413: {"model": Problem, "description": "More than the service takes at once"},
    422: {"model": Problem, "description": "Not the protocol's message"},
    429: {"model": Problem, "description": "Too much waits; Retry-After says for how long"},
}
_FEEDBACK_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "It takes no feedback"},
    503: {"model": Problem, "description": "It could not be kept; send it again"},
}
_BEARER: Final = [Depends(HTTPBearer(auto_error=False))]
"""For the document alone: the guard has looked at the token."""


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


def create_app(queue: Queue, token: str, max_body: int, feedback: FeedbackDesk | None = None) -> FastAPI:
    """The service of a student whose work waits in a queue.

    Args:
        token: What `Authorization: Bearer` must bring, for everything but health and readiness.
        max_body: In bytes.
        feedback: Who takes feedback from use; without, it is refused.
    """
    app = FastAPI(
        title="tutelage student",
        version=str(PROTOCOL_VERSION),
        summary="Scores self-edits: trains on each, answers, forgets.",
        separate_input_output_schemas=False,
        docs_url=None,
        redoc_url=None,
    )
    _offer_work(app, queue)
    _offer_feedback(app, feedback)
    _offer_figures(app, queue)
    _tell_problems(app)

    def document() -> dict[str, Any]:
        """FastAPI's, with the protocol's own schemas: it rounds large numbers."""
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            app.openapi_schema["components"]["schemas"] |= component_schemas()
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    app.add_middleware(Guard, token=token, max_body=max_body)
    return app


def _offer_work(app: FastAPI, queue: Queue) -> None:
    arrivals = Arrivals()
    queue.on_results = arrivals.tell
    told: dict[str, Any] = {"dependencies": _BEARER, "responses": _PROBLEMS}

    @app.get(f"{API}/student", **told)
    async def student() -> StudentCard:
        """Who the student is, and what it takes."""
        return queue.card

    @app.post(f"{API}/submissions", status_code=202, response_class=Response, openapi_extra=_takes(Submission), **told)
    async def submit(request: Request) -> Response:
        """Hand requests over. What has a result, or waits already, is not computed again."""
        await run_in_threadpool(queue.submit, await _read(request, Submission))
        return Response(status_code=202)

    @app.post(f"{API}/results", response_model=Results, openapi_extra=_takes(Wanted), **told)
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

    @app.post(f"{API}/cancel", status_code=204, response_class=Response, openapi_extra=_takes(Cancellation), **told)
    async def cancel(request: Request) -> Response:
        """Drop requests that nobody waits for any more; what is being trained may be trained to its end."""
        await run_in_threadpool(queue.cancel, (await _read(request, Cancellation)).ids)
        return Response(status_code=204)


def _offer_feedback(app: FastAPI, desk: FeedbackDesk | None) -> None:
    told: dict[str, Any] = {"dependencies": _BEARER, "responses": _PROBLEMS | _FEEDBACK_PROBLEMS}

    @app.post(f"{API}/feedback", response_model=FeedbackReceipt, openapi_extra=_takes(FeedbackBatch), **told)
    async def feedback(request: Request) -> Response:
        """What people, clicks or tests say of a version's answers. Sent again, it counts once."""
        if desk is None:
            raise HTTPException(404, "this service takes no feedback, since it was started without line; set line to a line of versions")
        receipt = await run_in_threadpool(desk.take, await _read(request, FeedbackBatch))
        return Response(receipt.model_dump_json(), media_type="application/json")


def _offer_figures(app: FastAPI, queue: Queue) -> None:
    registry = CollectorRegistry()
    registry.register(QueueMetrics(queue))

    @app.get("/metrics", response_class=PlainTextResponse, responses=_PROBLEMS, dependencies=_BEARER)
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


def _tell_problems(app: FastAPI) -> None:
    @app.exception_handler(ValidationError)
    async def malformed(request: Request, error: ValidationError) -> JSONResponse:
        return problem(422, f"{tell_problem(error, 'the body')}; see the protocol's schema (/openapi.json, or tutelage schema)")

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        return problem(429, str(error), {"Retry-After": str(int(error.retry_after))})

    @app.exception_handler(NotKept)
    async def not_kept(request: Request, error: NotKept) -> JSONResponse:
        return problem(503, str(error))

    @app.exception_handler(InvalidInput)
    async def strange(request: Request, error: InvalidInput) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(TutelageError)
    async def too_much(request: Request, error: TutelageError) -> JSONResponse:
        return problem(413, str(error))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))


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
        with _silence("uvicorn.error"):  # who waits for results is cut off, and comes again
            thread.join()
        ear.close()


@contextmanager
def _silence(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
