"""A student that does what a test tells it to, where only what comes of its answers matters."""

from collections.abc import Callable, Collection, Iterator, Sequence

from protocol.errors import InnerLoopFailed
from protocol.exchange import Take
from protocol.messages import (
    Answers,
    AskRequest,
    Change,
    CommitRequest,
    Limits,
    Outcome,
    Refusal,
    Reward,
    RewardRequest,
    StudentCard,
    Task,
    VersionCard,
    measurement_key,
)

TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
CARD = StudentCard(fingerprint="1" * 32, model="m", limits=Limits(), settings={}, domains={"knowledge": 1}, graders={"exact_match": 1})
WRONG, RIGHT = (Outcome(answer="", correct=False),), (Outcome(answer="", correct=True),)

Pay = Callable[[RewardRequest], float | Change | Refusal]
"""What a request is worth, or what it changed, whose accuracy is then its worth; or why it has no reward."""


def refusal(request: RewardRequest, ungraded: bool = False) -> Refusal:
    return Refusal(key=measurement_key(CARD, request), request=request.id, reason="no", ungraded=ungraded)


def reward(request: RewardRequest, change: Change, value: float | None = None, **more: float) -> Reward:
    return Reward(
        key=measurement_key(CARD, request),
        request=request.id,
        context=request.context.id,
        edit=request.edit.id,
        student=CARD.fingerprint,
        value=change.adapted_accuracy if value is None else value,
        change=change,
        gained=change.gained,
        lost=change.lost,
        seeds=request.seeds,
        **{"seconds": 0.0, "trained_tokens": 1, **more},  # type: ignore[arg-type]
    )


class ScriptedStudent:
    """Pays by a script, and remembers which requests were put together and what of them was known. A cohort is one request.

    Its base answers "". A lasting update changes nothing; one about a context that is titled "no" is refused.
    """

    def __init__(self, pay: Pay):
        self._pay = pay
        self.asked: list[tuple[list[RewardRequest], set[str]]] = []

    def describe(self) -> StudentCard:
        return CARD

    def score(
        self, requests: Sequence[RewardRequest], known: Collection[str] = (), take: Take | None = None
    ) -> Iterator[Sequence[Reward | Refusal]]:
        self.asked.append((list(requests), set(known)))
        wanted = (request for request in requests if request.id not in known)
        return ([self._answer(request)] for request in wanted if take is None or take([request.id]))

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        for request in requests:
            yield [Answers(key=measurement_key(CARD, request), request=request.id, student=CARD.fingerprint, outcomes=WRONG)]

    def _answer(self, request: RewardRequest) -> Reward | Refusal:
        paid = self._pay(request)
        if isinstance(paid, Refusal):
            return paid
        if isinstance(paid, Change):
            return reward(request, paid)
        return reward(request, Change(base=WRONG, adapted=(WRONG,)), paid)

    def commit(self, request: CommitRequest) -> VersionCard:
        if any(lesson.context.title == "no" for lesson in request.lessons):
            raise InnerLoopFailed("no")
        return VersionCard(
            key=measurement_key(CARD, request),
            request=request.id,
            parent=CARD.fingerprint,
            fingerprint="2" * 32,
            path="nowhere",
            changes=(),
            seconds=0.0,
            trained_tokens=1,
        )
