"""Lines of versions without any model: each version is a few bytes that stand for its weights."""

from collections.abc import Iterable

from protocol.identity import content_id
from protocol.messages import Example, SelfEdit
from student.version_answers import AnswerRow, write_answers
from student.version_records import Attempt, Check, LearnedLesson, VersionRecord
from student.versions import Line

BASE = "b" * 32
HARP = content_id("the harp")


def attempt(request: object, titles: Iterable[str] = ("Tola Pitard",), checks: tuple[Check, ...] = ()) -> Attempt:
    edit = SelfEdit(examples=(Example(completion="Tola Pitard plays the harp."),))
    lessons = tuple(LearnedLesson(context=content_id(title), title=title, edit=edit) for title in titles)
    return Attempt(
        request=content_id(request), lessons=lessons, strategy="constrain", recipe=content_id("recipe"), checks=checks, seconds=1.5
    )


def add(line: Line, learned: Attempt, answers: Iterable[AnswerRow] = (), parent: int | None = None) -> VersionRecord:
    folder = line.unfinished()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    (folder / "adapter_model.safetensors").write_text(f"weights of {learned.request}")
    write_answers(folder, answers)
    return line.add(folder, learned, base=BASE, fingerprint=content_id("fingerprint", learned.request), parent=parent)


def row(question: str, answer: str, correct: bool | None, before: str | None = None, correct_before: bool | None = None) -> AnswerRow:
    return AnswerRow(
        context=HARP,
        title="Tola Pitard",
        question=question,
        gold=("the harp",),
        answer=answer,
        correct=correct,
        why="own",
        before=before,
        correct_before=correct_before,
    )
