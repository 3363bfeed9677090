"""Train a teacher for a target student by ReST-EM: sample self-edits, keep the best, finetune, repeat.

Source: SEAL, arXiv 2506.10943, section 3.1.
"""

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from protocol.domain import Domain
from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.files import hash_files, is_whole
from protocol.identity import derive_seed
from protocol.journal import CandidateRecord, CheckpointRecord, RoundRecord, SelectionRecord
from protocol.messages import Context, Refusal, Reward, Task
from recipes import terminal
from recipes.candidates import make_request, read_edit
from recipes.config import LoopSettings, TrainTeacher
from recipes.inputs import choose_style, choose_task, load_data, student_models, teacher_models
from recipes.run_folder import RunFolder
from recipes.stages import open_student, score, write_candidates
from recipes.statistics import summarize
from recipes.team import Team
from recipes.terminal import console
from recipes.zero_configs import find_config
from teacher.finetune import Finetuned, finetune
from teacher.selection import keep_best, keep_random
from teacher.settings import FinetuneSettings, TeacherSettings


@dataclass(frozen=True)
class Outer:
    """What one run of the outer loop is made with.

    Attributes:
        deepspeed: The configuration for finetuning, if any.
        selection: `best`, or `random` for the control.
    """

    domain: Domain
    task: Task
    loop: LoopSettings
    teacher: TeacherSettings
    finetune: FinetuneSettings
    deepspeed: str | None
    repeats: int
    seed: int
    selection: str = "best"


@dataclass
class Trained:
    """A trained teacher: how to load it, what identifies it, and the rewards of each round's candidates, mean per context."""

    teacher: TeacherSettings
    fingerprint: str | None = None
    rewards: list[list[float]] = field(default_factory=list)


