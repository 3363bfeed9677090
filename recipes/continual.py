"""Continual learning: students learn one context after another by self-edits, and what each update did to all that went before is measured.

Every strategy has as many students as there are sequences, side by side; all learn the same self-edits, which a frozen teacher wrote.
Source: the lower-triangular accuracy matrix of SEAL (arXiv 2506.10943, section 6, figure 6).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Final

from pydantic import TypeAdapter

from protocol.domain import Grader
from protocol.errors import InnerLoopFailed
from protocol.identity import derive_seed
from protocol.messages import Context, Lesson, SelfEdit
from protocol.processes import is_first_process
from recipes.candidates import HELD_OUT, read_edit
from recipes.domains import RecipeDomain
from recipes.exam import Exam, Step
from recipes.forgetting import report_strategy, table
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.learning_settings import Continual
from recipes.plots import draw_forgetting
from recipes.progress_file import Progress, read_progress, write_progress
from recipes.run_folder import RunFolder
from recipes.stages import place_grader, write_candidates
from recipes.team import Team
from recipes.terminal import Advance, console, stage
from student.base import FrozenBase
from student.learner import Learner
from student.settings import KeepingSettings, StudentSettings

_STEPS: Final = TypeAdapter(list[Step])


def run(settings: Continual, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, _ = choose_task(settings)
    contexts = load_data(domain, settings.contexts, "contexts", questions=True)[0][: settings.sequences * settings.length]
    retention = load_data(domain, settings.retention, "retention", questions=True)[0] if settings.retention.source else []
    others = load_data(domain, settings.others, "others", questions=False)[0] if settings.others.source else []
    used = {"contexts": contexts, "retention": retention, "others": others}
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    with RunFolder(settings, used, models, team) as folder:
        written = write_candidates(team, settings.teacher, domain, contexts, 1, settings.seed, settings.name + HELD_OUT, folder.journal)
        edits = [read_edit(record, domain, context) or SelfEdit() for record, context in zip(written, contexts, strict=True)]
        lessons = [Lesson(context=context, edit=edit) for context, edit in zip(contexts, edits, strict=True)]
        sequences = [lessons[start : start + settings.length] for start in range(0, len(lessons), settings.length)]
        names = [context.passage for context in others]
        grader = place_grader(team, settings, folder)
        school = team.place(School, settings.student.here, domain, grader, sequences, retention, names, settings.seed)
        # The longest first, so that several processes end together.
        order = sorted(settings.strategies, key=lambda name: -len(settings.strategies[name].strategies))
        pieces = [(school, name, settings.strategies[name], folder.path / f"{name}.safetensors") for name in order]
        steps = {order[number]: done for number, done in team.share(School.learn, pieces, _STEPS)}
        reports = {name: report_strategy(steps[name]) for name in settings.strategies}
        report = folder.write_report({"strategies": reports})
    console.print(table(settings.student.model, reports))
    draw_forgetting(reports, folder.path / "forgetting")
    console.print(f"figure: {folder.path / 'forgetting.png'}\nreport: {report}")
    return report


class School:
    """A base in this process, and what students on it learn and are asked."""

    def __init__(
        self,
        student: StudentSettings,
        domain: RecipeDomain,
        grader: Grader,
        sequences: Sequence[Sequence[Lesson]],
        retention: Sequence[Context],
        texts: Sequence[str],
        seed: int,
    ):
        """`texts` is where the names of others come from, of whom no student learns."""
        self._base, self._domain, self._seed = FrozenBase(student), domain, seed
        self._exam = Exam(domain, grader, sequences, retention, texts, seed)
        self._shows = is_first_process()  # while it works alone, a process does not know

    @cached_property
    def _before(self) -> Step:
        """How students answer that have learned nothing, whatever their strategy."""
        plain = Learner(self._base, self._domain, KeepingSettings(strategies=[]), self._seed)
        return Step(marks=tuple(self._exam.mark(plain, [plain.nothing] * len(self._exam.sequences), 0)))

    def learn(self, name: str, keeping: KeepingSettings, path: Path) -> list[Step]:
        """Teach all sequences' contexts in turn, every student its own; `path` has what they know, and how they answered, after each."""
        exam, learner = self._exam, Learner(self._base, self._domain, keeping, self._seed)
        started = Progress((learner.nothing,) * len(exam.sequences), (self._before,))
        progress = read_progress(path, exam.sequences) or started
        with self._telling(name, len(progress.steps) - 1) as advance:
            while (done := len(progress.steps)) <= exam.length:
                progress = self._update(learner, progress, done)
                write_progress(path, progress)
                advance(1, f"newest {fmean(marks.contexts[done - 1] for marks in progress.steps[-1].marks):.1%}")
        return list(progress.steps)

    def _update(self, learner: Learner, progress: Progress, number: int) -> Progress:
        """One update of every student."""
        clock, cpu = time.perf_counter(), time.process_time()
        lessons = [[sequence[number - 1]] for sequence in self._exam.sequences]
        results = learner.learn(progress.students, lessons, derive_seed(self._seed, "update", number))
        spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
        refused = tuple(str(result) if isinstance(result, InnerLoopFailed) else "" for result in results)
        pairs = zip(progress.students, results, strict=True)
        students = tuple(old if isinstance(new, InnerLoopFailed) else new for old, new in pairs)
        step = Step(marks=tuple(self._exam.mark(learner, students, number)), refused=refused, **spent)
        return Progress(students, (*progress.steps, step))

    @contextmanager
    def _telling(self, name: str, done: int) -> Iterator[Advance]:
        """Of several processes the first shows its work."""
        if not self._shows:
            yield lambda amount, note: None
            return
        with stage(f"{name} · learning one context after another", self._exam.length, done) as advance:
            yield advance
