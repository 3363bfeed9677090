"""One update of a student in its line of versions: learn, pass the gate, become a version; or be refused, with the reasons in the log."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Final

from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.identity import content_id, derive_seed
from protocol.messages import Context, Lesson
from student.base import fingerprint
from student.gate import Verdict
from student.inner_loop import check_prompts
from student.keeping import Learned
from student.learner import Learner, load, save
from student.settings import KeepingSettings
from student.version_answers import AnswerRow, write_answers
from student.version_contexts import keep_contexts, read_contexts
from student.version_history import History
from student.version_records import Attempt, LearnedLesson, RefusedRecord, VersionRecord
from student.versions import Line

Judge = Callable[[Learned, Learned, Sequence[Lesson]], Verdict]
"""What it finds of a student before and after an update, and of the lessons that it was made of."""
_NOT_JUDGED: Final = Verdict((), ())


def request_id(lessons: Sequence[Lesson]) -> str:
    """Id of an update from these lessons, by which the log knows it again."""
    return content_id("update", [(lesson.context.id, lesson.edit.id) for lesson in lessons])


def restore(learner: Learner, line: History, number: int) -> Learned:
    """What a version's student has learned: the same lessons, and an adapter of the same bits, as when the version was made.

    Raises:
        InvalidInput: There is no such version, it is damaged or of another base, or a context of its lessons is missing.
    """
    if line.versions and line.versions[1].base != learner.base.fingerprint:
        raise InvalidInput(f"{line.path} has versions of another model than {learner.base.settings.model}; give that, or begin a new line")
    if number == 0:
        return learner.nothing
    adapter, contexts = load(learner.base, line.open_version(number)), read_contexts(line.path)
    learned = [(n, lesson) for n in reversed(line.ancestry(number)[:-1]) for lesson in line.versions[n].lessons]
    if missing := next(((n, lesson) for n, lesson in learned if lesson.context not in contexts), None):
        raise InvalidInput(
            f"{line.path}: context {missing[1].context} ({missing[1].title!r:.80}), which version {missing[0]} learned, is gone or was "
            "altered; restore contexts.jsonl from a copy"
        )
    return Learned(tuple(Lesson(context=contexts[lesson.context], edit=lesson.edit) for _, lesson in learned), adapter)


def update(
    line: Line, learner: Learner, lessons: Sequence[Lesson], gate: Judge, *, recipe: str, seed: int
) -> VersionRecord | RefusedRecord:
    """Teach the current version's student, and add what comes of it to the line. An update that made a version is not made again.

    Args:
        recipe: Content id of the settings.

    Raises:
        InvalidInput: The line cannot be gone on with (`restore`).
        TutelageError: Something could not be written, or asked; the line is as it was.
    """
    request, started = request_id(lessons), time.perf_counter()
    known = line.find(request)
    if isinstance(known, VersionRecord):
        return known
    before = restore(learner, line, line.current)
    after, verdict, why = _learn(learner, before, lessons, gate, derive_seed(seed, "update", request))
    attempt = _attempt(lessons, learner.settings, recipe, verdict, time.perf_counter() - started)
    keep_contexts(line.path, [lesson.context for lesson in lessons])
    if why:
        return line.refuse(attempt, why)
    folder = line.unfinished()
    save(learner.base, after, folder)
    write_answers(folder, verdict.answers)
    own = fingerprint(learner.base.model, learner.base.tokenizer)
    return line.add(folder, attempt, base=learner.base.fingerprint, fingerprint=own)


def refuse(line: Line, lesson: Lesson, why: str, settings: KeepingSettings, *, recipe: str) -> RefusedRecord:
    """Note why a lesson was not even tried."""
    keep_contexts(line.path, [lesson.context])
    return line.refuse(_attempt([lesson], settings, recipe), why)


def _learn(learner: Learner, before: Learned, lessons: Sequence[Lesson], gate: Judge, seed: int) -> tuple[Learned, Verdict, str]:
    """What is known after an update, what the gate finds, and why the update is refused; empty if it is not."""
    try:
        asked = [prompt for lesson in lessons for prompt in learner.domain.ask(lesson.context)]
        check_prompts(learner.base, asked, learner.domain.answer_tokens)
        (after,) = learner.learn([before], [lessons], seed)
        if isinstance(after, InnerLoopFailed):
            raise after
        verdict = gate(before, after, lessons)
    except InnerLoopFailed as error:
        return before, _NOT_JUDGED, str(error)
    return after, verdict, "; ".join(f"{check.name}: {check.reason}" for check in verdict.checks if not check.passed)


def _attempt(
    lessons: Sequence[Lesson], settings: KeepingSettings, recipe: str, verdict: Verdict = _NOT_JUDGED, seconds: float = 0.0
) -> Attempt:
    return Attempt(
        request=request_id(lessons),
        lessons=tuple(LearnedLesson(context=own.context.id, title=own.context.label, edit=own.edit) for own in lessons),
        strategy=settings.name,
        recipe=recipe,
        rewards=tuple(_gain(own.context, verdict.answers) for own in lessons),
        checks=verdict.checks,
        seconds=seconds,
    )


def _gain(context: Context, answers: Sequence[AnswerRow]) -> float | None:
    """How much more often than before questions about a context are answered rightly: its own, or else those that the base wrote.

    None if none was asked, or has a verdict.
    """
    graded = [row for row in answers if (row.context, row.why) == (context.id, "own") and row.correct is not None]
    own = {question.text for question in context.questions}
    told = [row for row in graded if row.question in own] or graded
    changes = [float(bool(row.correct)) - row.correct_before for row in told if row.correct_before is not None]
    return fmean(changes) if changes else None
