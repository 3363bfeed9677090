import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
from versioned import add, attempt

from protocol.feedback import Feedback, FeedbackBatch, read_feedback
from student.feedback_desk import FeedbackDesk, NotKept
from student.version_records import VersionRecord
from student.versions import Line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A line of one version."""
    with Line(tmp_path / "line") as line:
        add(line, attempt(1))
    return tmp_path / "line"


@pytest.fixture
def version(path: Path) -> VersionRecord:
    with Line(path) as line:
        return line.versions[1]


@pytest.fixture
def desk(path: Path) -> FeedbackDesk:
    return FeedbackDesk(path.parent / "feedback.jsonl", path)


def feedback(fingerprint: str, given: str = "visit-1", question: str = "What?") -> Feedback:
    told = {"version": fingerprint, "context": "c" * 32, "question": question, "kind": "thumb", "value": True, "time": 1_900_000_000}
    return Feedback.model_validate({**told, "id": given})


def batch(*rows: Feedback) -> FeedbackBatch:
    return FeedbackBatch(rows=rows)


def kept(path: Path) -> list[str]:
    """The ids in the file beside a line; every line of it is whole."""
    return [row.feedback.id for row in read_feedback(path.parent / "feedback.jsonl")]


def test_what_is_taken_reads_back_the_same(desk: FeedbackDesk, path: Path, version: VersionRecord) -> None:
    rows = [
        feedback(version.fingerprint, f"{number}", question)
        for number, question in enumerate(("What?", "one\u2028line\n\x00é", "x" * 10_000))
    ]
    assert desk.take(batch(*rows)).taken == 3
    assert [row.feedback for row in read_feedback(path.parent / "feedback.jsonl")] == rows


def test_rows_about_other_versions_are_refused_and_the_others_taken(desk: FeedbackDesk, path: Path, version: VersionRecord) -> None:
    receipt = desk.take(batch(feedback(version.base, "base"), feedback(version.fingerprint, "good"), feedback("f" * 32, "strange")))
    assert (receipt.taken, [refused.row for refused in receipt.refused]) == (1, [0, 2])
    assert receipt.refused[1].reason == (
        "version is ffffffffffffffffffffffffffffffff, which the line in use has not; give one that tutelage versions LINE --json tells"
    )
    assert kept(path) == ["good"]


def test_a_batch_of_which_nothing_is_taken_makes_no_file(desk: FeedbackDesk, path: Path) -> None:
    assert desk.take(batch(feedback("f" * 32))).taken == 0
    assert desk.take(batch()).refused == ()
    assert not (path.parent / "feedback.jsonl").exists()


def test_a_version_that_is_made_meanwhile_is_known(desk: FeedbackDesk, path: Path, version: VersionRecord) -> None:
    with Line(path) as line:
        assert desk.take(batch(feedback(version.fingerprint, "first"))).taken == 1
        second = add(line, attempt(2))
        assert desk.take(batch(feedback(second.fingerprint, "second"))).taken == 1
        line.rollback(1)
        assert desk.take(batch(feedback(second.fingerprint, "third"))).taken == 1
    assert kept(path) == ["first", "second", "third"]


def test_the_log_is_read_when_it_has_grown_and_not_for_every_stranger(
    desk: FeedbackDesk, path: Path, version: VersionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from student import feedback_desk

    reads, read = list[Path](), feedback_desk.read_line
    monkeypatch.setattr(feedback_desk, "read_line", lambda path: reads.append(path) or read(path))
    for _ in range(3):
        desk.take(batch(feedback(version.fingerprint), feedback("f" * 32)))
    assert len(reads) == 1
    with Line(path) as line:
        add(line, attempt(2))
    desk.take(batch(feedback(version.fingerprint)))
    assert len(reads) == 1
    desk.take(batch(feedback("f" * 32)))
    assert len(reads) == 2


@pytest.mark.parametrize("torn", ['{"protocol":1,"vers', "x" * 200_000])
def test_half_a_line_that_a_crash_has_left_damages_nothing(
    desk: FeedbackDesk, path: Path, version: VersionRecord, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.take(batch(feedback(version.fingerprint, "before")))
    with (path.parent / "feedback.jsonl").open("a") as file:
        file.write(torn)
    desk.take(batch(feedback(version.fingerprint, "after")))
    assert kept(path) == ["before", "after"]
    assert "torn line" in caplog.text


def test_many_at_once_tear_no_line(desk: FeedbackDesk, path: Path, version: VersionRecord) -> None:
    def send(client: int) -> None:
        for number in range(5):
            desk.take(batch(*(feedback(version.fingerprint, f"{client}-{number}-{row}", "x" * 1000) for row in range(4))))

    clients = [threading.Thread(target=send, args=(client,)) for client in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    found = kept(path)
    assert len(set(found)) == len(found) == 8 * 5 * 4
    batches = [found[start : start + 4] for start in range(0, len(found), 4)]
    assert all([id_.rpartition("-")[2] for id_ in together] == list("0123") for together in batches)


def test_a_disk_that_is_full_halfway_leaves_the_file_as_it_was(
    desk: FeedbackDesk, path: Path, version: VersionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.take(batch(feedback(version.fingerprint, "before")))
    write, wrote = os.write, list[int]()

    def fill(descriptor: int, content: memoryview) -> int:
        if wrote:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        wrote.append(write(descriptor, content[:10]))
        return wrote[0]

    monkeypatch.setattr("protocol.files.os.write", fill)
    with pytest.raises(
        NotKept, match=r"nothing was kept, since .*feedback\.jsonl cannot be written \(No space left on device\); make room"
    ):
        desk.take(batch(feedback(version.fingerprint, "lost")))
    assert kept(path) == ["before"]
    monkeypatch.undo()
    desk.take(batch(feedback(version.fingerprint, "after")))
    assert kept(path) == ["before", "after"]


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_line_that_cannot_be_read_is_told_and_nothing_is_kept(
    desk: FeedbackDesk, path: Path, version: VersionRecord, damage: str
) -> None:
    log = path / "versions.jsonl"
    content = log.read_text()
    if damage == "gone":
        shutil.rmtree(path)
    else:
        log.write_text(content.replace("Tola", "Tula"))
    with pytest.raises(NotKept, match=r"cannot be read which versions there are; send it again later \(.*versions\.jsonl"):
        desk.take(batch(feedback(version.fingerprint)))
    assert not (path.parent / "feedback.jsonl").exists()
    path.mkdir(exist_ok=True)
    log.write_text(content)
    assert desk.take(batch(feedback(version.fingerprint))).taken == 1
