"""A full disk ends a run with a message; with room made, the same command goes on and nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import CARD, TASK, ScriptedStudent
from small_disk import mounted
from versioned import add, attempt

from protocol.errors import TutelageError
from protocol.feedback import Feedback, FeedbackBatch
from protocol.journal import CandidateRecord, Journal
from protocol.messages import Context, RewardRequest, SelfEdit
from protocol.wire import Submission
from student.deaths import Deaths
from student.feedback_desk import FeedbackDesk, NotKept
from student.queue import Queue
from student.serving import serve
from student.versions import Line

ROOT = Path(__file__).parents[1]
WORDS = (
    "run recipes/tiny/train_teacher.yaml name=train rounds=1 contexts_per_round=2 candidates=4 student.epochs=2 finetune.save_every=1 "
    "teacher.max_new_tokens=60"
).split()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB: room for a journal, but for no checkpoint."""
    with mounted(tmp_path / "disk", 1500) as disk:
        yield disk


def run(disk: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipes.cli", *WORDS, f"runs={disk}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_disk_that_is_full_while_saving_loses_nothing_that_was_journaled(small_disk: Path) -> None:
    failed = run(small_disk)
    assert failed.returncode == 1
    assert "tutelage: the disk is full" in failed.stderr and "the same command goes on" in failed.stderr
    assert "Traceback" not in failed.stderr
    journal = (small_disk / "train" / "journal.jsonl").read_bytes()
    assert journal.count(b'"kind":"reward"') > 0 and journal.count(b'"kind":"selection"') == 1
    assert not (small_disk / "train" / "teacher" / "round-1").exists()
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    done = run(small_disk)
    assert done.returncode == 0, done.stderr
    after = (small_disk / "train" / "journal.jsonl").read_bytes()
    assert after.startswith(journal) and after.count(b'"kind":"reward"') == journal.count(b'"kind":"reward"')
    assert (small_disk / "train" / "report.json").exists()


def test_a_batch_that_does_not_fit_leaves_the_journal_as_it_was(small_disk: Path) -> None:
    journal = Journal(small_disk / "journal.jsonl")
    candidate = CandidateRecord(stage="round-1", context="0" * 32, index=0, seed=1, text="a line")
    journal.append(candidate)
    before = journal.path.read_bytes()
    large = candidate.model_copy(update={"index": 1, "text": "x" * 150_000})
    with pytest.raises(TutelageError, match=r"No space left on device.*make room"):
        journal.append(*(large.model_copy(update={"index": index}) for index in range(1, 20)))
    assert journal.path.read_bytes() == before
    assert len(journal.candidates) == 1
    journal.append(large)
    assert Journal(journal.path).candidates["round-1", "0" * 32, 1].text == "x" * 150_000


def test_a_service_whose_disk_is_full_ends_and_goes_on_with_room_made(small_disk: Path) -> None:
    journal, requests = (
        Journal(small_disk / "journal.jsonl"),
        [RewardRequest(task=TASK, context=Context(title=str(number)), edit=SelfEdit(), seeds=(1,)) for number in range(40)],
    )
    filler, space = small_disk / "filler", os.statvfs(small_disk)
    filler.write_bytes(b"x" * (space.f_bavail * space.f_bsize - 8192))
    queue = Queue(CARD, journal, most=100)
    queue.submit(Submission(rewards=tuple(requests)))
    with pytest.raises(TutelageError, match=r"No space left on device.*make room"):
        serve(ScriptedStudent(lambda request: 0.5), queue, Deaths(small_disk / "deaths"))
    answered = {result.request for result in queue.results([request.id for request in requests]).done}
    assert 0 < len(answered) < 40
    journal.close()
    filler.unlink()
    queue = Queue(CARD, Journal(small_disk / "journal.jsonl"), most=100)
    assert {result.request for result in queue.results([request.id for request in requests]).done} == answered
    queue.submit(Submission(rewards=tuple(requests)))
    assert queue.size == 40 - len(answered)


def test_feedback_that_does_not_fit_leaves_the_file_as_it_was(small_disk: Path, tmp_path: Path) -> None:
    with Line(tmp_path / "line") as line:
        version = add(line, attempt(1)).fingerprint
    path = small_disk / "feedback.jsonl"
    desk = FeedbackDesk(path, tmp_path / "line")
    row = Feedback(version=version, context="c" * 32, question="x" * 10_000, kind="thumb", value=True, time=1_900_000_000)
    assert desk.take(FeedbackBatch(rows=(row,))).taken == 1
    before = path.read_bytes()
    with pytest.raises(NotKept, match=r"nothing was kept.*No space left on device.*make room, and send it again"):
        desk.take(FeedbackBatch(rows=(row,) * 200))
    assert path.read_bytes() == before
    assert desk.take(FeedbackBatch(rows=(row,) * 50)).taken == 50
    assert path.read_bytes() == before * 51
