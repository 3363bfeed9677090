from pathlib import Path

from scripted import TASK, ScriptedStudent, refusal

from protocol.exchange import InProcessExchange
from protocol.journal import Journal, RewardRecord
from protocol.messages import (
    Context,
    RewardRequest,
    SelfEdit,
)
from recipes.stages import score

A, B, C, D = (RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,)) for title in "abcd")


def test_a_stage_that_goes_on_puts_the_same_requests_together(tmp_path: Path) -> None:
    journal, student = Journal(tmp_path / "journal.jsonl"), ScriptedStudent(refusal)
    journal.append(RewardRecord(stage="round-1", result=refusal(A)))  # by an earlier stage: stays out
    journal.append(RewardRecord(stage="round-2", result=refusal(C)))  # by this one, before a crash: keeps its place
    results = score(InProcessExchange(student), [A, B, None, C, D, B], "round-2", journal)
    assert student.asked == [([B, C, D], {C.id})]
    assert [result and result.request for result in results] == [A.id, B.id, None, C.id, D.id, B.id]


def test_a_finished_stage_asks_nothing(tmp_path: Path) -> None:
    journal, student = Journal(tmp_path / "journal.jsonl"), ScriptedStudent(refusal)
    score(InProcessExchange(student), [A, B], "round-1", journal)
    student.asked.clear()
    score(InProcessExchange(student), [B, A], "round-1", Journal(tmp_path / "journal.jsonl"))
    assert student.asked == []
