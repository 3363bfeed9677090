import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import CARD, TASK, ScriptedStudent

from protocol.errors import InvalidInput, TutelageError
from protocol.folder_transport import FolderTransport, SharedFolder
from protocol.messages import AskRequest, CommitRequest, Context, Lesson, Reward, RewardRequest, SelfEdit, Update
from protocol.remote import RemoteExchange
from protocol.wire import Submission, Wanted
from student.deaths import Deaths
from student.folder_desk import FolderDesk
from student.serving import serve


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


class Worker:
    """A scripted student that serves a folder in a thread of its own."""

    def __init__(self, path: Path, name: str, lease_seconds: float = 60.0, max_bytes: int = 10**6):
        self.trained: list[str] = []
        self.slowly = 0.0
        self.student = ScriptedStudent(self._train)
        self.desk = FolderDesk(path, CARD, name, lease_seconds, max_bytes)
        self.deaths = Deaths(path.with_name(f"{path.name}-{name}-deaths.json"))
        self._thread = threading.Thread(target=self._run)

    def _train(self, request: RewardRequest) -> float:
        time.sleep(self.slowly)
        self.trained.append(request.context.title)
        return 0.5

    def _run(self) -> None:
        with self.desk:
            serve(self.student, self.desk, self.deaths)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.desk.stop()
        self._thread.join()


def score(path: Path, *titles: str, patience: float = 10.0) -> list[str]:
    exchange = RemoteExchange(FolderTransport(path, patience))
    requests = {request(title).id: title for title in titles}
    exchange.submit([request(title) for title in titles])
    return sorted(requests[result.request] for results in exchange.completed() for result in results if isinstance(result, Reward))


def files(path: Path) -> dict[str, int]:
    return {name: len(list((path / name).iterdir())) for name in ("submissions", "results", "leases", "students", "refused")}


def test_an_exchange_by_folder_is_as_one_in_process_and_leaves_only_results(tmp_path: Path) -> None:
    with Worker(tmp_path, "one") as worker:
        exchange = RemoteExchange(FolderTransport(tmp_path))
        assert exchange.describe() == CARD
        assert score(tmp_path, "b", "a") == ["a", "b"]
        assert score(tmp_path, "a", "b") == ["a", "b"]
        ask = AskRequest(task=TASK, context=Context(title="Ada"))
        assert [result.request for results in exchange.ask([ask]) for result in results] == [ask.id]
        commit = CommitRequest(task=TASK, lessons=(Lesson(context=Context(title="yes"), edit=SelfEdit()),), seed=0)
        assert exchange.commit(commit).request == commit.id
    assert worker.trained == ["b", "a"]
    assert files(tmp_path) == {"submissions": 0, "results": 4, "leases": 0, "students": 0, "refused": 0}


def test_students_share_the_cohorts_of_one_submission(tmp_path: Path) -> None:
    with Worker(tmp_path, "one") as one, Worker(tmp_path, "two") as two:
        one.slowly = two.slowly = 0.05
        titles = [f"{number:02d}" for number in range(40)]
        assert score(tmp_path, *titles) == titles
    assert sorted(one.trained + two.trained) == titles, "each once"
    assert min(len(one.trained), len(two.trained)) > 5


def test_the_work_of_a_student_that_died_is_taken_over(tmp_path: Path) -> None:
    dead = FolderDesk(tmp_path, CARD, "dead", 60.0, 10**6)
    FolderTransport(tmp_path).post(Submission(rewards=(request("a"), request("b"))))
    assert dead.take() is not None
    assert dead.claim([request("a").id])
    with Worker(tmp_path, "heir", lease_seconds=0.5) as heir:
        started = time.monotonic()
        assert score(tmp_path, "a", "b") == ["a", "b"]
        assert time.monotonic() - started > 0.4
    assert sorted(heir.trained) == ["a", "b"]


def test_a_lease_that_is_renewed_is_respected_whatever_the_clock_says(tmp_path: Path) -> None:
    holder = FolderDesk(tmp_path, CARD, "holder", 0.5, 10**6)
    FolderTransport(tmp_path).post(Submission(rewards=(request("a"),)))
    with holder:
        assert holder.take() is not None
        assert holder.claim([request("a").id])
        (lease,) = (tmp_path / "leases").iterdir()
        os.utime(lease, (0, 0))  # as of a clock that jumped
        with Worker(tmp_path, "other", lease_seconds=0.5) as other:
            time.sleep(1.5)
            assert files(tmp_path)["results"] == 0
            holder.deliver([holder_result()])
            assert score(tmp_path, "a") == ["a"]
    assert other.trained == []


