"""An OpenAI-compatible endpoint, asked through the `openai` client: so many requests at once, each sent again while that may help.

The key goes to the endpoint in a header and nowhere else: no message holds it, and a redirect is not followed.
"""

import email.utils
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from protocol.address import Address, find_key

if TYPE_CHECKING:
    import openai

READINGS: Final = 2
"""How often an endpoint is asked for what it answers with garbage."""
_TRY_AGAIN: Final = (408, 409, 429)
"""And whatever is the server's own fault, from 500 on."""
_TIMED_OUT: Final = (408, 504, 524)
"""What a gateway says of a server that may still be at work."""
_LONGEST_WAIT: Final = 120.0
"""An endpoint that asks for more seconds than this is not waited for."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0
_NEVER_SENT: Final = ("ConnectError", "ConnectTimeout", "PoolTimeout")

T = TypeVar("T")
R = TypeVar("R")
Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True)
class Unanswered:
    """Why there is no answer.

    Attributes:
        refused: No other request will fare better; the reason says what to set right.
        said: The endpoint's own words, if there are any and they may be told.
        status: Of HTTP, if there was a response.
        lost: The request was sent, and nothing came back: it may have been worked on, and charged.
        wait: After how many seconds it may be sent again, 0 leaving that to the client; None is never.
    """

    reason: str
    refused: bool = False
    said: str = ""
    status: int | None = None
    lost: bool = False
    wait: float | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    """Of a list of models, what is read here."""

    data: list[_Model]


class Endpoint:
    """A connection."""

    def __init__(self, address: Address):
        """Nothing is sent yet.

        Raises:
            InvalidInput: There is no key.
        """
        import openai

        self.address = address
        self._key = find_key(address)
        self._given_up = False
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=address.base_url,
            timeout=address.timeout,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def post(self, path: str, body: Mapping[str, Any], again: Callable[[Unanswered], bool] = lambda unanswered: True) -> bytes | Unanswered:
        """What the endpoint sends back, unread, or why it sends nothing, after all retries.

        Args:
            again: Asked right before a request is sent once more, and told why; False leaves it.
        """
        return self._ask("POST", path, body, again)

    def ask_many(self, ask: Callable[[T], R], wanted: Sequence[T], at_once: int) -> Iterator[tuple[int, R]]:
        """Ask for all that is wanted, so many at once; yields each one's index and answer, as they arrive.

        Args:
            ask: Called in threads. If the answers are not taken to their end, those under way are waited for, but nothing is sent again.
        """
        pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="endpoint")
        try:
            indices = {pool.submit(ask, one): index for index, one in enumerate(wanted)}
            for done in as_completed(indices):
                yield indices[done], done.result()
        except BaseException:
            self._given_up = True
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def list_models(self) -> list[str] | Unanswered:
        """The names of the models that the endpoint serves now."""
        body = self._ask("GET", "/models", None, lambda unanswered: True)
        models = body if isinstance(body, Unanswered) else self.read(body, _Models)
        return models if isinstance(models, Unanswered) else [self.hide_key(model.id) for model in models.data]

    def read(self, body: bytes, kind: type[Reply]) -> Reply | Unanswered:
        """A response's content, or that it is garbage."""
        try:
            return kind.model_validate_json(body)
        except ValidationError:
            return Unanswered(self._scrub(f"a response that is no {kind.__name__.strip('_').lower()}: {body.decode(errors='replace')}"))

    def hide_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _ask(self, method: str, path: str, body: Any, again: Callable[[Unanswered], bool]) -> bytes | Unanswered:
        for attempt in range(self.address.retries + 1):
            answer = self._send(method, path, body)
            if isinstance(answer, bytes) or answer.wait is None or attempt == self.address.retries:
                break
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.75, 1.0)
            time.sleep(answer.wait or pause)
            if self._given_up or not again(answer):
                break
        return answer

    def _send(self, method: str, path: str, body: Any) -> bytes | Unanswered:
        import httpx2
        import openai

        try:
            if method == "GET":
                response = self._client.get(path, cast_to=httpx2.Response)
            else:
                response = self._client.post(path, cast_to=httpx2.Response, body=body)
            return response.content
        except openai.APIStatusError as error:
            return self._read_status(error, body)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            reason = f"{type(cause).__name__}: {cause}" if cause else str(error)
            return Unanswered(self._scrub(reason), lost=type(cause).__name__ not in _NEVER_SENT, wait=0.0)
        except UnicodeError as error:
            return Unanswered(self._scrub(f"an error whose text is in another code than it says: {error}"))

    def _read_status(self, error: "openai.APIStatusError", body: Any) -> Unanswered:
        """An endpoint's text on a refused key may hold parts of the key, so it is left out."""
        address, status, said = self.address, error.status_code, self._scrub(str(error))
        place = f"{address.setting}.base_url {address.base_url}"
        if status in (401, 403):
            reason = (
                f"{place} refuses the key in the variable {address.api_key_env!r} ({address.setting}.api_key_env) with HTTP {status}; "
                f"put a key into it that may use {address.model!r}"
            )
            return Unanswered(reason, refused=True, status=status)
        if status == 404:
            model = body["model"] if body and "model" in body else address.model
            reason = (
                f"{address.setting}.model {model!r} is not known to {place} ({said}); give a model that it serves, "
                "and an address that ends as /v1 does"
            )
            return Unanswered(reason, refused=True, said=said, status=status)
        if 300 <= status < 400:
            reason = (
                f"{place} redirects to another address (HTTP {status}), which is not followed, for the key's sake; give the last address"
            )
            return Unanswered(reason, refused=True, status=status)
        return Unanswered(said, said=said, status=status, lost=status in _TIMED_OUT, wait=_read_wait(status, error.response.headers))

    def _scrub(self, text: str) -> str:
        """One short line without the key."""
        return self.hide_key(" ".join(text.split()))[:300]


def _read_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """When a request that came back with an error may be sent again: as the endpoint asks, if that is no more than two minutes."""
    if status not in _TRY_AGAIN and status < 500:
        return None
    asked = headers.get("retry-after", "")
    try:
        seconds = float(asked)
    except ValueError:
        date = email.utils.parsedate_tz(asked)
        seconds = email.utils.mktime_tz(date) - time.time() if date else 0.0
    if not seconds <= _LONGEST_WAIT:
        return None
    return max(seconds, 0.0)