def run(settings: TrainTeacher, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    started = time.perf_counter()
    domain, task = choose_task(settings)
    contexts, _ = load_data(settings.contexts, "contexts", questions=True)
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    deepspeed = settings.distributed.deepspeed
    with (
        RunFolder(settings, {"contexts": contexts}, models, team) as folder,
        open_student(team, settings.student, folder, deepspeed) as exchange,
    ):
        outer = Outer(
            domain, task, settings, settings.teacher, settings.finetune, deepspeed, settings.repeats, settings.seed, settings.selection
        )
        trained = train_teacher(outer, team, exchange, contexts, folder, "teacher")
        path = trained.teacher.adapter or trained.teacher.model
        rounds = [summarize(rewards) for rewards in trained.rewards if rewards]
        report = folder.write_report(
            {
                "recipe": settings.recipe,
                "name": settings.name,
                "seeds": [settings.seed],
                "teacher": {"path": path, "fingerprint": trained.fingerprint},
                "student": exchange.describe().model_dump(),
                "mean_reward_by_round": rounds,
                "inner_loops": folder.journal.inner_loops,
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
        )
    for number, row in enumerate(rounds, start=1):
        console.print(f"round {number}: mean reward {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], {row['n']} contexts")
    console.print(f"trained teacher: {path}\nreport: {report}")
    console.print(next_step(trained))
    return report


def train_teacher(outer: Outer, team: Team, exchange: Exchange, contexts: Sequence[Context], folder: RunFolder, stage: str) -> Trained:
    """The outer loop. `stage` names its records in the journal and its folder of checkpoints."""
    journal = folder.journal
    trained = Trained(outer.teacher)
    for number in range(1, outer.loop.rounds + 1):
        this_round = f"{stage}/round-{number}"
        batch = contexts_of_round(contexts, number, outer)
        if this_round not in journal.rounds:
            journal.append(RoundRecord(stage=this_round, contexts=tuple(context.id for context in batch)))
        output = folder.path / stage / f"round-{number}"
        if this_round in journal.checkpoints and is_whole(output):
            trained.rewards.append(list(journal.selections[this_round].rewards))
            trained.teacher, trained.fingerprint = load_from(outer.teacher, output), journal.checkpoints[this_round].fingerprint
            continue
        # E step: sample, and have the samples scored
        times = [time.perf_counter()]
        candidates = write_candidates(team, trained.teacher, outer.domain, batch, outer.loop.candidates, outer.seed, this_round, journal)
        times.append(time.perf_counter())
        if this_round not in journal.selections:
            rewards = score_candidates(outer, exchange, batch, candidates, this_round, folder) if outer.selection == "best" else []
            chosen = tuple(c.candidate for c in select(outer, candidates, rewards, this_round))
            means = tuple(per_context(candidates, rewards))
            journal.append(SelectionRecord(stage=this_round, rule=outer.selection, kept=chosen, rewards=means))
        times.append(time.perf_counter())
        selection = journal.selections[this_round]
        trained.rewards.append(list(selection.rewards))
        kept = [c for c in candidates if c.candidate in selection.kept]
        if not kept:
            console.print(f"{this_round}: no candidate is a self-edit, so the teacher stays as it is")
            continue
        # M step: finetune on what was kept
        results = finetune_on(outer, team, trained.teacher, kept, batch, this_round, output)
        trained.teacher, trained.fingerprint = load_from(outer.teacher, output), hash_files(output.glob("*.safetensors"))
        journal.append(CheckpointRecord(stage=this_round, path=f"{stage}/round-{number}", fingerprint=trained.fingerprint))
        folder.log_metrics(
            stage=this_round,
            candidates=len(candidates),
            malformed=sum(c.malformed is not None for c in candidates),
            kept=len(kept),
            mean_reward=summarize(trained.rewards[-1])["mean"] if trained.rewards[-1] else None,
            finetune_loss=statistics.fmean(losses) if (losses := [r.loss for r in results if r.loss is not None]) else None,
            zero_stage=results[0].zero_stage,
            trained_elements=results[0].trained_elements,
            optimizer_elements=[result.optimizer_elements for result in results],
            **seconds_of(times, ("sampling_seconds", "scoring_seconds", "finetuning_seconds")),
        )
    return trained


def seconds_of(times: Sequence[float], phases: Sequence[str]) -> dict[str, float]:
    """How long each phase took, from the times at which they began; the last ends now."""
    ends = [*times[1:], time.perf_counter()]
    return {phase: round(end - start, 3) for phase, start, end in zip(phases, times, ends, strict=True)}


def finetune_on(
    outer: Outer,
    team: Team,
    teacher: TeacherSettings,
    kept: Sequence[CandidateRecord],
    contexts: Sequence[Context],
    stage: str,
    output: Path,
) -> list[Finetuned]:
    """The M step, by all processes together; returns what each saw of it."""
    by_id = {context.id: context for context in contexts}
    style = choose_style(teacher.style, outer.domain)
    pairs = [(outer.domain.prompt(by_id[c.context], style), c.text) for c in kept]
    seed = derive_seed(outer.seed, "finetune", stage)
    steps = outer.finetune.epochs * math.ceil(len(pairs) / outer.finetune.step_size)
    with terminal.stage(f"{stage} · finetuning the teacher on {len(pairs)} self-edits", steps) as advance:
        return team.together(
            finetune, teacher, pairs, outer.finetune, seed, output, find_config(outer.deepspeed), on_step=lambda: advance(1, "")
        )


def next_step(trained: Trained) -> str:
    """The command that uses a trained teacher."""
    teacher = trained.teacher
    adapter = f" teacher.adapter={teacher.adapter}" if teacher.adapter else ""
    return f"next: tutelage run recipes/tiny/adapt_student.yaml teacher.model={teacher.model}{adapter} name=my-student"


def contexts_of_round(contexts: Sequence[Context], number: int, outer: Outer) -> list[Context]:
    """Contexts in an order drawn from the seed, the next so many each round; at the end it starts over."""
    order = list(contexts)
    random.Random(outer.seed).shuffle(order)
    count = min(outer.loop.contexts_per_round, len(order))
    start = (number - 1) * count
    return [order[(start + i) % len(order)] for i in range(count)]


def score_candidates(
    outer: Outer, exchange: Exchange, contexts: Sequence[Context], candidates: Sequence[CandidateRecord], stage: str, folder: RunFolder
) -> list[float]:
    """The reward of each candidate: what the student says, or the domain's floor where there is no self-edit or no score."""
    by_id = {context.id: context for context in contexts}
    edits = [read_edit(c, outer.domain, by_id[c.context]) for c in candidates]
    requests = [
        make_request(outer.task, by_id[c.context], edit, outer.seed, outer.repeats) if edit else None
        for c, edit in zip(candidates, edits, strict=True)
    ]
    results = score(exchange, requests, stage, folder.journal)
    refused = [result.reason for result in results if isinstance(result, Refusal)]
    if refused:
        console.print(f"{stage}: {len(refused)} self-edits were refused and get the floor {outer.domain.floor}, such as: {refused[0]}")
        if len(refused) == sum(edit is not None for edit in edits):
            raise TutelageError(f"{stage}: all {len(refused)} self-edits were refused, so there is nothing to learn from")
    return [result.value if isinstance(result, Reward) else outer.domain.floor for result in results]


def select(outer: Outer, candidates: Sequence[CandidateRecord], rewards: Sequence[float], stage: str) -> list[CandidateRecord]:
    """What the teacher is finetuned on. A candidate that is no self-edit is never kept."""
    readable = [i for i, c in enumerate(candidates) if c.malformed is None]
    pool = [candidates[i] for i in readable]
    loop = outer.loop
    if outer.selection == "random":
        return keep_random(pool, loop.keep_per_context, derive_seed(outer.seed, "lot", stage), context_of=lambda c: c.context)
    return keep_best(pool, [rewards[i] for i in readable], loop.keep_per_context, loop.minimum, context_of=lambda c: c.context)


def load_from(teacher: TeacherSettings, checkpoint: Path) -> TeacherSettings:
    """The same teacher with its weights from a checkpoint: a PEFT folder, or a whole model."""
    if (checkpoint / "adapter_config.json").exists():
        return replace(teacher, adapter=str(checkpoint))
    return replace(teacher, model=str(checkpoint), adapter=None, revision=None)


def per_context(candidates: Sequence[CandidateRecord], rewards: Sequence[float]) -> list[float]:
    """Mean reward of each context's candidates."""
    groups: dict[str, list[float]] = {}
    for candidate, reward in zip(candidates, rewards, strict=False):
        groups.setdefault(candidate.context, []).append(reward)
    return [sum(group) / len(group) for group in groups.values()]