def holder_result() -> Reward:
    reward = ScriptedStudent(lambda request: 0.5)._answer(request("a"))
    assert isinstance(reward, Reward)
    return reward


def test_of_two_heirs_one_succeeds_and_nobody_removes_anothers_lease(tmp_path: Path) -> None:
    FolderTransport(tmp_path).post(Submission(rewards=(request("a"),)))
    dead, one, two = (FolderDesk(tmp_path, CARD, name, 0.1, 10**6) for name in ("dead", "one", "two"))
    for desk in (dead, one, two):
        assert desk.take() is not None
    assert dead.claim([request("a").id])
    (lease,) = (tmp_path / "leases").iterdir()
    for desk in (one, two):
        assert not desk.claim([request("a").id])
    time.sleep(0.2)
    two._watch.unchanged_for(lease)
    assert one.claim([request("a").id])
    two._take_over(lease)  # it had looked before
    assert lease.read_bytes().startswith(b"one ")
    with dead:
        pass
    assert lease.read_bytes().startswith(b"one ")
    assert not two.claim([request("a").id])


def test_a_lost_lease_does_not_keep_others_from_being_renewed(tmp_path: Path) -> None:
    desk = FolderDesk(tmp_path, CARD, "one", 0.5, 10**6)
    FolderTransport(tmp_path).post(Submission(rewards=(request("a"), request("b"))))
    assert desk.take() is not None
    assert desk.claim([request("a").id]) and desk.claim([request("b").id])
    lost, kept = (tmp_path / "leases" / f"{Submission(rewards=(request('a'), request('b'))).id}-{request(t).id}" for t in "ab")
    lost.unlink()
    before = kept.read_bytes()
    with desk:
        time.sleep(0.3)
        assert kept.read_bytes() != before
        assert not lost.exists()


def test_two_teachers_may_want_the_same_and_know_different_parts(tmp_path: Path) -> None:
    wanted = Submission(rewards=(request("a"), request("b")))
    first, second = FolderTransport(tmp_path), FolderTransport(tmp_path)
    first.post(wanted)
    second.post(wanted.model_copy(update={"known": (request("a").id,)}))
    with Worker(tmp_path, "one"):
        while len(first.fetch(Wanted(ids=(request("a").id, request("b").id), wait=5)).done) < 2:
            pass
    assert files(tmp_path)["results"] == 2


def test_a_result_that_cannot_be_read_is_written_again(tmp_path: Path) -> None:
    desk = FolderDesk(tmp_path, CARD, "one", 60.0, 10**6)
    path = SharedFolder(tmp_path).result(CARD, request("a").id)
    path.symlink_to(tmp_path / "nowhere")
    desk.deliver([holder_result()])
    assert not path.is_symlink()
    assert FolderTransport(tmp_path).fetch(Wanted(ids=(request("a").id,))).done == (holder_result(),)


def test_a_student_that_stops_in_good_order_returns_its_leases(tmp_path: Path) -> None:
    desk = FolderDesk(tmp_path, CARD, "one", 60.0, 10**6)
    FolderTransport(tmp_path).post(Submission(rewards=(request("a"),)))
    with desk:
        assert desk.take() is not None
        assert desk.claim([request("a").id])
    assert files(tmp_path) == {"submissions": 1, "results": 0, "leases": 0, "students": 0, "refused": 0}


def test_the_first_result_is_the_result(tmp_path: Path) -> None:
    desk = FolderDesk(tmp_path, CARD, "one", 60.0, 10**6)
    desk.deliver([holder_result()])
    desk.deliver([holder_result().model_copy(update={"value": 1.0})])
    with Worker(tmp_path, "two"):
        exchange = RemoteExchange(FolderTransport(tmp_path))
        exchange.submit([request("a")])
        (results,) = exchange.completed()
    assert [result.value for result in results if isinstance(result, Reward)] == [0.5]


