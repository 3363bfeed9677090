"""Train a teacher for a target student by ReST-EM: sample self-edits, keep the best, finetune, repeat.

Source: SEAL, arXiv 2506.10943, section 3.1.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from protocol.domain import Domain
from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.identity import derive_seed
from protocol.journal import CandidateRecord, CheckpointRecord, RoundRecord, SelectionRecord
from protocol.messages import Context, Refusal, Reward, Task
from recipes import terminal
from recipes.config import LoopSettings, TrainTeacher
from recipes.inputs import choose_style, choose_task, identify, load_data, student_models, teacher_models
from recipes.run_folder import RunFolder
from recipes.stages import make_request, open_student, read_edit, score, write_candidates
from recipes.statistics import summarize
from recipes.terminal import console
from teacher.policy import Policy
from teacher.selection import keep_best, keep_random
from teacher.settings import FinetuneSettings, TeacherSettings


@dataclass(frozen=True)
class Outer:
    """What one run of the outer loop is made with; `selection` is `best`, or `random` for the control."""

    domain: Domain
    task: Task
    loop: LoopSettings
    teacher: TeacherSettings
    finetune: FinetuneSettings
    repeats: int
    seed: int
    selection: str = "best"


@dataclass
class Trained:
    """A trained teacher: how to load it, what identifies it, and the rewards of each round's candidates, mean per context."""

    teacher: TeacherSettings
    fingerprint: str | None = None
    rewards: list[list[float]] = field(default_factory=list)


def run(settings: TrainTeacher) -> Path:
    """Run the recipe; returns the path of its report."""
    started = time.perf_counter()
    domain, task = choose_task(settings)
    contexts, _ = load_data(settings.contexts, "contexts", questions=True)
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    with RunFolder(settings, identify({"contexts": contexts}, models)) as folder:
        exchange = open_student(settings.student, folder)
        outer = Outer(domain, task, settings, settings.teacher, settings.finetune, settings.repeats, settings.seed, settings.selection)
        trained = train_teacher(outer, exchange, contexts, folder, "teacher")
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
                "inner_loops": folder.count_inner_loops(),
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
        )
    for number, row in enumerate(rounds, start=1):
        console.print(f"round {number}: mean reward {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], {row['n']} contexts")
    console.print(f"trained teacher: {path}\nreport: {report}")
    console.print(next_step(trained))
    return report


def train_teacher(outer: Outer, exchange: Exchange, contexts: Sequence[Context], folder: RunFolder, stage: str) -> Trained:
    """The outer loop. `stage` names its records in the journal and its folder of checkpoints."""
    journal = folder.journal
    trained = Trained(outer.teacher)
    policy: Policy | None = None
    for number in range(1, outer.loop.rounds + 1):
        this_round = f"{stage}/round-{number}"
        batch = contexts_of_round(contexts, number, outer)
        if this_round not in journal.rounds:
            journal.append(RoundRecord(stage=this_round, contexts=tuple(context.id for context in batch)))
        output = folder.path / stage / f"round-{number}"
        if this_round in journal.checkpoints and any(output.glob("*.safetensors")):
            trained.rewards.append(_journaled_rewards(outer, exchange, batch, this_round, folder))
            trained.teacher, trained.fingerprint = load_from(outer.teacher, output), journal.checkpoints[this_round].fingerprint
            policy = None
            continue
        policy = policy or Policy(trained.teacher)
        # E step: sample, and have the samples scored
        style = choose_style(outer.teacher.style, outer.domain)
        candidates = write_candidates(policy, outer.domain, style, batch, outer.loop.candidates, outer.seed, this_round, journal)
        rewards = score_candidates(outer, exchange, batch, candidates, this_round, folder) if outer.selection == "best" else []
        if this_round not in journal.selections:
            chosen = tuple(c.candidate for c in select(outer, candidates, rewards, this_round))
            journal.append(SelectionRecord(stage=this_round, rule=outer.selection, kept=chosen))
        kept = [c for c in candidates if c.candidate in journal.selections[this_round].kept]
        trained.rewards.append(per_context(candidates, rewards))
        if not kept:
            console.print(f"{this_round}: no candidate is a self-edit, so the teacher stays as it is")
            continue
        # M step: finetune on what was kept
        by_id = {context.id: context for context in batch}
        pairs = [(outer.domain.prompt(by_id[c.context], style), c.text) for c in kept]
        seed = derive_seed(outer.seed, "finetune", this_round)
        steps = outer.finetune.epochs * math.ceil(len(pairs) / (outer.finetune.batch_size * outer.finetune.accumulation))
        with terminal.stage(f"{this_round} · finetuning the teacher on {len(pairs)} self-edits", steps) as advance:
            loss = policy.finetune(pairs, outer.finetune, seed, output, on_step=lambda: advance(1, ""))
        folder.log_metrics(
            stage=this_round,
            candidates=len(candidates),
            malformed=sum(c.malformed is not None for c in candidates),
            kept=len(kept),
            mean_reward=summarize(trained.rewards[-1])["mean"] if trained.rewards[-1] else None,
            finetune_loss=loss,
        )
        trained.teacher, trained.fingerprint = load_from(outer.teacher, output), policy.fingerprint
        journal.append(CheckpointRecord(stage=this_round, path=f"{stage}/round-{number}", fingerprint=trained.fingerprint))
    return trained


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
    style = choose_style(outer.teacher.style, outer.domain)
    edits = [read_edit(c, outer.domain, by_id[c.context], style) for c in candidates]
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


def _journaled_rewards(outer: Outer, exchange: Exchange, batch: Sequence[Context], stage: str, folder: RunFolder) -> list[float]:
    """A finished round's rewards, without computing anything."""
    if outer.selection != "best":
        return []
    candidates = [folder.journal.candidates[stage, context.id, i] for context in batch for i in range(outer.loop.candidates)]
    return per_context(candidates, score_candidates(outer, exchange, batch, candidates, stage, folder))
