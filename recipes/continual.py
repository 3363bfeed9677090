"""Continual learning: students learn one context after another by self-edits, and what each update did to all that went before is measured.

Every strategy has as many students as there are sequences, side by side; all learn the same self-edits, which a frozen teacher wrote.
Source: the lower-triangular accuracy matrix of SEAL (arXiv 2506.10943, section 6, figure 6).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from protocol.errors import InnerLoopFailed
from protocol.identity import derive_seed
from protocol.messages import Lesson, SelfEdit
from recipes.candidates import HELD_OUT, read_edit
from recipes.exam import Exam, Step
from recipes.forgetting import report_strategy, table
from recipes.graders import open_grader
from recipes.graders.judge import in_folder
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.plots import draw_forgetting
from recipes.progress_file import Progress, read_progress, write_progress
from recipes.run_folder import RunFolder
from recipes.settings import Continual
from recipes.stages import write_candidates
from recipes.team import Team
from recipes.terminal import console, stage
from student.base import FrozenBase
from student.learner import Learner


def run(settings: Continual, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
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
        grader = open_grader(task.grader, in_folder(settings.judge, folder.path))
        exam = Exam(domain, grader, sequences, retention, [context.passage for context in others], settings.seed)
        base = FrozenBase(settings.student.here)
        reports: dict[str, Any] = {}
        before: Step | None = None
        for name, keeping in settings.strategies.items():
            learner = Learner(base, domain, keeping, settings.seed)
            before = before or Step(marks=tuple(exam.mark(learner, [learner.nothing] * len(sequences), 0)))
            steps = learn_one_by_one(learner, exam, before, settings.seed, name, folder.path / f"{name}.safetensors")
            reports[name] = report_strategy(steps)
        report = folder.write_report({"strategies": reports})
    console.print(table(settings.student.model, reports))
    draw_forgetting(reports, folder.path / "forgetting")
    console.print(f"figure: {folder.path / 'forgetting.png'}\nreport: {report}")
    return report


def learn_one_by_one(learner: Learner, exam: Exam, before: Step, seed: int, name: str, path: Path) -> Sequence[Step]:
    """Teach all sequences' contexts in turn, every student its own.

    Args:
        before: How they answer before.
        path: Has what they know, and how they answered, after every update.
    """
    started = Progress((learner.nothing,) * len(exam.sequences), (before,))
    progress = read_progress(path, exam.sequences) or started
    with stage(f"{name} · learning one context after another", exam.length, len(progress.steps) - 1) as advance:
        while (done := len(progress.steps)) <= exam.length:
            clock, cpu = time.perf_counter(), time.process_time()
            lessons = [[sequence[done - 1]] for sequence in exam.sequences]
            results = learner.learn(progress.students, lessons, derive_seed(seed, "update", done))
            spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
            refused = tuple(str(result) if isinstance(result, InnerLoopFailed) else "" for result in results)
            pairs = zip(progress.students, results, strict=True)
            students = tuple(old if isinstance(new, InnerLoopFailed) else new for old, new in pairs)
            step = Step(marks=tuple(exam.mark(learner, students, done)), refused=refused, **spent)
            progress = Progress(students, (*progress.steps, step))
            write_progress(path, progress)
            advance(1, f"newest {fmean(marks.contexts[done - 1] for marks in step.marks):.1%}")
    return progress.steps
