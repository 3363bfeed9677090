"""A judge behind an OpenAI-compatible endpoint."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, Field

from protocol.address import Address
from protocol.endpoint import READINGS, Endpoint, Unanswered
from protocol.errors import InvalidInput, TutelageError
from recipes.graders.settings import JudgeSettings
from recipes.graders.wording import Claim, Missing, Pair, Verdict, describe, instruct, read_reply

REPLY_TOKENS: Final = 8
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


def judge_address(settings: JudgeSettings) -> Address:
    """Of a judge that has a `base_url`."""
    return Address("judge", settings.model, settings.base_url or "", settings.api_key_env, settings.timeout, settings.retries)


class EndpointJudge:
    """A judge at an endpoint, and how well it goes."""

    def __init__(self, settings: JudgeSettings):
        """Nothing is sent yet.

        Raises:
            InvalidInput: There is no key.
        """
        self._settings = settings
        self._endpoint = Endpoint(judge_address(settings))
        self._answered = False
        self._silent = 0

    def judge(self, pairs: Sequence[Pair | Claim]) -> Iterator[Verdict | Missing]:
        """Ask `batch_size` pairs at once.

        Raises:
            InvalidInput: The endpoint refuses the key, does not know the model, or is elsewhere.
            TutelageError: It gives nothing: to none of the first batch, or to none of three batches in a row.
        """
        size = self._settings.batch_size
        for start in range(0, len(pairs), size):
            given = dict(self._endpoint.ask_many(self._ask, pairs[start : start + size], size))
            verdicts = [given[index] for index in sorted(given)]
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

    def _ask(self, pair: Pair | Claim) -> Verdict | Missing:
        """Once more if the reply is no verdict."""
        request = {
            "model": self._settings.model,
            "messages": [{"role": "system", "content": instruct(pair)}, {"role": "user", "content": describe(pair)}],
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
        verdict: Verdict | Missing = Missing("not asked")
        for _ in range(READINGS):
            body = self._endpoint.post("/chat/completions", request)
            if isinstance(body, Unanswered):
                return _Refused(body.reason) if body.refused else Missing(body.reason, silent=True)
            verdict = self._read(body)
            if isinstance(verdict, Verdict):
                break
        return verdict

    def _read(self, body: bytes) -> Verdict | Missing:
        completion = self._endpoint.read(body, _Completion)
        if isinstance(completion, Unanswered):
            return Missing(completion.reason, silent=True)
        reply = completion.choices[0].message.content or ""
        correct = read_reply(reply)
        if correct is None:
            return Missing(self._endpoint.hide_key(f"a reply that is neither yes nor no: {reply!r}")[:300])
        return Verdict(correct=correct, score=float(correct))
