"""The whole experiment: train a teacher and its controls, freeze them, compare them on the target student and on a new one,
and adapt the new student for good. Once per seed; `quickstart.yaml` runs one seed, `tiny/three_seeds.yaml` three.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from protocol.errors import InnerLoopFailed
from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import Context, Lesson, SelfEdit, Update
from recipes.adapt_student import describe_versions, report_versions
from recipes.comparison import describe, report_student, table
from recipes.conditions import Edits, HeldOut, Tried, tell_answers, try_conditions, write_edits, write_paraphrases
from recipes.constants import choose_constant
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.m_step import Outer, Trained
from recipes.net_reward import known_elsewhere, open_elsewhere
from recipes.pictures import save_pictures
from recipes.run_folder import RunFolder
from recipes.scoring import Scoring
from recipes.settings import Experiment
from recipes.stages import commit, open_student, place_grader
from recipes.team import Team
from recipes.terminal import console
from recipes.train_teacher import next_step, train_teacher


def run(settings: Experiment, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    training, _ = load_data(domain, settings.train, "train", questions=True)
    contexts, references = load_data(domain, settings.held_out, "held_out", questions=True)
    retention = load_data(domain, settings.retention, "retention", questions=True)[0] if settings.retention.source else []
    elsewhere = open_elsewhere(settings.net, domain, training, settings.seeds[0])
    used = {"train": training, "held_out": contexts, "retention": retention, **known_elsewhere(elsewhere)}
    wanted = {"target_student": settings.student} | ({"new_student": settings.new_student} if settings.new_student.label else {})
    models = {**student_models(wanted), **teacher_models(settings.teacher, "teacher")}
    deepspeed = settings.distributed.deepspeed
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(settings, used, models, team))
        journal, grader = folder.journal, place_grader(team, settings, folder)
        editor = open_editor(settings, domain, folder.path)
        students = {
            name: stack.enter_context(open_student(team, domain, name, own, grader, folder, deepspeed)) for name, own in wanted.items()
        }
        tried: dict[str, list[Tried]] = {name: [] for name in students}
        lasting: dict[str, Any] = {}
        trained_teachers: dict[str, Any] = {}
        for seed in settings.seeds:
            at = f"seed-{seed}"
            # Train the teacher on the target student's rewards, and its controls. Then freeze them.
            scoring = Scoring(domain, task, settings, settings.repeats, seed, editor, elsewhere)
            outer = Outer(scoring, {"target_student": students["target_student"]}, settings.teacher, settings.finetune, deepspeed)
            trained, controls = train_teachers(outer, team, training, folder, at)
            trained_teachers[at] = {**trained.report(), "controls": {name: control.fingerprint for name, control in controls.items()}}
            # Every teacher writes as many self-edits per held-out context; all students learn from the same ones.
            held_out = HeldOut(
                domain,
                task,
                contexts,
                references,
                retention,
                settings.baselines,
                settings.held_out_repeats,
                seed,
                settings.held_out_candidates,
                editor=editor,
                retrieval=settings.retrieval,
            )
            frozen = {"untrained_teacher": settings.teacher} | {name: control.teacher for name, control in controls.items()}
            edits: dict[str, Edits] = {
                name: write_edits(team, teacher, held_out, f"{at}/{name}", journal) for name, teacher in frozen.items()
            }
            if settings.constants:
                best, *_ = constants = choose_constant(scoring, settings.constants, students["target_student"], training, at, journal)
                edits["best_constant"] = [[domain.parse(best.text, context)] for context in contexts]
                trained_teachers[at]["constants"] = [asdict(constant) for constant in constants]
            edits["trained_teacher"] = write_edits(team, trained.teacher, held_out, f"{at}/trained_teacher", journal)
            paraphrases = None
            if "matched_paraphrase" in settings.baselines:
                paraphrases = write_paraphrases(team, {"untrained_teacher": settings.teacher}, held_out, at, journal)
            for name, exchange in students.items():
                tried[name].append(try_conditions(exchange, held_out, edits, paraphrases, f"{at}/{name}", journal))
            # A student keeps what the frozen teacher writes.
            if settings.lasting:
                lasting[at] = keep_for_good(list(students.values())[-1], held_out, edits["trained_teacher"], settings, journal)
        parts: dict[str, Any] = {}
        for name, exchange in students.items():
            parts[name] = {"student": exchange.describe().model_dump(), **report_student(contexts, tried[name], "trained_teacher")}
            by_seed = zip(settings.seeds, tried[name], strict=True)
            parts[name]["by_seed"] = {str(seed): report_student(contexts, [one], "trained_teacher") for seed, one in by_seed}
        report = folder.write_report(
            {
                "trained_teachers": trained_teachers,
                **parts,
                "lasting_update": lasting,
            }
        )
    shown = settings.pictures
    for name, part in parts.items():
        console.print(table(f"{name.replace('_', ' ')} ({part['student']['model']})", part))
        console.print("\n".join(describe(part)))
        save_pictures(domain, contexts[:shown], tell_answers(tried[name][0], shown), folder.path / f"pictures-{name}")
    path = trained.teacher.adapter or trained.teacher.model
    console.print(f"\ntrained teacher: {path}\nreport: {report}\n{next_step(trained, settings.next_recipe or domain.adapt_recipe)}")
    return report


def train_teachers(outer: Outer, team: Team, training: Sequence[Context], folder: RunFolder, at: str) -> tuple[Trained, dict[str, Trained]]:
    """The teacher and its controls: one that is finetuned on as many candidates, kept by lot, and one that is trained on plain rewards,
    where the teacher's are net of something.
    """
    trained = train_teacher(outer, team, training, folder, f"{at}/trained_teacher")
    controls = {"random_selection": replace(outer, selection="random", at_most=[len(kept.kept) for kept in trained.selections])}
    if outer.scoring.elsewhere:
        controls["plain_reward"] = replace(outer, scoring=replace(outer.scoring, elsewhere=None))
    return trained, {name: train_teacher(control, team, training, folder, f"{at}/{name}") for name, control in controls.items()}


def keep_for_good(exchange: Exchange, held_out: HeldOut, edits: Edits, settings: Experiment, journal: Journal) -> dict[str, Any]:
    """A lasting update from a teacher's first self-edits on the first held-out contexts; the comparison stands without it."""
    update = Update(epochs=settings.lasting_epochs)
    pairs = list(zip(held_out.contexts, edits, strict=True))[: settings.lasting]
    lessons = [
        Lesson(context=context, edit=edit.model_copy(update={"update": update}))
        for context, own in pairs
        for edit in own[:1]
        if isinstance(edit, SelfEdit)
    ]
    try:
        card = commit(exchange, held_out.task, lessons, [held_out.seed], journal)
    except InnerLoopFailed as error:
        console.print(f"no lasting update: {error}")
        return {"failed": str(error)}
    version = report_versions([(card, lessons)], held_out.domain)
    console.print(describe_versions(version))
    return version
