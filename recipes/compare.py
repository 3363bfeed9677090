"""Compare teachers with baselines on held-out contexts: what a student gains from each, with intervals."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from protocol.domain import Domain
from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.journal import Journal
from protocol.messages import Context, Question, Refusal, Reward, SelfEdit, Task
from recipes.candidates import make_request, read_edit
from recipes.config import Compare
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.run_folder import RunFolder
from recipes.stages import open_student, place_grader, score, write_candidates
from recipes.statistics import Summary, difference, summarize
from recipes.team import Team
from recipes.terminal import console
from teacher.settings import TeacherSettings

Edits = Sequence[SelfEdit | None]
"""One per held-out context; None where the teacher's candidate was no self-edit, which leaves the student as it was."""


@dataclass(frozen=True)
class HeldOut:
    """What conditions are compared on. `retention` are contexts whose questions students know before any update."""

    domain: Domain
    task: Task
    contexts: Sequence[Context]
    references: Mapping[str, str]
    retention: Sequence[Context]
    repeats: int
    seed: int


@dataclass
class Measured:
    """One condition on one student: accuracy per context, and what else changed."""

    accuracies: list[float]
    gained: int = 0
    lost: int = 0
    seconds: float = 0.0
    malformed: int = 0
    refused: int = 0


@dataclass
class Scores:
    """All conditions on one student, and the side effects of the last teacher's edits: (before, after) per context.

    None where a context has no reward, or the probe was not asked.
    """

    conditions: dict[str, Measured]
    leakage: list[tuple[float, float] | None]
    retention: list[tuple[float, float] | None]


