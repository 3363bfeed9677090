"""Keep a student up to date: documents collect in an inbox, and now and then it learns those that are new, in one update.

A frozen teacher writes a self-edit for each. What they teach is learned together, and by each document alone if together it is refused;
where self-edits ask for different updates, those that ask for the same are together. An update that the gate lets pass is a version.

The line's log is all that says what is done: a document in a version, or refused by itself, is never learned again, even if the version is
rolled back. So whenever the process dies, nothing is lost and nothing is learned twice. What the teacher wrote stands in the run's journal.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import TutelageError
from protocol.identity import content_id
from protocol.messages import Context, Lesson, SelfEdit, Update
from recipes.candidates import read_edit
from recipes.config import to_yaml
from recipes.editor import open_editor
from recipes.gating import open_gate
from recipes.graders import open_grader
from recipes.graders.judge import in_folder
from recipes.inbox import Inbox, keys_of
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.learning_settings import Watch
from recipes.run_folder import RunFolder
from recipes.schedule import Clock, read_schedule, wait_until_due
from recipes.stages import TooLongForTeacher, write_candidates
from recipes.stopping import stopping
from recipes.team import Team
from recipes.terminal import console, printable
from recipes.watch_page import LEFT, describe, describe_left, describe_update, page
from student.base import FrozenBase
from student.gate import Gate
from student.learner import Learner
from student.updating import refuse, request_id, update
from student.version_contexts import read_contexts
from student.version_history import LOG, History, read_line
from student.version_records import RefusedRecord, VersionRecord
from student.versions import Line

STAGE: Final = "watch"
_TICK: Final = 2.0
_PLAIN_TICK: Final = 30.0
"""Seconds from one look at the inbox to the next: for a page, and for lines that nobody sits in front of."""


def run(settings: Watch, team: Team, clock: Clock | None = None) -> Path:
    """Watch until told to stop, by SIGTERM or Ctrl-C; returns the folder of the line."""
    clock, schedule = clock or Clock(), read_schedule(settings.every, settings.window)
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    with RunFolder(settings, {}, models, team) as folder, stopping(clock.stop):
        watched = Watched(settings, team, folder, clock)
        console.print(f"watching {settings.inbox}; versions in {watched.line}")
        due = clock.monotonic()
        while True:
            with page(watched.look) as show:
                if not wait_until_due(clock, schedule, due, _TICK if console.is_terminal else _PLAIN_TICK, show):
                    break
            due = clock.monotonic() + schedule.every
            try:
                watched.learn()
            except TutelageError as error:
                if settings.once:
                    raise
                watched.failed = str(error)
                console.print(f"no update: {printable(watched.failed, 2000)}; it is tried again")
            if settings.once:
                break
    return watched.line


class Watched:
    """An inbox and the line of what was learned of it, from one update to the next.

    Attributes:
        line: The line's folder.
        failed: Why the last attempt came to nothing, if it did.
    """

    def __init__(self, settings: Watch, team: Team, folder: RunFolder, clock: Clock):
        self._settings, self._team, self._folder, self._clock = settings, team, folder, clock
        self._domain, task = choose_task(settings)
        self._grader = open_grader(task.grader, in_folder(settings.judge, folder.path))
        self._editor = open_editor(settings, self._domain, folder.path)
        self._recipe = content_id(to_yaml(settings))
        self._inbox = Inbox(Path(settings.inbox), settings.settle_seconds, settings.max_mb * 2**20)
        self._has_page, self._told = console.is_terminal and not settings.once, set[str]()
        self._opened: tuple[Learner, Gate] | None = None
        self.line, self.failed = Path(settings.line) if settings.line else folder.path / "line", ""
        self._read_line()

    def look(self) -> list[tuple[str, str]]:
        """See what is new in the inbox and in the line, and say how it stands. Where no page tells what is left, a line for each does."""
        if _size(self.line / LOG) != self._log_size:  # somebody has rolled back
            self._read_line()
        self._inbox.look(self._clock.monotonic(), self._done)
        stands = describe(self._inbox, self._history, self.failed)
        if self._has_page:
            return stands
        for text in describe_left(self._inbox, self._told):
            console.print(f"{LEFT}: {text}")
        self._told = set(self._inbox.left)
        return [(name, text) for name, text in stands if name != LEFT]

    def learn(self) -> None:
        """Teach what is new."""
        self.failed = ""
        self.look()
        if self._inbox.unsettled:
            self._clock.wait(self._settings.settle_seconds)
            self.look()
        if not (documents := self._inbox.waiting):
            return
        self._folder.add_contexts([document.context for document in documents])
        lessons, unwritten = self._write([document.context for document in documents])
        with Line(self.line) as line:
            done = find_done(line, read_contexts(self.line))  # another recipe may have been quicker
            new = {document.context.id for document in documents if document.key not in done}
            for context, why in unwritten:
                if context.id in new:
                    tell(refuse(line, Lesson(context=context, edit=SelfEdit()), why, self._settings.keeping, recipe=self._recipe))
            for together in group_by_update(lesson for lesson in lessons if lesson.context.id in new):
                self._teach(line, together)
        self._read_line()

    def _write(self, contexts: Sequence[Context]) -> tuple[list[Lesson], list[tuple[Context, str]]]:
        """A lesson for each context, or why there is none."""
        settings, left = self._settings, list(contexts)
        unwritten: list[tuple[Context, str]] = []
        while True:
            try:
                records = write_candidates(
                    self._team, settings.teacher, self._domain, left, 1, settings.seed, STAGE, self._folder.journal, self._editor
                )
                break
            except TooLongForTeacher as error:
                unwritten.append((error.context, str(error)))
                left.remove(error.context)
        lessons = []
        for context, record in zip(left, records, strict=True):
            if edit := read_edit(record, self._domain, context):
                lessons.append(Lesson(context=context, edit=edit))
            else:
                unwritten.append((context, f"the teacher wrote nothing that may be learned: {record.unusable}"))
        return lessons, unwritten

    def _teach(self, line: Line, lessons: Sequence[Lesson]) -> None:
        """Make one update; if it is refused, one of each lesson, so that what is harmless is not lost with what is not."""
        refused = isinstance(line.find(request_id(lessons)), RefusedRecord)  # before the process died
        if not refused and not self._clock.stopped:
            refused = isinstance(self._update(line, lessons), RefusedRecord)
        if refused and len(lessons) > 1:
            console.print(f"each of the {len(lessons)} documents is learned by itself")
            for lesson in lessons:
                if not self._clock.stopped:
                    self._update(line, [lesson])

    def _update(self, line: Line, lessons: Sequence[Lesson]) -> VersionRecord | RefusedRecord:
        settings = self._settings
        learner, gate = self._opened = self._opened or self._open()
        with console.status(f"learning {len(lessons)} documents"):
            record = update(line, learner, lessons, gate, recipe=self._recipe, seed=settings.seed)
        tell(record)
        return record

    def _open(self) -> tuple[Learner, Gate]:
        """The student, and the gate before its versions. Names of others are those that its base knows, unless contexts are given."""
        settings, domain = self._settings, self._domain
        learner = Learner(FrozenBase(settings.student), domain, settings.keeping, settings.seed)
        known, others = (
            load_data(domain, given, key, questions=key == "known")[0] if given.source else []
            for key, given in (("known", settings.known), ("others", settings.others))
        )
        names = [context.passage for context in others] or learner.own_texts
        return learner, open_gate(settings.gate, learner, domain, self._grader, known, names, settings.seed)

    def _read_line(self) -> None:
        self._log_size = _size(self.line / LOG)
        self._history = read_line(self.line) if self._log_size else History(self.line)
        self._done = find_done(self._history, read_contexts(self.line))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def find_done(line: History, contexts: Mapping[str, Context]) -> set[str]:
    """Keys of documents that are in a version, or were refused by themselves. One refused among others is learned alone after that."""
    alone = [record for record in line.refusals if len(record.lessons) == 1]
    ids = {lesson.context for record in (*line.versions.values(), *alone) for lesson in record.lessons}
    return {key for id_ in ids for key in (keys_of(contexts[id_]) if id_ in contexts else (id_,))}


def group_by_update(lessons: Iterable[Lesson]) -> list[list[Lesson]]:
    """Lessons whose self-edits ask for the same update, together."""
    groups: dict[Update, list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.edit.update, []).append(lesson)
    return list(groups.values())


def tell(record: VersionRecord | RefusedRecord) -> None:
    console.print(describe_update(record))