def test_a_cancelled_request_is_not_trained(tmp_path: Path) -> None:
    transport = FolderTransport(tmp_path)
    transport.post(Submission(rewards=(request("a"), request("b"))))
    transport.cancel([request("a").id])
    other = FolderTransport(tmp_path)
    other.post(Submission(rewards=(request("c"), request("d"))))
    transport.cancel([request("c").id])  # which it has not asked for
    with Worker(tmp_path, "one") as worker:
        while files(tmp_path)["results"] < 3:
            time.sleep(0.01)
    assert worker.trained == ["b", "c", "d"]


def test_another_student_cannot_join(tmp_path: Path) -> None:
    FolderDesk(tmp_path, CARD, "one", 60.0, 10**6)
    with pytest.raises(InvalidInput, match=r"is served by another student .*; serve another folder, or remove its student.json"):
        FolderDesk(tmp_path, CARD.model_copy(update={"fingerprint": "3" * 32}), "two", 60.0, 10**6)


def hostile(path: Path) -> Iterator[Path]:
    """What a stranger may put there."""
    good = Submission(rewards=(request("a"),))
    folder = path / "submissions"
    for name, content in (
        ("0" * 32 + ".json", b"{"),
        ("1" * 32 + ".json", b"[" * 100_000),
        ("2" * 32 + ".json", good.model_dump_json().encode()),
        ("3" * 32 + ".json", b" " * 2_000_000),
        ("4" * 32 + ".json", b"\xff\xfe\x00"),
        ("5" * 32 + ".json", good.model_dump_json().replace('"edit":{', '"edit":{"run":"rm -rf /",').encode()),
        ("x.json", good.model_dump_json().encode()),
    ):
        (folder / name).write_bytes(content)
        yield folder / name
    (folder / ("6" * 32 + ".json")).symlink_to("/etc/passwd")
    yield folder / ("6" * 32 + ".json")
    os.mkfifo(folder / ("7" * 32 + ".json"))
    yield folder / ("7" * 32 + ".json")
    (folder / ("8" * 32 + ".json")).mkdir()


def test_what_is_no_submission_is_put_aside_with_the_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    FolderDesk(tmp_path, CARD, "maker", 60.0, 10**6)
    strange = list(hostile(tmp_path))
    with Worker(tmp_path, "one") as worker:
        assert score(tmp_path, "b") == ["b"]
        while any(path.exists() or path.is_symlink() for path in strange):
            time.sleep(0.01)
    reasons = {path.name[0]: path.read_text() for path in (tmp_path / "refused").iterdir()}
    assert sorted(reasons) == list("012345678")
    assert reasons["3"] == "it has more than 1000000 bytes; send less at once, or raise max_body_mb"
    assert reasons["2"].startswith("its name is not its id, ")
    assert "rewards.0.edit.run: Extra inputs are not permitted" in reasons["5"]
    assert Path("/etc/passwd").exists()
    assert worker.trained == ["b"]


def test_a_teacher_hears_why_its_submission_is_refused(tmp_path: Path) -> None:
    edit = SelfEdit(update=Update(epochs=3))
    with Worker(tmp_path, "one", max_bytes=100):
        exchange = RemoteExchange(FolderTransport(tmp_path, patience=5.0))
        exchange.submit([request("a").model_copy(update={"edit": edit})])
        with pytest.raises(InvalidInput, match="refuses a submission: it has more than 100 bytes"):
            list(exchange.completed())


def test_a_folder_without_a_living_student_is_given_up_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match=r"no student serves folder:.*; start one with tutelage serve RECIPE folder="):
        FolderTransport(tmp_path, patience=0.1).describe()
    with Worker(tmp_path, "one"):
        pass
    with pytest.raises(TutelageError, match="has shown a sign of life for 1 s; start one, and the same command goes on"):
        score(tmp_path, "a", patience=1.0)


def test_the_sign_of_a_dead_student_is_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    with Worker(tmp_path, "one", lease_seconds=0.1), Worker(tmp_path, "two", lease_seconds=0.1):
        signs = tmp_path / "students"
        (signs / "dead").write_bytes(b"dead 1")
        while (signs / "dead").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        assert {path.name for path in signs.iterdir() if not path.name.startswith(".")} == {"one", "two"}


def test_names_in_the_folder_are_the_messages_ids(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    assert shared.submission("a" * 32) == tmp_path / "submissions" / ("a" * 32 + ".json")
    assert shared.result(CARD, request("a").id).parent == tmp_path / "results"