def run(settings: Compare, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    started = time.perf_counter()
    domain, task = choose_task(settings)
    contexts, references = load_data(settings.contexts, "contexts", questions=True)
    retention = load_data(settings.retention, "retention", questions=True)[0] if settings.retention.source else []
    held_out = HeldOut(domain, task, contexts, references, retention, settings.repeats, settings.seed)
    models = student_models({f"students.{name}": student for name, student in settings.students.items()})
    for name, teacher in settings.teachers.items():
        models |= teacher_models(teacher, f"teachers.{name}")
    with RunFolder(settings, {"contexts": contexts, "retention": retention}, models, team) as folder:
        edits = {name: write_edits(team, teacher, held_out, name, folder.journal) for name, teacher in settings.teachers.items()}
        students: dict[str, Any] = {}
        grader = place_grader(team, settings)
        for name, student in settings.students.items():
            with open_student(team, student, grader, folder, settings.distributed.deepspeed) as exchange:
                scores = score_conditions(exchange, held_out, edits, name, folder.journal)
                students[name] = {"student": exchange.describe().model_dump(), **report_scores([scores])}
            console.print(table(name, students[name]))
        report = folder.write_report(
            {
                "recipe": settings.recipe,
                "name": settings.name,
                "seeds": [settings.seed],
                **students,
                "inner_loops": folder.journal.inner_loops,
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
        )
    console.print(f"report: {report}")
    return report


def write_edits(team: Team, teacher: TeacherSettings, held_out: HeldOut, stage: str, journal: Journal) -> list[SelfEdit | None]:
    """One self-edit per held-out context by a frozen teacher."""
    records = write_candidates(team, teacher, held_out.domain, held_out.contexts, 1, held_out.seed, f"{stage}/held-out", journal)
    return [read_edit(r, held_out.domain, c) for r, c in zip(records, held_out.contexts, strict=True)]


def score_conditions(exchange: Exchange, held_out: HeldOut, teachers: Mapping[str, Edits], stage: str, journal: Journal) -> Scores:
    """Score every condition on one student: baselines, each teacher's edits, references, and the controls."""
    contexts, last = held_out.contexts, list(teachers)[-1]
    conditions: dict[str, Edits] = {"passage_only": [SelfEdit()] * len(contexts), **teachers}
    if all(context.id in held_out.references for context in contexts):
        conditions["reference_edits"] = [held_out.domain.parse(held_out.references[c.id], c) for c in contexts]
    conditions["other_context"] = [*teachers[last][1:], teachers[last][0]]
    results: dict[str, list[Reward | Refusal | None]] = {}
    for condition, edits in conditions.items():
        requests = [
            make_request(
                held_out.task,
                context,
                edit,
                held_out.seed,
                range(held_out.repeats),
                probes=side_effects(held_out, index) if condition == last else (),
            )
            if edit
            else None
            for index, (context, edit) in enumerate(zip(contexts, edits, strict=True))
        ]
        results[condition] = score(exchange, requests, f"{stage} · {condition}", journal)
    base = [base_accuracy(context, [row[i] for row in results.values()]) for i, context in enumerate(contexts)]
    measured = {condition: measure(row, base) for condition, row in results.items()}
    leakage, retention = (_before_and_after(results[last], probe) for probe in (0, 1))
    return Scores({"no_edit": Measured(base), **measured}, leakage, retention)


def base_accuracy(context: Context, results: Sequence[Reward | Refusal | None]) -> float:
    """The untouched student's accuracy on a context, as any of its rewards tells it."""
    for result in results:
        if isinstance(result, Reward):
            return result.change.base_accuracy
    reasons = {result.reason for result in results if isinstance(result, Refusal)}
    raise TutelageError(f"context {context.title!r} got no reward under any condition: {'; '.join(reasons) or 'no self-edit'}")


def measure(results: Sequence[Reward | Refusal | None], base: Sequence[float]) -> Measured:
    """One condition's figures; without a reward the student stays as it was."""
    rewards = [result for result in results if isinstance(result, Reward)]
    return Measured(
        [r.change.adapted_accuracy if isinstance(r, Reward) else untouched for r, untouched in zip(results, base, strict=True)],
        gained=sum(reward.gained for reward in rewards),
        lost=sum(reward.lost for reward in rewards),
        seconds=sum(reward.seconds for reward in rewards),
        malformed=sum(result is None for result in results),
        refused=sum(isinstance(result, Refusal) for result in results),
    )


def _before_and_after(results: Sequence[Reward | Refusal | None], probe: int) -> list[tuple[float, float] | None]:
    """Each context's accuracy on one of its probes: 0 for leakage, 1 for retention."""
    changes = [r.probes[probe] if isinstance(r, Reward) and len(r.probes) > probe else None for r in results]
    return [(change.base_accuracy, change.adapted_accuracy) if change else None for change in changes]


def side_effects(held_out: HeldOut, index: int) -> list[Context]:
    """What to ask beside the context's own questions, to see whether the update leaks or makes forget.

    Leakage: the next context's questions, "right" where the answer is one of *this* context's. Retention: questions of
    one context that the student knows from before.
    """
    context, other = held_out.contexts[index], held_out.contexts[(index + 1) % len(held_out.contexts)]
    taught = tuple(dict.fromkeys(answer for question in context.questions for answer in question.answers))
    probes = [Context(title=other.title, questions=tuple(Question(text=q.text, answers=taught) for q in other.questions))]
    if held_out.retention:
        probes.append(held_out.retention[index % len(held_out.retention)])
    return probes


def report_scores(seeds: Sequence[Scores]) -> dict[str, Any]:
    """A student's part of the report. With several seeds, a context's accuracy is its mean over them."""
    names = list(seeds[0].conditions)
    pooled = {name: _mean([scores.conditions[name].accuracies for scores in seeds]) for name in names}
    report: dict[str, Any] = {
        "scores": {name: summarize(pooled[name]) for name in names},
        "gain": {name: difference(pooled[name], pooled["no_edit"]) for name in names},
        "answers_gained": {name: sum(s.conditions[name].gained for s in seeds) for name in names},
        "answers_lost": {name: sum(s.conditions[name].lost for s in seeds) for name in names},
        "malformed": {name: sum(s.conditions[name].malformed for s in seeds) for name in names},
        "refused": {name: sum(s.conditions[name].refused for s in seeds) for name in names},
        "seconds": {name: round(sum(s.conditions[name].seconds for s in seeds), 1) for name in names},
    }
    for key, theirs in (("trained_minus_untrained", "untrained_teacher"), ("trained_minus_random", "random_selection")):
        if "trained_teacher" in names and theirs in names:
            report[key] = difference(pooled["trained_teacher"], pooled[theirs])
    for name in ("leakage", "retention"):
        by_context = zip(*(getattr(scores, name) for scores in seeds), strict=True)
        measured = [_mean(known) for changes in by_context if (known := [change for change in changes if change])]
        if measured:
            report[name] = {when: summarize([change[side] for change in measured]) for side, when in enumerate(("before", "after"))}
    return report


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def table(title: str, report: Mapping[str, Any]) -> Table:
    """The table a user sees."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("condition", no_wrap=True)
    for heading in ("accuracy", "95% interval", "n", "gain", "answers", "seconds"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for name, row in report["scores"].items():
        changed = f"+{report['answers_gained'][name]} -{report['answers_lost'][name]}"
        grid.add_row(
            name.replace("_", " "),
            f"{row['mean']:.1%}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            str(row["n"]),
            f"{report['gain'][name]['mean']:+.1%}",
            "" if name == "no_edit" else changed,
            "" if name == "no_edit" else f"{report['seconds'][name]:.0f}",
        )
    return grid


def describe_difference(summary: Summary) -> str:
    """A difference in points; says so where its interval does not support a ranking."""
    text = f"{summary['mean']:+.1%} [{summary['low']:+.1%}, {summary['high']:+.1%}]"
    return text if summary["low"] > 0 or summary["high"] < 0 else text + ", which supports no ranking"
