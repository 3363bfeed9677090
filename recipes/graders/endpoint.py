"""A judge behind an OpenAI-compatible endpoint, asked through the `openai` client, which retries what may pass.

The key goes to the endpoint in a header and nowhere else: no message holds it, and a redirect is not followed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from protocol.errors import InvalidInput, TutelageError
from recipes.graders.address import find_key
from recipes.graders.settings import JudgeSettings
from recipes.graders.wording import INSTRUCTIONS, Missing, Pair, Verdict, describe, read_reply

if TYPE_CHECKING:
    import openai

REPLY_TOKENS: Final = 8
READINGS: Final = 2
"""How often a pair is asked whose reply is no verdict."""
SILENT_BATCHES: Final = 3
"""After so many in a row without any reply the endpoint is taken to be down."""


class _Words(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Words


class _Completion(BaseModel):
    """Of a chat completion, what is read here."""

    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Refused(Missing):
    """No other request will fare better; the reason says what to set right."""


class Endpoint:
    """A connection, and how well it goes."""

    def __init__(self, settings: JudgeSettings):
        """Nothing is sent yet.

        Raises:
            InvalidInput: There is no key, or no `openai` client.
        """
        import openai

        self._settings = settings
        self._key = find_key(settings)
        self._answered = False
        self._silent = 0
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=settings.retries,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Verdict | Missing]:
        """Ask `batch_size` pairs at once.

        Raises:
            InvalidInput: The endpoint refuses the key, does not know the model, or is elsewhere.
            TutelageError: It gives nothing: to none of the first batch, or to none of three batches in a row.
        """
        size = self._settings.batch_size
        with ThreadPoolExecutor(max_workers=size, thread_name_prefix="judge") as pool:
            for start in range(0, len(pairs), size):
                verdicts = list(pool.map(self._ask, pairs[start : start + size]))
                self._watch(verdicts)
                yield from verdicts

    def _watch(self, verdicts: Sequence[Verdict | Missing]) -> None:
        """Stop when there is no use in going on."""
        for verdict in verdicts:
            if isinstance(verdict, _Refused):
                raise InvalidInput(verdict.reason)
        silent = [verdict for verdict in verdicts if isinstance(verdict, Missing) and verdict.silent]
        if len(silent) < len(verdicts):
            self._answered, self._silent = True, 0
            return
        self._silent += 1
        if not self._answered or self._silent >= SILENT_BATCHES:
            raise TutelageError(
                f"judge.base_url {self._settings.base_url} gives no verdicts (the last reason: {silent[-1].reason}); see that it is up. "
                "The same command goes on"
            )

    def _ask(self, pair: Pair) -> Verdict | Missing:
        """Once more if the reply is no verdict."""
        verdict: Verdict | Missing = Missing("not asked")
        for _ in range(READINGS):
            body = self._request(pair)
            if isinstance(body, Missing):
                return body
            verdict = self._read(body)
            if isinstance(verdict, Verdict):
                break
        return verdict

    def _request(self, pair: Pair) -> bytes | Missing:
        """What the endpoint sends back, unread, or why it sends nothing, after all retries."""
        import openai

        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._settings.model,
                messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": describe(pair)}],
                temperature=0,
                max_tokens=REPLY_TOKENS,
            )
            return response.content
        except openai.APIStatusError as error:
            return self._read_status(error)
        except (openai.APIConnectionError, UnicodeError) as error:  # or an error's text in another code than it says
            cause = error.__cause__
            return Missing(self._scrub(f"{type(cause).__name__}: {cause}" if cause else str(error)), silent=True)

    def _read_status(self, error: "openai.APIStatusError") -> Missing:
        """An endpoint's text on a refused key may hold parts of the key, so it is left out."""
        settings, status, said = self._settings, error.status_code, self._scrub(str(error))
        if status in (401, 403):
            return _Refused(
                f"judge.base_url {settings.base_url} refuses the key in the variable {settings.api_key_env!r} (judge.api_key_env) with "
                f"HTTP {status}; put a key into it that may use {settings.model!r}"
            )
        if status == 404:
            return _Refused(
                f"judge.model {settings.model!r} is not known to judge.base_url {settings.base_url} ({said}); give a model that it serves, "
                "and an address that ends as /v1 does"
            )
        if 300 <= status < 400:
            return _Refused(
                f"judge.base_url {settings.base_url} redirects to another address (HTTP {status}), which is not followed, for the "
                "key's sake; give the last address"
            )
        return Missing(said, silent=True)

    def _read(self, body: bytes) -> Verdict | Missing:
        try:
            reply = _Completion.model_validate_json(body).choices[0].message.content or ""
        except ValidationError:
            return Missing(self._scrub(f"a response that is no chat completion: {body.decode(errors='replace')}"), silent=True)
        correct = read_reply(reply)
        if correct is None:
            return Missing(self._scrub(f"a reply that is neither yes nor no: {reply!r}"))
        return Verdict(correct=correct, score=float(correct))

    def _scrub(self, text: str) -> str:
        """One short line without the key."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:300]
