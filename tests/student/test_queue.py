import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted import CARD, TASK, ScriptedStudent, refusal

from protocol.errors import TutelageError
from protocol.files import write_manifest
from protocol.journal import Journal, RewardRecord
from protocol.messages import (
    AskRequest,
    CommitRequest,
    Context,
    Lesson,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    VersionCard,
    measurement_key,
)
from protocol.wire import Submission
from student.deaths import Deaths
from student.queue import POOL, Queue, QueueFull
from student.serving import serve


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


A, B, C, D = (request(title) for title in "abcd")


class Desk:
    """A queue, and a student that answers it when it is told to."""

    def __init__(self, folder: Path, most: int = 100, gather: float = 0.0):
        self.student = ScriptedStudent(lambda request: refusal(request) if request.context.title == "d" else 0.5)
        self.journal = Journal(folder / "journal.jsonl")
        self.queue = Queue(CARD, self.journal, most, gather=gather)
        self.deaths = Deaths(folder / "deaths")

    def submit(self, *requests: RewardRequest, known: Sequence[str] = ()) -> None:
        self.queue.submit(Submission(rewards=requests, known=tuple(known)))

    def answer(self) -> list[list[str]]:
        """Have everything answered that waits; returns the titles of what was trained together."""
        done = threading.Thread(target=serve, args=(self.student, self.queue, self.deaths))
        done.start()
        while self.queue.size:
            time.sleep(0.01)
        self.queue.stop()
        done.join()
        return [[request.context.title for request in requests] for requests, _ in self.student.asked]

    def results(self, *requests: RewardRequest) -> dict[str, str]:
        names = {request.id: request.context.title for request in requests}
        return {names[result.request]: type(result).__name__ for result in self.queue.results(list(names)).done}


def test_a_submission_is_put_together_in_its_order_and_answered_from_the_journal(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(B, A, D)
    assert desk.queue.results([A.id]).done == ()
    assert desk.answer() == [["b", "a", "d"]]
    assert desk.results(A, B, D) == {"a": "Reward", "b": "Reward", "d": "Refusal"}
    again = Desk(tmp_path)
    assert again.results(A, B, D) == {"a": "Reward", "b": "Reward", "d": "Refusal"}
    again.submit(A, D)
    assert again.queue.size == 0
    assert again.queue.counts.repeated == 2


def test_what_is_neither_waiting_nor_answered_is_unknown(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A)
    assert desk.queue.results([A.id, B.id]).unknown == (B.id,)


def test_requests_that_come_alone_are_pooled_and_others_are_not(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A)
    desk.submit(B, C)
    desk.submit(D)
    assert desk.answer() == [["a", "d"], ["b", "c"]]
    assert {desk.journal.scored_in[measurement_key(CARD, r)] == POOL for r in (A, D)} == {True}


def test_a_request_that_comes_alone_waits_for_company(tmp_path: Path) -> None:
    desk = Desk(tmp_path, gather=0.5)
    threading.Timer(0.1, lambda: desk.submit(B)).start()
    desk.submit(A)
    assert desk.answer() == [["a", "b"]]


def test_a_request_in_two_submissions_is_trained_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A, B)
    desk.submit(B, C)
    desk.submit(A, B)
    assert desk.answer() == [["a", "b"], ["c"]]
    assert desk.results(A, B, C) == {"a": "Reward", "b": "Reward", "c": "Reward"}


def test_after_a_crash_a_submission_makes_the_same_cohorts_without_answering_twice(tmp_path: Path) -> None:
    first = Desk(tmp_path)
    first.submit(A, B, C)
    submission = Submission(rewards=(A, B, C))
    done = first.student._answer(B)
    first.journal.append(RewardRecord(stage=submission.id, result=done))
    again = Desk(tmp_path)
    again.submit(A, B, C)
    assert again.answer() == [["a", "b", "c"]]
    assert again.student.asked[0][1] == {B.id}
    assert again.queue.counts.rewards == 2


def test_what_a_teacher_knows_keeps_its_place_and_is_not_answered(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A, B, C, known=[B.id])
    assert desk.answer() == [["a", "b", "c"]]
    assert desk.results(A, B, C) == {"a": "Reward", "c": "Reward"}


def test_a_cancelled_request_is_not_trained(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A, B)
    desk.queue.cancel([A.id])
    assert desk.answer() == [["b"]]


def test_a_cancelled_request_may_be_submitted_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A, B)
    desk.queue.cancel([A.id, "0" * 32])
    assert desk.queue.results([A.id]).unknown == (A.id,)
    desk.submit(A, C)
    assert desk.answer() == [["a", "b"], ["c"]]


def test_a_full_queue_says_when_to_come_back_and_a_huge_submission_that_it_never_fits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most=2)
    desk.submit(A, B)
    with pytest.raises(QueueFull, match="2 requests wait already, and 2 may; try again in") as caught:
        desk.submit(C)
    assert 1 <= caught.value.retry_after <= 60
    with pytest.raises(QueueFull):
        desk.submit(B, A)  # what waits twice is held twice
    with pytest.raises(TutelageError, match="has 3 requests, and 2 may wait; send fewer, or raise max_waiting"):
        desk.submit(A, C, D)
    assert desk.queue.size == 2


