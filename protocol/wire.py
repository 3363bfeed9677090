"""What exchanges between processes say to each other, beside the messages that they carry.

Work crosses as *submissions*: requests in an order, which a student puts into cohorts just so, wherever it is. Results are asked for by the
requests' ids, as often as one likes: whoever lost a reply, or crashed, asks again, and nothing is computed twice.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from protocol.identity import content_id
from protocol.messages import (
    PROTOCOL_VERSION,
    Answers,
    AskRequest,
    CommitRequest,
    Id,
    Message,
    Reason,
    Refusal,
    Reward,
    RewardRequest,
    StudentCard,
    Task,
    VersionCard,
)

API: Final = f"/v{PROTOCOL_VERSION}"
"""What every address of a student's service begins with."""
MOST_IDS: Final = 20_000
_MOST_PROBLEMS: Final = 10_000
LONGEST_WAIT: Final = 30.0
"""Seconds that an answer may be waited for in one go."""

Request = RewardRequest | AskRequest | CommitRequest
Result = Reward | Answers | VersionCard | Refusal
"""Each names the request that it answers."""

Ids = Annotated[tuple[Id, ...], Field(max_length=MOST_IDS)]


class Submission(Message):
    """Requests to a student. Rewards are computed in cohorts composed of this submission alone, in this order.

    Attributes:
        known: Ids among `rewards` that get no answer: they keep their places in their cohorts, which decide the last bits of others.
    """

    version: Literal[1] = PROTOCOL_VERSION
    rewards: Annotated[tuple[RewardRequest, ...], Field(max_length=MOST_IDS)] = ()
    asks: Annotated[tuple[AskRequest, ...], Field(max_length=MOST_IDS)] = ()
    commits: Annotated[tuple[CommitRequest, ...], Field(max_length=64)] = ()
    known: Ids = ()

    @property
    def requests(self) -> tuple[Request, ...]:
        return (*self.rewards, *self.asks, *self.commits)

    @property
    def tasks(self) -> list[Task]:
        """The different ones of its requests."""
        return list({request.task.model_dump_json(): request.task for request in self.requests}.values())

    @property
    def id(self) -> str:
        """Of the requests in their order: it is the same submission whatever of it is known."""
        return content_id("Submission", [request.id for request in self.requests])


class Wanted(Message):
    """Which requests' results are wanted.

    Attributes:
        wait: Seconds to wait until there is one.
    """

    version: Literal[1] = PROTOCOL_VERSION
    ids: Annotated[Ids, Field(min_length=1)]
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = 0.0


class Results(Message):
    """Results so far; those that are still waited for are not mentioned.

    Attributes:
        unknown: Ids that are neither answered nor waited for: submit them again.
    """

    version: Literal[1] = PROTOCOL_VERSION
    done: tuple[Result, ...] = ()
    unknown: Ids = ()


class Cancellation(Message):
    """Requests that nobody waits for any more."""

    version: Literal[1] = PROTOCOL_VERSION
    ids: Ids


class Problem(Message):
    """Why something was refused, in words."""

    detail: Reason


def tell_problem(error: ValidationError, whole: str) -> str:
    """The first thing that is wrong with a message, and where; `whole` names all of it. Its value is not repeated: it may be anything."""
    if error.error_count() > _MOST_PROBLEMS:  # which take long to list
        return f"{whole}: {error.error_count()} keys and values are wrong"
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))[:200]
    return f"{place or whole}: {problem['msg'][:500]}"


def find_obstacle(card: StudentCard, submission: Submission, most_answers: int) -> str | None:
    """Why a student does not take a submission, if there is a reason, and what to do about it."""
    if strange := find_strange_task(card, submission.tasks):
        return f"{strange}; ask for that"
    answers = max(map(count_answers, submission.requests), default=0)
    if answers > most_answers:
        return f"a request asks for {answers} answers, and this service gives {most_answers}; ask fewer questions, or raise max_answers"
    return None


def count_answers(request: Request) -> int:
    """How many a request asks for: its questions, those of its probes too, once per seed."""
    match request:
        case RewardRequest():
            contexts, repeats = (request.context, *request.probes), len(request.seeds)
        case AskRequest():
            contexts, repeats = (request.context,), 1
        case CommitRequest():
            contexts, repeats = tuple(lesson.context for lesson in request.lessons), 1
    return repeats * sum(len(context.questions) for context in contexts)


def find_strange_task(card: StudentCard, tasks: Iterable[Task]) -> str | None:
    """Why a student cannot read requests: they name a domain or a grader that it has not. That may change, so it is no result."""
    for task in tasks:
        for kind, name, version, known in (
            ("domain", task.domain, task.domain_version, card.domains),
            ("grader", task.grader, task.grader_version, card.graders),
        ):
            if known.get(name) != version:
                offered = ", ".join(f"{n} v{v}" for n, v in known.items())
                return f"{kind} {name} v{version} is asked for, but this student has {offered or 'none'}"
    return None
