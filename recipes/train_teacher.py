"""Train a teacher for a target student by ReST-EM: sample self-edits, keep the best, finetune, repeat.

Source: SEAL, arXiv 2506.10943, section 3.1.
"""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from protocol.identity import derive_seed
from protocol.journal import CandidateRecord, Journal, RoundRecord, SelectionRecord
from protocol.messages import Context
from recipes.base_settings import LOCAL
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.loop_settings import UseSettings
from recipes.m_step import Outer, Trained, improve, is_over
from recipes.net_reward import known_elsewhere, open_elsewhere
from recipes.reliability import describe_reliability
from recipes.run_folder import RunFolder, read_contexts
from recipes.scoring import Scoring, group_by_context, reliability_of, score_candidates
from recipes.settings import TrainTeacher
from recipes.stages import open_student, place_grader, write_candidates
from recipes.team import Team
from recipes.terminal import console
from recipes.use_rewards import UsedEdit, read_use, read_used, record_used, select_used
from teacher.selection import keep_best, keep_random
from teacher.serving import serve_adapter
from teacher.settings import TeacherSettings


def run(settings: TrainTeacher, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=True) if settings.rounds else ([], {})
    elsewhere = open_elsewhere(settings.net, domain, contexts or list(read_used(settings.use).values()), settings.seed)
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    deepspeed = settings.distributed.deepspeed
    with (
        RunFolder(settings, {"contexts": contexts, **known_elsewhere(elsewhere)}, models, team) as folder,
        open_student(team, domain, "student", settings.student, place_grader(team, settings, folder), folder, deepspeed) as exchange,
    ):
        editor = open_editor(settings, domain, folder.path)
        scoring = Scoring(domain, task, settings, settings.repeats, settings.seed, editor, elsewhere)
        outer = Outer(scoring, {"student": exchange}, settings.teacher, settings.finetune, deepspeed, settings.selection)
        used = train_on_use(outer, team, settings.use, folder, "teacher") if settings.use.line else Trained(settings.teacher)
        trained = train_teacher(replace(outer, teacher=used.teacher), team, contexts, folder, "teacher")
        trained.fingerprint = trained.fingerprint or used.fingerprint
        told = trained.report()
        report = folder.write_report(
            {
                **told,
                "use": used.report()["mean_reward_by_round"],
                "student": exchange.describe().model_dump(),
            }
        )
    for number, row in enumerate(told["mean_reward_by_round"], start=1):
        console.print(f"round {number}: mean reward {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], {row['n']} contexts")
    console.print(f"trained teacher: {told['teacher']['path']}\nreport: {report}")
    console.print(next_step(trained, settings.next_recipe or domain.adapt_recipe, settings.student.exchange))
    return report


def train_teacher(outer: Outer, team: Team, contexts: Sequence[Context], folder: RunFolder, stage: str) -> Trained:
    """The outer loop. `stage` names its records in the journal and its folder of checkpoints."""
    journal, scoring = folder.journal, outer.scoring
    trained = Trained(outer.teacher)
    for number in range(1, scoring.loop.rounds + 1):
        this_round = f"{stage}/round-{number}"
        batch = contexts_of_round(contexts, number, outer)
        if this_round not in journal.rounds:
            journal.append(RoundRecord(stage=this_round, contexts=tuple(context.id for context in batch)))
        if is_over(trained, folder, this_round):
            continue
        # E step: sample, and have the samples scored
        times = [time.perf_counter()]
        candidates = write_candidates(
            team, trained.teacher, scoring.domain, batch, scoring.loop.candidates, scoring.seed, this_round, journal, scoring.editor
        )
        times.append(time.perf_counter())
        if this_round not in journal.selections:
            at_most = None if outer.at_most is None else outer.at_most[number - 1]
            journal.append(select(outer, batch, candidates, this_round, journal, at_most))
        # M step
        improve(outer, team, trained, batch, candidates, folder, this_round, times)
    if trained.teacher.is_at_endpoint and trained.teacher.adapter:  # as it served each round's for the next to sample
        console.print(f"{stage}: the endpoint serves the trained teacher as {serve_adapter(trained.teacher)}")
    return trained


