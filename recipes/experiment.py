"""The whole experiment: train a teacher and its control, freeze both, compare them on the target student and on a new one,
and adapt the new student for good. Once per seed; `quickstart.yaml` runs one seed, `tiny/three_seeds.yaml` three.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.errors import InnerLoopFailed
from protocol.messages import Lesson, Update
from recipes.adapt_student import describe_version, report_version
from recipes.comparison import Scores, describe, measure_conditions, report_scores, table
from recipes.conditions import HeldOut, try_conditions, write_edits, write_paraphrases
from recipes.config import Experiment
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.run_folder import RunFolder
from recipes.scoring import Scoring
from recipes.stages import commit, open_student, place_grader
from recipes.team import Team
from recipes.terminal import console
from recipes.train_teacher import Outer, next_step, train_teacher


def run(settings: Experiment, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    started = time.perf_counter()
    domain, task = choose_task(settings)
    contexts, _ = load_data(settings.train, "train", questions=True)
    held_out_contexts, references = load_data(settings.held_out, "held_out", questions=True)
    retention = load_data(settings.retention, "retention", questions=True)[0] if settings.retention.source else []
    used = {"train": contexts, "held_out": held_out_contexts, "retention": retention}
    models = student_models({"student": settings.student, "new_student": settings.new_student})
    deepspeed = settings.distributed.deepspeed
    grader = place_grader(team, settings)
    with (
        RunFolder(settings, used, {**models, **teacher_models(settings.teacher, "teacher")}, team) as folder,
        open_student(team, settings.student, grader, folder, deepspeed) as target,
        open_student(team, settings.new_student, grader, folder, deepspeed) as new,
    ):
        scores: dict[str, list[Scores]] = {"target_student": [], "new_student": []}
        lasting: dict[str, Any] = {}
        trained_teachers: dict[str, Any] = {}
        for seed in settings.seeds:
            at = f"seed-{seed}"
            # Train the teacher on the target student's rewards, and a control on candidates kept by lot. Then freeze both.
            scoring = Scoring(domain, task, settings, settings.repeats, seed)
            outer = Outer(scoring, {"target_student": target}, settings.teacher, settings.finetune, deepspeed)
            trained = train_teacher(outer, team, contexts, folder, f"{at}/trained_teacher")
            control = train_teacher(replace(outer, selection="random"), team, contexts, folder, f"{at}/random_selection")
            # Every teacher writes one self-edit per held-out context; both students learn from the same ones.
            held_out = HeldOut(domain, task, held_out_contexts, references, retention, settings.baselines, settings.held_out_repeats, seed)
            teachers = {
                "untrained_teacher": write_edits(team, settings.teacher, held_out, f"{at}/untrained_teacher", folder.journal),
                "random_selection": write_edits(team, control.teacher, held_out, f"{at}/random_selection", folder.journal),
                "trained_teacher": write_edits(team, trained.teacher, held_out, f"{at}/trained_teacher", folder.journal),
            }
            paraphrases = write_paraphrases(team, {"untrained_teacher": settings.teacher}, held_out, at, folder.journal)
            for name, exchange in (("target_student", target), ("new_student", new)):
                rows = try_conditions(exchange, held_out, teachers, paraphrases, f"{at}/{name}", folder.journal)
                scores[name].append(measure_conditions(held_out_contexts, rows, "trained_teacher"))
            # The new student keeps what the frozen teacher writes.
            pairs = list(zip(held_out_contexts, teachers["trained_teacher"], strict=True))[: settings.lasting]
            update = Update(epochs=settings.lasting_epochs)
            lessons = [Lesson(context=context, edit=edit.model_copy(update={"update": update})) for context, own in pairs for edit in own]
            try:
                lasting[at] = report_version(commit(new, task, lessons, [seed], folder.journal), lessons, domain)
                console.print(describe_version(lasting[at]))
            except InnerLoopFailed as error:  # the comparison stands without it
                lasting[at] = {"failed": str(error)}
                console.print(f"no lasting update: {error}")
            path = trained.teacher.adapter or trained.teacher.model
            trained_teachers[at] = {"path": path, "fingerprint": trained.fingerprint, "control": control.fingerprint}
        parts: dict[str, Any] = {}
        for name, exchange in (("target_student", target), ("new_student", new)):
            parts[name] = {"student": exchange.describe().model_dump(), **report_scores(scores[name], "trained_teacher")}
            parts[name]["by_seed"] = {
                str(s): report_scores([one], "trained_teacher") for s, one in zip(settings.seeds, scores[name], strict=True)
            }
        report = folder.write_report(
            {
                "recipe": settings.recipe,
                "name": settings.name,
                "seeds": list(settings.seeds),
                "trained_teachers": trained_teachers,
                **parts,
                "lasting_update": lasting,
                "inner_loops": folder.journal.inner_loops,
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
        )
    show(parts)
    console.print(f"\ntrained teacher: {path}\nreport: {report}\n{next_step(trained)}")
    return report


def show(students: Mapping[str, Any]) -> None:
    """Print each student's table, the differences that matter, and the side effects."""
    for name, part in students.items():
        console.print(table(f"{name.replace('_', ' ')} ({part['student']['model']})", part))
        console.print("\n".join(describe(part)))
