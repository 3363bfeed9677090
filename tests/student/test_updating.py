"""A line's versions are made and gone on with: restored from disk a student is the one that was in memory, and what is refused says why."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_disk import mounted

from protocol.errors import InvalidInput, TutelageError
from protocol.messages import Context, Example, Lesson, Question, SelfEdit, Update
from recipes.domains.knowledge import Knowledge
from recipes.tiny import world
from recipes.tiny.source import load_tiny
from student.base import FrozenBase
from student.gate import Verdict
from student.keeping import Learned
from student.learner import Learner, load
from student.settings import KeepingSettings, StudentSettings
from student.updating import refuse, request_id, restore, update
from student.version_answers import AnswerRow, read_answers
from student.version_contexts import CONTEXTS, keep_contexts, read_contexts
from student.version_history import read_line
from student.version_records import Check, RefusedRecord, VersionRecord
from student.versions import Line

MODELS = Path(__file__).resolve().parents[2] / "recipes/tiny/models"
# An alpha by which ranks of 8 and 24 are scaled by numbers that float32 does not have.
SETTINGS = StudentSettings(model=str(MODELS / "seed_oss"), rank=8, alpha=11, learning_rate=1e-2, epochs=2, batch_size=8, answer_batch=64)
FEW = KeepingSettings(texts=8, text_tokens=16, others=1, kept_texts=1, kept_others=1, consolidate_every=3, consolidate_epochs=1)
RECIPE = "c" * 32


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner(FrozenBase(SETTINGS), Knowledge(), FEW)


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    edits = ["\n".join(world.questions(random.Random(0), story)) for story in world.stories("validation", 4, 0)]
    return [Lesson(context=c, edit=Knowledge().parse(e, c)) for c, e in zip(load_tiny("validation", 4)[0], edits, strict=True)]


class Gate:
    """Remembers who came by, and lets pass but for those whose context it is told to stop."""

    def __init__(self, *stopped: Lesson):
        self._stopped = stopped
        self.students: list[Learned] = []

    def __call__(self, before: Learned, after: Learned, lessons: Sequence[Lesson]) -> Verdict:
        self.students.append(after)
        passed = not any(lesson in self._stopped for lesson in lessons)
        row = AnswerRow(context=lessons[0].context.id, title="t", question="q", answer=str(len(before.lessons)), correct=None, why="own")
        learned, kept = [
            row.model_copy(update={"correct": True, "correct_before": before, "why": why})
            for before, why in ((False, "own"), (True, "earlier"))
        ]
        written = learned.model_copy(update={"correct_before": True})  # by the base
        own = [learned.model_copy(update={"question": question.text}) for question in lessons[0].context.questions[:1]]
        rows = (row, *own, written, kept)
        return Verdict((Check(name="size", value=1.0, passed=True), Check(name="harp", passed=passed, reason="it is forgotten")), rows)


def teach(line: Line, learner: Learner, lessons: Sequence[Lesson], gate: Gate | None = None) -> VersionRecord | RefusedRecord:
    return update(line, learner, lessons, gate or Gate(), recipe=RECIPE, seed=3)


def answers(learner: Learner, student: Learned, lessons: Sequence[Lesson]) -> list[str]:
    (given,) = learner.ask([student], [[prompt for lesson in lessons for prompt in Knowledge().ask(lesson.context)]])
    return given


def is_same(one: Learned, other: Learned) -> bool:
    pairs = zip(one.adapter, other.adapter, strict=True)
    return one.lessons == other.lessons and all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


@pytest.fixture(scope="module")
def made(learner: Learner, lessons: list[Lesson], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Learned]]:
    """A line of three versions, the last of them consolidated, and what each student was in memory."""
    path, gate = tmp_path_factory.mktemp("made") / "line", Gate()
    with Line(path) as line:
        for lesson in lessons[:3]:
            assert isinstance(teach(line, learner, [lesson], gate), VersionRecord)
    return path, gate.students


def test_a_student_restored_from_disk_is_the_one_in_memory_bit_by_bit(
    learner: Learner, lessons: list[Lesson], made: tuple[Path, list[Learned]]
) -> None:
    path, students = made
    restored = [restore(learner, read_line(path), number) for number in (1, 2, 3)]
    assert [student.adapter[0][0].shape[0] for student in restored] == [8, 16, FEW.consolidate_rank]
    assert all(is_same(one, other) for one, other in zip(restored, students, strict=True))
    assert answers(learner, restored[1], lessons) == answers(learner, students[1], lessons)
    assert answers(learner, restored[1], lessons) != answers(learner, restored[2], lessons)


def test_a_version_says_what_it_was_made_of(learner: Learner, lessons: list[Lesson], made: tuple[Path, list[Learned]]) -> None:
    line = read_line(made[0])
    record = line.versions[2]
    assert (record.parent, record.strategy, record.recipe) == (1, "constrain+replay+consolidate", RECIPE)
    assert [(lesson.context, lesson.edit) for lesson in record.lessons] == [(lessons[1].context.id, lessons[1].edit)]
    assert [(check.name, check.value) for check in record.checks] == [("size", 1.0), ("harp", None)]
    assert record.rewards == (1.0,), "its own question counts, where it has one"
    assert record.base == learner.base.fingerprint != record.fingerprint
    assert read_answers(line.open_file(2, "answers.jsonl"))[0].answer == "1"  # its parent had one lesson
    assert list(read_contexts(made[0]).values()) == [lesson.context for lesson in lessons[:3]]


def test_after_a_rollback_answers_are_the_same_bits_and_the_next_update_stands_on_them(
    learner: Learner, lessons: list[Lesson], tmp_path: Path
) -> None:
    gate = Gate()
    with Line(tmp_path / "line") as line:
        teach(line, learner, lessons[:1], gate)
        first = answers(learner, gate.students[0], lessons)
        teach(line, learner, lessons[1:2], gate)
        line.rollback(1)
        assert answers(learner, restore(learner, line, line.current), lessons) == first
        third = teach(line, learner, lessons[2:3], gate)
        assert isinstance(third, VersionRecord) and (third.number, third.parent) == (3, 1)
        assert restore(learner, line, 3).lessons == (lessons[0], lessons[2])
        line.rollback(0)
        assert is_same(restore(learner, line, 0), learner.nothing)


def test_an_update_that_the_gate_stops_is_refused_with_the_reasons_and_the_next_goes_on(
    learner: Learner, lessons: list[Lesson], tmp_path: Path
) -> None:
    gate = Gate(lessons[0])
    with Line(tmp_path / "line") as line:
        stopped = teach(line, learner, lessons[:2], gate)
        assert isinstance(stopped, RefusedRecord) and stopped.why == "harp: it is forgotten"
        assert [check.passed for check in stopped.checks] == [True, False]
        assert (line.current, sorted(item.name for item in line.path.iterdir())) == (
            0,
            ["contexts.jsonl", "head.json", "lock", "versions.jsonl"],
        )
        passed = teach(line, learner, lessons[1:2], gate)
        assert isinstance(passed, VersionRecord) and passed.number == 1
    assert [record.request for record in read_line(tmp_path / "line").refusals] == [request_id(lessons[:2])]


def test_an_update_that_cannot_be_trained_or_asked_is_refused(learner: Learner, lessons: list[Lesson], tmp_path: Path) -> None:
    wild = lessons[0].model_copy(update={"edit": SelfEdit(update=Update(rank=4000))})
    endless = Context(passage="Tola.", questions=(Question(text="Who? " * 1900, answers=("Tola",)),))
    asked = Lesson(context=endless, edit=SelfEdit(examples=(Example(completion="Tola."),)))
    with Line(tmp_path / "line") as line:
        refused = [teach(line, learner, [lesson]) for lesson in (wild, asked)]
        assert all(isinstance(record, RefusedRecord) for record in refused)
        assert [record.why for record in line.refusals] == [
            "update.rank is 4000, but this student allows 1 to 256; raise student.max_rank",
            "a question and its answer take 3883 tokens, but the student has 1024 positions",
        ]


def test_what_is_a_version_is_not_made_again(learner: Learner, lessons: list[Lesson], tmp_path: Path) -> None:
    gate = Gate()
    with Line(tmp_path / "line") as line:
        assert teach(line, learner, lessons[:1], gate) == teach(line, learner, lessons[:1], gate)
        assert (len(line.versions), len(gate.students)) == (1, 1)


def test_a_writer_that_is_killed_before_the_record_leaves_no_version_and_is_gone_on_from(
    learner: Learner, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "line"

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    for killed_at in ("student.updating.save", "student.updating.write_answers", "student.versions.hash_files"):
        with monkeypatch.context() as dying, Line(path) as line, pytest.raises(KeyboardInterrupt):
            dying.setattr(killed_at, die)
            teach(line, learner, lessons[:1])
        assert (read_line(path).versions, list(read_contexts(path))) == ({}, [lessons[0].context.id])
    with (path / CONTEXTS).open("a") as file:
        file.write('{"title":"torn')
    with Line(path) as line:
        assert isinstance(teach(line, learner, lessons[:1]), VersionRecord)
        assert isinstance(teach(line, learner, lessons[1:2]), VersionRecord)
    assert list(read_contexts(path).values()) == [lessons[0].context, lessons[1].context]
    assert (path / CONTEXTS).read_bytes().count(b"\n") == 2


def test_a_lesson_that_is_not_tried_is_refused_with_its_context(lessons: list[Lesson], tmp_path: Path) -> None:
    untold = Lesson(context=lessons[0].context, edit=SelfEdit())
    with Line(tmp_path / "line") as line:
        record = refuse(line, untold, "the teacher wrote nothing", FEW, recipe=RECIPE)
    assert (record.why, record.lessons[0].context, record.seconds) == ("the teacher wrote nothing", lessons[0].context.id, 0.0)
    assert read_contexts(tmp_path / "line") == {lessons[0].context.id: lessons[0].context}


def test_a_context_that_is_missing_or_altered_is_named(learner: Learner, lessons: list[Lesson], made: tuple[Path, list[Learned]]) -> None:
    path = made[0] / CONTEXTS
    whole = path.read_text()
    try:
        for damaged in ("", whole.replace(lessons[1].context.passage[:10], "Somebody else")):
            path.write_text(damaged)
            with pytest.raises(
                InvalidInput, match=r"'Biography'\), which version \d learned, is gone or was altered; restore contexts.jsonl"
            ):
                restore(learner, read_line(made[0]), 3)
        path.write_text(whole + "no context\n")
        with pytest.raises(InvalidInput, match=r"contexts.jsonl, line 4 is no context .* restore the file from a copy"):
            restore(learner, read_line(made[0]), 3)
    finally:
        path.write_text(whole)


def test_a_line_of_another_base_is_not_gone_on_with(lessons: list[Lesson], made: tuple[Path, list[Learned]]) -> None:
    merge = KeepingSettings(strategies=[], texts=1, text_tokens=4)
    other = Learner(FrozenBase(StudentSettings(model=str(MODELS / "llama"), rank=8)), Knowledge(), merge)
    with Line(made[0]) as line, pytest.raises(InvalidInput, match=r"has versions of another model than .*llama; give that"):
        update(line, other, lessons[3:], Gate(), recipe=RECIPE, seed=0)
    with pytest.raises(InvalidInput, match=r"v0001 holds (no|an) adapter of .*llama"):
        load(other.base, made[0] / "v0001")


def test_a_folder_without_a_whole_adapter_is_not_loaded(learner: Learner, made: tuple[Path, list[Learned]], tmp_path: Path) -> None:
    for config, weights in (("{", b""), ("[]", b""), ('{"r": 0, "lora_alpha": 1}', b""), ('{"r": 8, "lora_alpha": 8}', b"no tensors")):
        (tmp_path / "adapter_config.json").write_text(config)
        (tmp_path / "adapter_model.safetensors").write_bytes(weights)
        with pytest.raises(InvalidInput, match="holds no adapter of"):
            load(learner.base, tmp_path)


def test_contexts_that_find_no_room_leave_the_file_as_it_was(lessons: list[Lesson], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", kilobytes=16) as disk:
        keep_contexts(disk, [lessons[0].context])
        with pytest.raises(TutelageError, match="No space left on device"):
            keep_contexts(disk, [Context(passage="long " * 10_000)])
        assert list(read_contexts(disk)) == [lessons[0].context.id]
