from collections.abc import Sequence

import pytest
from scripted import CARD, TASK, ScriptedStudent

from protocol.errors import TutelageError
from protocol.messages import Context, RewardRequest, SelfEdit, StudentCard
from protocol.remote import RemoteExchange
from protocol.wire import Results, Submission, Wanted


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


A, B, C = (request(title) for title in "abc")


class Forgetful:
    """A transport to a student that answers one request at a time, and forgets everything once."""

    def __init__(self) -> None:
        self.posted: list[Submission] = []
        self.cancelled: list[str] = []
        self._has_forgotten = False

    def describe(self) -> StudentCard:
        return CARD

    def post(self, submission: Submission) -> None:
        self.posted.append(submission)

    def fetch(self, wanted: Wanted) -> Results:
        if len(self.posted) == 1 and self._has_forgotten is False and wanted.ids[0] == B.id:
            self._has_forgotten = True
            return Results(unknown=wanted.ids)
        answers = {r.id: ScriptedStudent(lambda r: 0.5)._answer(r) for r in self.posted[-1].rewards}
        return Results(done=(answers[wanted.ids[0]],))

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids


def test_what_a_student_forgot_is_posted_again_just_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.remote._PAUSE", 0.0)
    transport = Forgetful()
    exchange = RemoteExchange(transport)
    exchange.submit([A, B, C], known=[C.id])
    assert [result.request for results in exchange.completed() for result in results] == [A.id, B.id]
    assert transport.posted == [Submission(rewards=(A, B, C), known=(C.id,))] * 2


def test_cancelled_requests_are_waited_for_no_more() -> None:
    transport = Forgetful()
    exchange = RemoteExchange(transport)
    exchange.submit([A, C])
    answers = exchange.completed()
    next(answers)
    exchange.cancel([A.id, C.id, "unknown"])
    assert list(answers) == []
    assert transport.cancelled == [C.id]


def test_more_than_the_protocol_carries_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.remote.MOST_IDS", 1)
    exchange = RemoteExchange(Forgetful())
    exchange.submit([A, B])
    with pytest.raises(TutelageError, match="2 self-edits at once are more than 1; take fewer contexts or candidates"):
        next(exchange.completed())