def train_on_use(outer: Outer, team: Team, use: UseSettings, folder: RunFolder, stage: str) -> Trained:
    """A round whose self-edits need not be sampled: a line's students have learned them, and were used."""
    scoring = replace(outer.scoring, loop=replace(outer.scoring.loop, minimum=use.minimum, give_up_below=0.0))
    journal, outer, this_round = folder.journal, replace(outer, scoring=scoring), f"{stage}/use"
    trained = Trained(outer.teacher)
    if is_over(trained, folder, this_round):
        return trained
    times = [time.perf_counter()]
    used: list[UsedEdit] = []
    if this_round in journal.selections:
        candidates = [journal.candidates[key] for key in journal.candidates if key[0] == this_round]
    else:
        used, candidates = record_used(scoring.domain, read_use(use), this_round)
        folder.add_contexts([one.context for one in used])
        if this_round not in journal.rounds:
            journal.append(RoundRecord(stage=this_round, contexts=tuple(dict.fromkeys(c.context for c in candidates))))
        journal.append(*(c for c in candidates if (this_round, c.context, c.index) not in journal.candidates))
    known = read_contexts(folder.path)
    contexts = [known[context] for context in dict.fromkeys(c.context for c in candidates)]
    if scoring.editor:
        candidates = scoring.editor.edit(contexts, candidates, this_round, journal)
    if this_round not in journal.selections:
        journal.append(select_used(scoring, outer.students, used, candidates, use.weight, this_round, journal))
    improve(outer, team, trained, contexts, candidates, folder, this_round, times)
    return trained


def next_step(trained: Trained, recipe: str, exchange: str = LOCAL) -> str:
    """The command that uses a trained teacher, told as far as it is not as every teacher; for its student, if that is elsewhere."""
    told = [f"teacher.{name}={getattr(trained.teacher, name)}" for name in ("model", "adapter")]
    usual = TeacherSettings()
    told += [f"teacher.endpoint.{n}={v}" for n in ("base_url", "model") if (v := getattr(trained.teacher.endpoint, n)) is not None]
    told += [f"teacher.{n}={v}" for n in ("chat", "dtype") if (v := getattr(trained.teacher, n)) != getattr(usual, n)]
    told += [] if exchange == LOCAL else ["student.model=", f"student.exchange={exchange}"]
    return f"next: tutelage run {recipe} {' '.join(word for word in told if not word.endswith('=None'))} name=my-student"


def contexts_of_round(contexts: Sequence[Context], number: int, outer: Outer) -> list[Context]:
    """Contexts in an order drawn from the seed, the next so many each round; at the end it starts over."""
    order = list(contexts)
    random.Random(outer.scoring.seed).shuffle(order)
    count = min(outer.scoring.loop.contexts_per_round, len(order))
    start = (number - 1) * count
    return [order[(start + i) % len(order)] for i in range(count)]


def select(
    outer: Outer,
    contexts: Sequence[Context],
    candidates: Sequence[CandidateRecord],
    stage: str,
    journal: Journal,
    at_most: int | None = None,
) -> SelectionRecord:
    """What the teacher is to be finetuned on: the best by reward, or some by lot, `at_most` so many. What is no self-edit, or was refused
    by the editor, is never kept.
    """
    scoring, loop = outer.scoring, outer.scoring.loop
    if outer.selection == "random":
        pool, seed = [c for c in candidates if c.unusable is None], derive_seed(scoring.seed, "lot", stage)
        kept = keep_random(pool, loop.keep_per_context, seed, context_of=lambda c: c.context, at_most=at_most)
        return SelectionRecord(stage=stage, rule="random", kept=tuple(c.candidate for c in kept))
    scored = score_candidates(scoring, outer.students, contexts, candidates, stage, journal)
    running = [i for i, own in enumerate(scored) if own.running]
    kept = keep_best(
        [candidates[i] for i in running],
        [scored[i].reward for i in running],
        loop.keep_per_context,
        loop.minimum,
        context_of=lambda c: c.context,
    )
    reliability = reliability_of(scored, candidates, contexts)
    if reliability:
        console.print(f"{stage}: {describe_reliability(reliability)}")
    measured, groups = [own for own in scored if own.accuracies], group_by_context(candidates, contexts)
    if all(len({scored[i].reward for i in own if scored[i].running}) < 2 for own in groups):
        console.print(f"{stage}: all self-edits of each context were paid alike: these rewards teach nothing")
    firsts = [[reward for i in own if (reward := scored[i].first_reward) is not None] for own in groups]
    paid = [context.group for context, values in zip(contexts, firsts, strict=True) if values]
    return SelectionRecord(
        stage=stage,
        rule="best",
        kept=tuple(c.candidate for c in kept),
        rewards=tuple(statistics.fmean(values) for values in firsts if values),
        groups=tuple(paid) if any(paid) else (),
        reliability=reliability,
        saved=len(outer.students) * sum(scoring.repeats - len(own.accuracies) for own in measured),
    )
