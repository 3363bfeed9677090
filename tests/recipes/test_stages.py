from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from protocol.exchange import InProcessExchange
from protocol.journal import Journal, RewardRecord
from protocol.messages import (
    CommitRequest,
    Context,
    Limits,
    Refusal,
    RewardRequest,
    SelfEdit,
    StudentCard,
    Task,
    VersionCard,
    measurement_key,
)
from recipes.stages import score

TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
CARD = StudentCard(fingerprint="1" * 32, model="m", limits=Limits(), settings={}, domains={"knowledge": 1})
A, B, C, D = (RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,)) for title in "abcd")


class Refuser:
    """Refuses everything, and remembers what was put together and what of it was known."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], set[str]]] = []

    def describe(self) -> StudentCard:
        return CARD

    def score(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> Iterator[Sequence[Refusal]]:
        self.asked.append(([request.context.title for request in requests], set(known)))
        return ([refusal(request)] for request in requests if request.id not in known)

    def commit(self, request: CommitRequest) -> VersionCard:
        raise NotImplementedError


def refusal(request: RewardRequest) -> Refusal:
    return Refusal(key=measurement_key(CARD, request), request=request.id, reason="no")


def test_a_stage_that_goes_on_puts_the_same_requests_together(tmp_path: Path) -> None:
    journal, student = Journal(tmp_path / "journal.jsonl"), Refuser()
    journal.append(RewardRecord(stage="round-1", result=refusal(A)))  # by an earlier stage: stays out
    journal.append(RewardRecord(stage="round-2", result=refusal(C)))  # by this one, before a crash: keeps its place
    results = score(InProcessExchange(student), [A, B, None, C, D, B], "round-2", journal)
    assert student.asked == [(["b", "c", "d"], {C.id})]
    assert [result and result.request for result in results] == [A.id, B.id, None, C.id, D.id, B.id]


def test_a_finished_stage_asks_nothing(tmp_path: Path) -> None:
    journal, student = Journal(tmp_path / "journal.jsonl"), Refuser()
    score(InProcessExchange(student), [A, B], "round-1", journal)
    student.asked.clear()
    score(InProcessExchange(student), [B, A], "round-1", Journal(tmp_path / "journal.jsonl"))
    assert student.asked == []
