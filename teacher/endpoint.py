"""A teacher at an OpenAI-compatible endpoint: a server of one's own, such as vLLM, or a hosted model. Torch-free.

One request is one candidate, with its own seed. Whether the same seed gives the same candidate again is up to the endpoint.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from protocol.address import Address, check_address
from protocol.endpoint import READINGS, Endpoint, Unanswered
from protocol.errors import InvalidInput, TutelageError
from protocol.spending import Account, Meter, Prices, Spending
from teacher.settings import TeacherSettings

SETTING: Final = "teacher.endpoint"
_SPECIAL_TOKENS: Final = 256
"""What a chat template may put around a prompt, system prompt and all: more than any known to us."""
_BAD_REQUEST: Final = (400, 413, 422)
"""The endpoint takes no request such as this one, and others like it will fare no better."""


class _Usage(BaseModel):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)] = 0


class _Words(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    """`text` of a completion, `message` of a chat completion."""

    text: str | None = None
    message: _Words | None = None


class _Completion(BaseModel):
    """Of a response, what is read here."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


@dataclass(frozen=True)
class Written:
    """What came of the prompt with this index, and what it cost; without a text nothing came of it."""

    index: int
    text: str | None
    spending: Spending


def endpoint_address(teacher: TeacherSettings, setting: str = SETTING) -> Address:
    """Of a teacher that has a `base_url`.

    Args:
        setting: The recipe's group of settings, for messages.
    """
    own = teacher.endpoint
    return Address(setting, own.model or teacher.model, own.base_url or "", own.api_key_env, own.timeout, own.retries)


def check_settings(teacher: TeacherSettings, setting: str = SETTING) -> None:
    """See that an endpoint's settings can be right, without asking it.

    Raises:
        InvalidInput: Names the key and the remedy, but no value that may be a secret.
    """
    check_address(endpoint_address(teacher, setting))
    own = teacher.endpoint
    if not (own.model or teacher.model):
        raise InvalidInput(f"{setting}.model is empty; give the name that {own.base_url} knows its model by")
    if own.budget is not None and not (own.price_in or own.price_out):
        raise InvalidInput(
            f"{setting}.budget is {own.budget}, but {setting}.price_in and price_out are 0, so that nothing would count; set both prices"
        )


class EndpointPolicy:
    """A teacher at work."""

    def __init__(self, teacher: TeacherSettings, spent: float = 0.0, served: str | None = None):
        """Nothing is sent yet.

        Args:
            spent: What counts against the budget already.
            served: The name under which the endpoint serves the teacher's adapter, if it has one.

        Raises:
            InvalidInput: There is no key.
        """
        self._teacher = teacher
        self._endpoint = Endpoint(endpoint_address(teacher))
        self._model = served or self._endpoint.address.model
        self._prices = Prices(teacher.endpoint.price_in, teacher.endpoint.price_out)
        self._account = Account(teacher.endpoint.budget, spent)
        self._problem: TutelageError | None = None

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[Written]:
        """Write one candidate per prompt, `endpoint.concurrency` at once; yields them as they arrive.

        After a failure nothing more is sent, and what is under way still comes.

        Args:
            seeds: One per prompt.

        Raises:
            InvalidInput: The endpoint refuses the key or a request, does not know the model, or is elsewhere.
            TutelageError: It gives nothing for one of the prompts, or the next request could pass the budget.
        """
        wanted = list(zip(prompts, seeds, strict=True))
        at_once = self._teacher.endpoint.concurrency
        for index, (text, spending) in self._endpoint.ask_many(lambda one: self._write(*one), wanted, at_once):
            if text is not None or spending.requests:
                yield Written(index, text, spending)
        if self._problem is not None:
            raise self._problem

    def _write(self, prompt: str, seed: int) -> tuple[str | None, Spending]:
        """A candidate, if it comes, and what it cost; once more if the response is garbage."""
        longest = len(prompt.encode(errors="replace")) + _SPECIAL_TOKENS  # no token is shorter than a byte
        meter = Meter(self._account, self._prices, longest, self._teacher.max_new_tokens)
        body, reason = self._request(prompt, seed), ""
        for _ in range(READINGS):
            if not self._may_send(meter):
                return None, meter.spending
            answer = self._endpoint.post(self._path, body, again=lambda unanswered: self._may_send(meter, unanswered))
            if isinstance(answer, Unanswered):
                meter.end(lost=answer.lost)
                self._stop(self._explain(answer))
                return None, meter.spending
            completion = self._endpoint.read(answer, _Completion)
            if not isinstance(completion, Unanswered):
                usage = completion.usage
                meter.end((usage.prompt_tokens, usage.completion_tokens) if usage else None)
                choice = completion.choices[0]
                text = choice.message.content if choice.message else choice.text
                return self._endpoint.hide_key(text or ""), meter.spending
            meter.end(lost=True)
            reason = completion.reason
        self._stop(self._explain(Unanswered(reason)))
        return None, meter.spending

    def _may_send(self, meter: Meter, before: Unanswered | None = None) -> bool:
        """Whether a request may be sent, after one that went `before` and came to nothing."""
        if before is not None:
            meter.end(lost=before.lost)
        if self._problem is not None:
            return False
        if meter.begin():
            return True
        self._stop(
            TutelageError(
                f"{SETTING}.budget is {self._teacher.endpoint.budget}, of which {self._account.spent:.6f} is spent, and the next self-edit "
                f"could cost up to {meter.most:.6f}; with a higher budget the same command goes on"
            )
        )
        return False

    @property
    def _path(self) -> str:
        return "/chat/completions" if self._teacher.chat else "/completions"

    def _request(self, prompt: str, seed: int) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._teacher.chat else {"prompt": prompt}
        return {
            "model": self._model,
            **asked,
            "temperature": self._teacher.temperature,
            "top_p": self._teacher.top_p,
            "max_tokens": self._teacher.max_new_tokens,
            "seed": seed,
        }

    def _explain(self, answer: Unanswered) -> TutelageError:
        if answer.refused:
            return InvalidInput(answer.reason)
        place = f"{SETTING}.base_url {self._endpoint.address.base_url}"
        if answer.status in _BAD_REQUEST:
            return InvalidInput(
                f"{place} takes no such request ({answer.reason}); see to teacher.max_new_tokens, teacher.chat and the length of contexts"
            )
        return TutelageError(f"{place} gives no candidates (the last reason: {answer.reason}); see that it is up. The same command goes on")

    def _stop(self, problem: TutelageError) -> None:
        """The first problem is the one that counts."""
        self._problem = self._problem or problem