def test_a_stopping_queue_lets_nothing_in(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.queue.stop()
    with pytest.raises(QueueFull, match="the service is stopping"):
        desk.submit(A)
    assert desk.queue.take() is None


def test_a_stopping_student_takes_up_nothing_more_of_a_submission(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.submit(A, B, C)
    answer = desk.student._answer

    def stop_after(request: RewardRequest) -> Reward | Refusal:
        desk.queue.stop()
        return answer(request)

    desk.student._answer = stop_after  # type: ignore[method-assign]
    serve(desk.student, desk.queue, desk.deaths)
    assert desk.results(A, B, C) == {"a": "Reward"}
    assert desk.queue.size == 2


def test_what_this_student_cannot_read_is_refused_and_not_remembered(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    later = A.model_copy(update={"task": TASK.model_copy(update={"grader_version": 9})})
    with pytest.raises(TutelageError, match=r"grader exact_match v9 is asked for, but this student has exact_match v1; ask for that"):
        desk.submit(later)
    assert desk.queue.results([later.id]).unknown == (later.id,)


def test_a_refused_lasting_update_is_tried_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    bad = CommitRequest(task=TASK, lessons=(Lesson(context=Context(title="no"), edit=SelfEdit()),), seed=0)
    desk.queue.submit(Submission(commits=(bad,)))
    desk.answer()
    assert len(desk.queue.results([bad.id]).done) == 1
    again = Desk(tmp_path)
    again.queue.submit(Submission(commits=(bad,)))
    assert again.queue.size == 1


def test_questions_and_lasting_updates_are_answered_too(tmp_path: Path) -> None:
    desk, context = Desk(tmp_path), Context(title="Ada")
    ask = AskRequest(task=TASK, context=context)
    good, bad = (
        CommitRequest(task=TASK, lessons=(Lesson(context=Context(title=title), edit=SelfEdit()),), seed=0) for title in ("yes", "no")
    )
    desk.queue.submit(Submission(asks=(ask,), commits=(good, bad)))
    desk.answer()
    kinds = [type(result).__name__ for result in desk.queue.results([ask.id, bad.id]).done]
    assert kinds == ["Answers", "Refusal"]
    assert desk.queue.results([good.id]).unknown == (good.id,), "a version whose folder is gone is made again"


def test_a_version_is_found_while_its_folder_is_whole(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    commit = CommitRequest(task=TASK, lessons=(Lesson(context=Context(title="yes"), edit=SelfEdit()),), seed=0)
    (tmp_path / "version").mkdir()
    write_manifest(tmp_path / "version")
    made = desk.student.commit(commit)
    desk.student.commit = lambda request: made.model_copy(update={"path": str(tmp_path / "version")})  # type: ignore[method-assign]
    desk.queue.submit(Submission(commits=(commit,)))
    desk.answer()
    (found,) = Desk(tmp_path).queue.results([commit.id]).done
    assert isinstance(found, VersionCard)


def test_a_reply_holds_no_more_than_fits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most=1000)
    many = [request(str(number)) for number in range(600)]
    desk.submit(*many)
    desk.answer()
    assert len(desk.queue.results([r.id for r in many]).done) == 500
    assert all(isinstance(result, Reward | Refusal) for result in desk.queue.results([r.id for r in many]).done)


def test_a_large_submission_that_found_no_room_is_let_in_before_small_ones(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most=2)
    desk.submit(A)
    with pytest.raises(QueueFull):
        desk.submit(B, C)
    with pytest.raises(QueueFull):
        desk.submit(D)
    assert desk.answer() == [["a"]]
    again = Desk(tmp_path, most=2)
    again.queue._first = desk.queue._first
    again.submit(B, C)
    assert again.answer() == [["b", "c"]]


def test_nobody_waits_for_a_large_submission_that_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, most=2)
    desk.submit(A)
    with pytest.raises(QueueFull) as caught:
        desk.submit(B, C)
    later = time.monotonic() + 2 * caught.value.retry_after + 1
    monkeypatch.setattr("student.queue.time.monotonic", lambda: later)
    desk.submit(D)
    assert desk.queue.size == 2


def test_why_a_lasting_update_was_refused_is_not_remembered_for_ever(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most=2000)
    commits = tuple(CommitRequest(task=TASK, lessons=(Lesson(context=Context(title="no"), edit=SelfEdit()),), seed=n) for n in range(1010))
    for start in range(0, len(commits), 64):
        desk.queue.submit(Submission(commits=commits[start : start + 64]))
    desk.answer()
    assert desk.queue.results([commits[0].id]).unknown == (commits[0].id,)
    assert len(desk.queue.results([commit.id for commit in commits[-500:]]).done) == 500
