"""What teachers are worth to students that they were not trained for: a matrix of teachers and students.

A teacher is trained here for one student, or for several at once on the mean of their rewards; or it is frozen already, from a run folder,
a hub or a file of self-edits.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from protocol.exchange import Exchange
from protocol.messages import Context
from recipes.compare_settings import Transfer
from recipes.comparison import find_graded, measure_conditions, take
from recipes.conditions import HeldOut, Tried, try_conditions, write_edits
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.m_step import Outer
from recipes.net_reward import known_elsewhere, open_elsewhere
from recipes.plots import draw_matrix
from recipes.run_folder import RunFolder
from recipes.scoring import Scoring
from recipes.stages import open_student, place_grader
from recipes.statistics import Groups, Summary, mean_by_context, ratio, summarize
from recipes.team import Team
from recipes.terminal import console
from recipes.train_teacher import train_teacher
from teacher.settings import TeacherSettings

Matrix = Mapping[str, Mapping[str, Sequence[float]]]
"""By teacher and student, a figure per context."""


def run(settings: Transfer, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    training = load_data(domain, settings.train, "train", questions=True)[0] if settings.train.source else []
    contexts, _ = load_data(domain, settings.held_out, "held_out", questions=True)
    elsewhere = open_elsewhere(settings.net, domain, training, settings.seeds[0])
    used = {"train": training, "held_out": contexts, **known_elsewhere(elsewhere)}
    models = student_models({f"students.{name}": student for name, student in settings.students.items()})
    for name, teacher in settings.teachers.items():
        models |= teacher_models(teacher, f"teachers.{name}")
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(settings, used, models, team))
        journal, grader = folder.journal, place_grader(team, settings, folder)
        editor = open_editor(settings, domain, folder.path)
        students: dict[str, Exchange] = {
            name: stack.enter_context(open_student(team, domain, name, student, grader, folder, settings.distributed.deepspeed))
            for name, student in settings.students.items()
        }
        tried: dict[str, list[Tried]] = {name: [] for name in students}
        trained: dict[str, Any] = {}
        for seed in settings.seeds:
            at = f"seed-{seed}"
            teachers: dict[str, TeacherSettings] = {}
            for name, teacher in settings.teachers.items():
                teachers[name] = teacher
                if teacher.is_trained_here:
                    scoring = Scoring(domain, task, settings, settings.repeats, seed, editor, elsewhere)
                    for_students = {student: students[student] for student in teacher.trained_for}
                    outer = Outer(scoring, for_students, teacher, settings.finetune, settings.distributed.deepspeed)
                    result = train_teacher(outer, team, training, folder, f"{at}/{name}")
                    teachers[name], trained[f"{at}/{name}"] = result.teacher, result.report()
            held_out = HeldOut(domain, task, contexts, {}, [], (), settings.held_out_repeats, seed, editor=editor)
            edits = {name: write_edits(team, teacher, held_out, f"{at}/{name}", journal) for name, teacher in teachers.items()}
            for student, exchange in students.items():
                tried[student].append(try_conditions(exchange, held_out, edits, None, f"{at}/{student}", journal))
        graded = find_graded([one for seeds in tried.values() for one in seeds])
        matrix = measure_matrix(contexts, graded, tried, list(settings.teachers))
        told = report_matrix(settings, matrix, [contexts[i].group for i in graded])
        report = folder.write_report(
            {
                "students": {name: exchange.describe().model_dump() for name, exchange in students.items()},
                "trained": trained,
                **told,
            }
        )
    show(settings, told, report)
    return report


def measure_matrix(
    contexts: Sequence[Context], graded: Sequence[int], tried: Mapping[str, Sequence[Tried]], teachers: Sequence[str]
) -> Matrix:
    """Accuracy per context, mean over seeds, on the contexts that are `graded`."""
    scores = {
        student: [measure_conditions([contexts[i] for i in graded], take(one, graded)) for one in seeds] for student, seeds in tried.items()
    }
    return {
        name: {student: mean_by_context([own.conditions[name].accuracies for own in seeds]) for student, seeds in scores.items()}
        for name in ("no_edit", *teachers)
    }


def report_matrix(settings: Transfer, matrix: Matrix, groups: Groups = None) -> dict[str, Any]:
    """Accuracies, gains over the baseline, and the share of its gain on its own students that each teacher keeps on each student.

    A share is None where a teacher has no student of its own, or no gain there that is clear of zero.
    """
    names, students, baseline = list(settings.teachers), list(settings.students), settings.baseline or "no_edit"
    gains = {t: {s: [a - b for a, b in zip(matrix[t][s], matrix[baseline][s], strict=True)] for s in students} for t in names}
    kept: dict[str, dict[str, Summary | None]] = {}
    for name, teacher in settings.teachers.items():
        if teacher.trained_for:
            own = mean_by_context([gains[name][student] for student in teacher.trained_for])
            kept[name] = {student: ratio(gains[name][student], own, groups) for student in students}
    return {
        "accuracy": {t: {s: summarize(matrix[t][s], groups) for s in students} for t in ("no_edit", *names)},
        "baseline": baseline,
        "gain": {t: {s: summarize(gains[t][s], groups) for s in students} for t in names if t != baseline},
        "kept": kept,
    }


def show(settings: Transfer, told: Mapping[str, Any], report: Path) -> None:
    """Print the matrix and what is kept, and draw both beside the report."""
    students, beside = list(settings.students), report.with_name("transfer")
    titles = {
        "accuracy": "accuracy, %",
        "gain": f"gain over {told['baseline'].replace('_', ' ')}, points",
        "kept": "share of the gain on its own students (*) that a teacher keeps, %",
    }
    for part, title in titles.items():
        if told[part]:
            console.print(_table(title, told[part], students, {name: teacher.trained_for for name, teacher in settings.teachers.items()}))
    for part in ("accuracy", "kept"):
        cells = [[row[student] for student in students] for row in told[part].values()]
        if any(cell for row in cells for cell in row):
            draw_matrix(list(told[part]), students, cells, titles[part], beside.with_name(f"transfer-{part}"))
            console.print(f"figure: {beside.with_name(f'transfer-{part}.png')}")
    console.print(f"report: {report}")


def _table(title: str, rows: Mapping[str, Any], students: Sequence[str], own: Mapping[str, Sequence[str]]) -> Table:
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("teacher", *students):
        grid.add_column(heading.replace("_", " "), no_wrap=True)
    for teacher, row in rows.items():
        cells = [_percent(row[student]) + (" *" if student in own.get(teacher, ()) else "") for student in students]
        grid.add_row(teacher.replace("_", " "), *cells)
    return grid


def _percent(summary: Summary | None) -> str:
    if summary is None:
        return "no clear gain"
    return f"{100 * summary['mean']:.1f} [{100 * summary['low']:.1f}, {100 * summary['high']:.1f}]"
