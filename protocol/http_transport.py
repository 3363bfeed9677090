"""A student's service over HTTP, as a teacher's side calls it.

Every call may be repeated, so a cut, a timeout or a busy service costs nothing but time: it is tried again, ever more slowly, until
`patience` runs out.
"""

import logging
import random
import time
from collections.abc import Sequence
from typing import Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from protocol.errors import InvalidInput, TutelageError
from protocol.messages import StudentCard
from protocol.wire import API, Cancellation, Problem, Results, Submission, Wanted, tell_problem

logger = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 15.0
_SILENT: Final = 5.0
"""Seconds for which a service may be away without a word to the user."""
_TIMEOUT: Final = 20.0
"""Seconds for a connection, and beyond what a call itself waits, for an answer."""
_TRY_AGAIN: Final = (408, 425, 429, 500, 502, 503, 504)
_JSON: Final = {"Content-Type": "application/json"}
_UPDATE: Final = "update tutelage on both sides"
_REMEDIES: Final = {
    401: "set $TUTELAGE_TOKEN, or what token_env names, to what the service was started with",
    403: "set $TUTELAGE_TOKEN, or what token_env names, to what the service was started with",
    404: "it is no student's service, or of another version; check the address",
    413: "take fewer contexts or candidates, or ask for more room there",
}

Reply = TypeVar("Reply", bound=BaseModel)


class HttpTransport:
    """Implements `protocol.remote.Transport`."""

    def __init__(self, url: str, token: str, patience: float = 600.0):
        """Connect to nothing yet.

        Args:
            url: Of the service, such as `http://127.0.0.1:8400`.
            token: Sent as a bearer token; empty sends none.
            patience: Seconds for which a service out of reach is tried again.

        Raises:
            InvalidInput: It is no address, or no token.
        """
        if not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidInput("the token for a student's service holds a blank, a line's end or no ASCII; export it as it was given")
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise InvalidInput(f"exchange is {url!r}, which is no address ({error}); give one such as http://127.0.0.1:8400") from error
        if not parsed.host or not 0 < (parsed.port or 80) < 65536:
            raise InvalidInput(f"exchange is {url!r}, which is no address; give one such as http://127.0.0.1:8400")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx2.Client(base_url=url, headers=headers)
        except OSError as error:
            raise InvalidInput(f"certificates cannot be read ({error}); set SSL_CERT_FILE to a file of them, or unset it") from error
        self._url, self._patience = url, patience

    def describe(self) -> StudentCard:
        return self._read(self._call("GET", "/student"), StudentCard)

    def post(self, submission: Submission) -> None:
        self._call("POST", "/submissions", submission)

    def fetch(self, wanted: Wanted) -> Results:
        return self._read(self._call("POST", "/results", wanted, wanted.wait), Results)

    def cancel(self, ids: Sequence[str]) -> None:
        self._call("POST", "/cancel", Cancellation(ids=tuple(ids)))

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, path: str, message: BaseModel | None = None, wait: float = 0.0) -> bytes:
        """What a call answers; `wait` is how long the service may take its time, in seconds."""
        body = message.model_dump_json().encode() if message else b""
        timeout = httpx2.Timeout(_TIMEOUT, read=_TIMEOUT + wait)
        started, pause = time.monotonic(), 0.2
        given_up, is_away = started + self._patience, False
        while True:
            asked_pause = 0.0
            try:
                response = self._client.request(method, API + path, content=body, headers=_JSON, timeout=timeout)
                if response.is_success:
                    if is_away:
                        logger.warning("the student's service %s answers again", self._url)
                    return response.content
                reason = f"answers {response.status_code}: {_detail(response)}"
                if response.status_code == 429:
                    given_up = time.monotonic() + self._patience  # busy is not out of reach
                if response.status_code not in _TRY_AGAIN:
                    raise InvalidInput(f"the student's service {self._url} {reason}; {_REMEDIES.get(response.status_code, _UPDATE)}")
                asked_pause = _seconds(response.headers.get("Retry-After", ""))
            except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
                raise InvalidInput(f"nothing can be sent to {self._url!r}; give an address such as http://127.0.0.1:8400") from error
            except httpx2.TransportError as error:
                if "WRONG_VERSION_NUMBER" in str(error):
                    raise InvalidInput(f"{self._url} does not speak HTTPS; give the address with http://") from error
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise InvalidInput(
                        f"the certificate of {self._url} is not to be trusted ({error}); if it is your own, export SSL_CERT_FILE=its file"
                    ) from error
                reason = f"is out of reach: {error or type(error).__name__}"
            now = time.monotonic()
            if now >= given_up:
                raise TutelageError(
                    f"the student's service {self._url} {reason}; tried for {now - started:.0f} s. Start it again, "
                    "and the same command goes on from what is journaled"
                )
            if not is_away and now - started > _SILENT:
                is_away = True
                logger.warning("the student's service %s %s; trying for %.0f s more", self._url, reason, given_up - now)
            time.sleep(min(max(pause * random.uniform(0.5, 1.0), asked_pause), given_up - now))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read(self, content: bytes, kind: type[Reply]) -> Reply:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise TutelageError(
                f"the student's service {self._url} answers what is no {kind.__name__} ({tell_problem(error, 'it')}); {_UPDATE}"
            ) from error


def _detail(response: httpx2.Response) -> str:
    """What a service said of itself; of anything else, nothing but its length."""
    try:
        return Problem.model_validate_json(response.content).detail
    except ValidationError:
        return f"{len(response.content)} bytes that say nothing"


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 60.0) if retry_after.isdecimal() else 0.0
