"""What a service does when its student breaks down."""

import logging
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted import CARD, TASK, ScriptedStudent

from protocol.errors import InvalidInput, TutelageError
from protocol.journal import Journal
from protocol.messages import Context, Refusal, Reward, RewardRequest, SelfEdit
from protocol.wire import Result, Submission
from student.deaths import Deaths
from student.folder_desk import FolderDesk
from student.queue import Queue
from student.serving import Desk, serve


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


@pytest.fixture
def deaths(tmp_path: Path) -> Deaths:
    return Deaths(tmp_path / "deaths.json")


def break_down(request: RewardRequest) -> float:
    """A student that some requests break."""
    if request.context.title.startswith("poison"):
        raise ValueError("cannot take the logarithm of a duck")
    return 0.5


class Once:
    """A desk with one submission, that keeps what is delivered."""

    def __init__(self, *titles: str):
        self._left = [Submission(rewards=tuple(map(request, titles)))]
        self.delivered: list[Result] = []

    def take(self) -> Submission | None:
        return self._left.pop() if self._left else None

    def claim(self, ids: Sequence[str]) -> bool:
        return True

    def deliver(self, results: Sequence[Result]) -> None:
        self.delivered += results

    def finish(self) -> None:
        pass


def test_a_request_that_breaks_the_student_is_refused_and_the_others_are_answered(caplog: pytest.LogCaptureFixture, deaths: Deaths) -> None:
    desk = Once("a", "poison", "b", "c")
    with caplog.at_level(logging.ERROR):
        serve(ScriptedStudent(break_down), desk, deaths)
    a, poison, b, c = desk.delivered
    assert all(isinstance(result, Reward) and result.value == 0.5 for result in (a, b, c))
    assert isinstance(poison, Refusal)
    assert poison.ungraded
    assert poison.reason == "the student broke down over it (ValueError: cannot take the logarithm of a duck); its log says where"
    assert "ValueError: cannot take the logarithm of a duck" in caplog.text


def test_a_student_that_breaks_down_again_and_again_is_not_asked_any_more(deaths: Deaths) -> None:
    desk = Once("a", "poison 1", "poison 2", "poison 3", "b")
    with pytest.raises(ValueError, match="duck"):
        serve(ScriptedStudent(break_down), desk, deaths)
    assert [type(result) for result in desk.delivered] == [Reward, Refusal, Refusal]


def test_breakdowns_between_good_answers_are_outlived(deaths: Deaths) -> None:
    desk = Once("poison 1", "a", "poison 2", "b", "poison 3", "c", "poison 4")
    serve(ScriptedStudent(break_down), desk, deaths)
    assert [type(result) for result in desk.delivered] == [Refusal, Reward] * 3 + [Refusal]


def test_a_student_of_several_processes_ends_at_once(deaths: Deaths) -> None:
    desk = Once("a", "poison", "b")
    with pytest.raises(ValueError, match="duck"):
        serve(ScriptedStudent(break_down), desk, deaths, outlives=False)
    assert [type(result) for result in desk.delivered] == [Reward]


@pytest.mark.parametrize("error", [TutelageError("the disk is full"), OSError("the disk is full")])
def test_what_no_request_is_to_blame_for_is_not_refused(error: Exception, deaths: Deaths) -> None:
    def fail(request: RewardRequest) -> float:
        raise error

    desk = Once("a")
    with pytest.raises(type(error), match="the disk is full"):
        serve(ScriptedStudent(fail), desk, deaths)
    assert desk.delivered == []


def make_desk(kind: str, folder: Path, submission: Submission) -> Desk:
    if kind == "queue":
        queue = Queue(CARD, Journal(folder / "journal.jsonl"), most=10, gather=0.0)
        queue.submit(submission)
        return queue
    desk = FolderDesk(folder, CARD, "one", lease_seconds=60, max_bytes=10**6, most_answers=100)
    (folder / "submissions" / f"{submission.id}.json").write_text(submission.model_dump_json())
    return desk


@pytest.mark.parametrize("kind", ["queue", "folder"])
def test_what_was_claimed_is_answered_at_every_desk(kind: str, tmp_path: Path, deaths: Deaths) -> None:
    submission = Submission(rewards=tuple(map(request, ("poison", "a", "b"))))
    desk, delivered = make_desk(kind, tmp_path, submission), dict[str, str]()
    deliver = desk.deliver

    def deliver_and_stop(results: Sequence[Result]) -> None:
        deliver(results)
        delivered.update({result.request: type(result).__name__ for result in results})
        if len(delivered) == 3:
            desk.stop()  # type: ignore[attr-defined]

    desk.deliver = deliver_and_stop  # type: ignore[method-assign]
    serve(ScriptedStudent(break_down), desk, deaths)
    assert [delivered[request.id] for request in submission.rewards] == ["Refusal", "Reward", "Reward"]


def die(request: RewardRequest) -> float:
    if request.context.title.startswith("poison"):
        os._exit(9)
    return 0.5


def test_a_request_over_which_the_process_dies_is_tried_alone_and_then_refused(tmp_path: Path) -> None:
    """The same submission comes back as often as the service is started again."""
    told = tmp_path / "told"

    class Telling(Once):
        def deliver(self, results: Sequence[Result]) -> None:
            with told.open("a") as file:
                file.writelines((result.reason if isinstance(result, Refusal) else "rewarded") + "\n" for result in results)

    def serve_until_it_dies() -> None:
        serve(ScriptedStudent(die), Telling("a", "poison", "b"), Deaths(tmp_path / "deaths.json"))

    starts = []
    for _ in range(5):
        told.write_text("")
        process = multiprocessing.get_context("fork").Process(target=serve_until_it_dies)
        process.start()
        process.join()
        starts.append((process.exitcode, told.read_text().splitlines()))
    refused = "the student's process died 4 times while it answered this, last with nothing beside it"
    assert starts == [
        (9, ["rewarded"]),
        (9, ["rewarded"]),
        (9, ["rewarded", "rewarded"]),
        (9, ["rewarded", "rewarded"]),
        (0, ["rewarded", "rewarded", refused]),
    ]


def test_a_process_that_ends_as_it_should_has_died_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deaths.json"
    first = Deaths(path)
    first.begin(["a", "b"])
    assert Deaths(path).count("a") == 1
    first.end(["a"])
    assert (Deaths(path).count("a"), Deaths(path).count("b")) == (0, 1)
    first.stop()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"a": "often"}', "\x00"])
def test_a_damaged_list_of_deaths_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "deaths.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"deaths\.json is not as a student's service wrote it .* remove it"):
        Deaths(tmp_path / "deaths.json")
