from collections.abc import Collection, Iterator, Sequence

import pytest

from protocol.exchange import InProcessExchange
from protocol.messages import (
    CommitRequest,
    Context,
    Limits,
    Refusal,
    RewardRequest,
    SelfEdit,
    StudentCard,
    Task,
    Update,
    VersionCard,
    measurement_key,
)

TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
CARD = StudentCard(fingerprint="1" * 32, model="m", limits=Limits(), settings={"learning_rate": 1e-3}, domains={"knowledge": 1})


class Refuser:
    """A student that refuses everything and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def describe(self) -> StudentCard:
        return CARD

    def score(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> Iterator[Sequence[Refusal]]:
        for request in requests:
            self.asked.append(request.id)
            if request.id not in known:
                yield [Refusal(key=measurement_key(CARD, request), request=request.id, reason="no")]

    def commit(self, request: CommitRequest) -> VersionCard:
        raise NotImplementedError


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


def test_results_come_in_the_order_submitted_and_once_each() -> None:
    student = Refuser()
    exchange = InProcessExchange(student)
    exchange.submit([request("a"), request("b"), request("a")])
    assert [result.request for results in exchange.completed() for result in results] == [request("a").id, request("b").id]
    assert list(exchange.completed()) == []


def test_a_cancelled_request_is_not_scored() -> None:
    student = Refuser()
    exchange = InProcessExchange(student)
    exchange.submit([request("a"), request("b")])
    exchange.cancel([request("a").id, "unknown"])
    assert [result.request for results in exchange.completed() for result in results] == [request("b").id]
    assert student.asked == [request("b").id]


def test_a_request_cancelled_while_others_are_scored_gets_no_answer() -> None:
    exchange = InProcessExchange(Refuser())
    exchange.submit([request("a"), request("b"), request("c")])
    results = exchange.completed()
    next(results)
    exchange.cancel([request("b").id])
    assert [result.request for some in results for result in some] == [request("c").id]


def test_a_request_may_come_again_even_while_others_are_scored() -> None:
    exchange = InProcessExchange(Refuser())
    exchange.submit([request("a"), request("b")], known=[request("b").id])
    results = exchange.completed()
    assert next(results)[0].request == request("a").id
    exchange.submit([request("a"), request("b")])
    assert [result.request for some in results for result in some] == [request("a").id, request("b").id]


def test_a_known_request_keeps_its_place_and_gets_no_answer() -> None:
    student = Refuser()
    exchange = InProcessExchange(student)
    exchange.submit([request("a"), request("b")], known=[request("a").id])
    assert [result.request for results in exchange.completed() for result in results] == [request("b").id]
    assert student.asked == [request("a").id, request("b").id]


@pytest.mark.parametrize(
    "other",
    [
        CARD.model_copy(update={"fingerprint": "2" * 32}),
        CARD.model_copy(update={"settings": {"learning_rate": 2e-3}}),
        CARD.model_copy(update={"limits": Limits(max_rank=1)}),
    ],
)
def test_whatever_could_change_a_reward_changes_its_key(other: StudentCard) -> None:
    assert measurement_key(CARD, request("a")) != measurement_key(other, request("a"))


def test_edit_seed_task_and_probes_change_the_key() -> None:
    base = request("a")
    others = [
        base.model_copy(update={"edit": SelfEdit(update=Update(epochs=3))}),
        base.model_copy(update={"seeds": (2,)}),
        base.model_copy(update={"task": TASK.model_copy(update={"domain_version": 2})}),
        base.model_copy(update={"probes": (Context(title="p"),)}),
    ]
    assert len({measurement_key(CARD, r) for r in (base, *others)}) == 5
