"""Compare teachers with baselines on held-out contexts: what a student gains from each, with intervals."""

from pathlib import Path
from typing import Any

from recipes.compare_settings import Compare, usable_baselines
from recipes.comparison import describe, report_student, table
from recipes.conditions import HeldOut, tell_answers, try_conditions, write_edits, write_paraphrases
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.pictures import save_pictures
from recipes.plots import draw_conditions
from recipes.run_folder import RunFolder
from recipes.stages import open_student, place_grader
from recipes.team import Team
from recipes.terminal import console


def run(settings: Compare, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    contexts, references = load_data(domain, settings.contexts, "contexts", questions=True)
    retention = load_data(domain, settings.retention, "retention", questions=True)[0] if settings.retention.source else []
    models = student_models({f"students.{name}": student for name, student in settings.students.items()})
    for name, teacher in settings.teachers.items():
        models |= teacher_models(teacher, f"teachers.{name}")
    last = list(settings.teachers)[-1]
    baselines, left_out = usable_baselines(settings)
    for reason in left_out:
        console.print(reason)
    with RunFolder(settings, {"contexts": contexts, "retention": retention}, models, team) as folder:
        journal, editor = folder.journal, open_editor(settings, domain, folder.path)
        tests = [
            HeldOut(
                domain,
                task,
                contexts,
                references,
                retention,
                baselines,
                settings.repeats,
                seed,
                candidates=settings.candidates,
                together=settings.passages == "together",
                editor=editor,
                retrieval=settings.retrieval,
            )
            for seed in settings.seeds
        ]
        # Every teacher writes once per seed; all students learn from the same self-edits.
        edits = [
            {name: write_edits(team, teacher, test, f"seed-{test.seed}/{name}", journal) for name, teacher in settings.teachers.items()}
            for test in tests
        ]
        paraphrases = [
            write_paraphrases(team, settings.teachers, test, f"seed-{test.seed}", journal) if "matched_paraphrase" in baselines else None
            for test in tests
        ]
        students: dict[str, Any] = {}
        grader = place_grader(team, settings, folder)
        for name, student in settings.students.items():
            with open_student(team, domain, name, student, grader, folder, settings.distributed.deepspeed) as exchange:
                tried = [
                    try_conditions(exchange, test, own, rewritten, f"seed-{test.seed}/{name}", journal)
                    for test, own, rewritten in zip(tests, edits, paraphrases, strict=True)
                ]
                students[name] = {"student": exchange.describe().model_dump(), **report_student(contexts, tried, last)}
                shown = settings.pictures
                save_pictures(domain, contexts[:shown], tell_answers(tried[0], shown), folder.path / f"pictures-{name}")
            console.print(table(f"{name} ({students[name]['student']['model']})", students[name]))
            console.print("\n".join(describe(students[name])))
        report = folder.write_report(students)
    draw_conditions(students, folder.path / "conditions")
    console.print(f"figure: {folder.path / 'conditions.png'}\nreport: {report}")
    return report
