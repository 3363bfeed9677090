"""Adapt a student with a frozen teacher: the teacher writes, the student learns, and stays so.

Works on contexts without questions too: then there is no accuracy to report, only the updated student.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from protocol.errors import InnerLoopFailed
from protocol.exchange import Exchange
from protocol.journal import Journal, RoundRecord
from protocol.messages import Answers, AskRequest, Change, Context, Lesson, Reward, Task, VersionCard
from recipes.candidates import make_request, read_edit
from recipes.domains import RecipeDomain
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.memory import Choice, Use, choose_memory
from recipes.pictures import save_pictures
from recipes.retrieval import look_up, store_passages
from recipes.run_folder import RunFolder
from recipes.settings import AdaptStudent
from recipes.stages import ask, commit, open_student, place_grader, score, write_candidates
from recipes.statistics import difference, summarize
from recipes.team import Team
from recipes.terminal import console

Made = tuple[VersionCard, Sequence[Lesson]]
"""A lasting update and what was learned in it."""
WHEN: Final = ("before", "after")


def run(settings: AdaptStudent, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=settings.use == "best")
    models = {**student_models({"student": settings.student}), **teacher_models(settings.teacher, "teacher")}
    with RunFolder(settings, {"contexts": contexts}, models, team) as folder:
        journal, stage = folder.journal, "adapt"
        if stage not in journal.rounds:
            journal.append(RoundRecord(stage=stage, contexts=tuple(context.id for context in contexts)))
        editor = open_editor(settings, domain, folder.path)
        uses, store = domain.load_uses(settings.contexts.source), Path(settings.memory.store or folder.path / "store.jsonl")
        choices = {context.id: choose_memory(context, uses.get(context.id, Use()), settings.memory) for context in contexts}
        stored = store_passages(store, contexts, choices)
        asked = dict(zip(choices, look_up(contexts, stored.values(), settings.retrieval), strict=True))
        wanted = [context for context in contexts if choices[context.id].is_learned]
        records = write_candidates(team, settings.teacher, domain, wanted, settings.candidates, settings.seed, stage, journal, editor)
        by_id = {context.id: context for context in contexts}
        lessons = [
            Lesson(context=by_id[record.context], edit=edit)
            for record in records
            if (edit := read_edit(record, domain, by_id[record.context]))
        ]
        with open_student(
            team, domain, "student", settings.student, place_grader(team, settings, folder), folder, settings.distributed.deepspeed
        ) as exchange:
            if settings.use == "best":
                lessons = best_lessons(exchange, task, lessons, settings, stage, journal)
            lessons = [lesson.model_copy(update={"context": asked[lesson.context.id]}) for lesson in lessons]
            made, reasons = [], {record.context: record.unusable for record in records if record.unusable}
            for title, learned in group_lessons(lessons, settings.passages) if wanted else ():
                try:
                    made.append((commit(exchange, task, learned, [settings.seed], journal, title), learned))
                except InnerLoopFailed as error:
                    if settings.passages == "together":
                        raise
                    reasons[learned[0].context.unaided.id] = str(error)
                    console.print(f"{title}: no lasting update: {error}")
            if wanted and not made:
                raise InnerLoopFailed("no context has a lasting update; try another teacher")
            updated = {lesson.context.unaided.id for _, learned in made for lesson in learned}
            left = [context for context in wanted if context.id not in updated]
            only_stored = [asked[context.id] for context in contexts if not choices[context.id].is_learned]
            as_they_are = [*([asked[c.id] for c in left] if settings.passages == "single" else []), *only_stored]
            versions = report_versions(made, domain, answer_untouched(exchange, task, as_they_are, stage, journal))
            versions["without_update"] = [{"context": c.id, "title": c.label, "reason": reasons[c.id]} for c in left]
            versions |= report_memory(contexts, asked, choices, str(store) if stored else None)
            report = folder.write_report(
                {
                    "base": exchange.describe().model_dump(),
                    "malformed": sum(record.malformed is not None for record in records),
                    **versions,
                }
            )
        shown = [pair for card, learned in made for pair in by_context(card, learned)][: settings.pictures]
        told = [{"before": [o.answer for o in change.base], "after": [o.answer for o in change.adapted[0]]} for _, change in shown]
        console.print(describe_versions(versions) + f"\nreport: {report}")
        save_pictures(domain, [context for context, _ in shown], told, folder.path / "pictures")
    return report


def group_lessons(lessons: Sequence[Lesson], passages: str) -> list[tuple[str, list[Lesson]]]:
    """What is learned in one adapter, with its title if there are several: all together, or each context's lessons."""
    if passages == "together":
        return [("", list(lessons))]
    groups: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.context.id, []).append(lesson)
    return [(own[0].context.label, own) for own in groups.values()]


def best_lessons(
    exchange: Exchange, task: Task, lessons: Sequence[Lesson], settings: AdaptStudent, stage: str, journal: Journal
) -> list[Lesson]:
    """Of each context's lessons the one with the highest reward; ties keep the earlier."""
    requests = [make_request(task, lesson.context, lesson.edit, settings.seed, range(settings.repeats)) for lesson in lessons]
    results = score(exchange, requests, stage, journal)
    best: dict[str, tuple[float, Lesson]] = {}
    for lesson, result in zip(lessons, results, strict=True):
        value = result.value if isinstance(result, Reward) else -1.0
        if lesson.context.id not in best or value > best[lesson.context.id][0]:
            best[lesson.context.id] = (value, lesson)
    return [lesson for _, lesson in best.values()]


def report_memory(
    contexts: Sequence[Context], asked: Mapping[str, Context], choices: Mapping[str, Choice], store: str | None
) -> dict[str, Any]:
    """The memory's part of a report.

    Args:
        asked: By id, contexts with what was found for their questions.

    Returns:
        The `store`; the `memory` of each context, and why; and how many questions about what is learned alone are `misled`: they have
        a passage in view that can only be another's.
    """
    alone = [asked[context.id] for context in contexts if not choices[context.id].is_stored]
    return {
        "store": store,
        "memory": [{"context": context.id, "title": context.label, **asdict(choices[context.id])} for context in contexts],
        "misled": sum(bool(question.found) for context in alone for question in context.questions),
    }


def answer_untouched(
    exchange: Exchange, task: Task, contexts: Sequence[Context], stage: str, journal: Journal
) -> list[tuple[Context, Change]]:
    """What contexts without an update of their own are answered: what the student answers as it is. None where it refuses."""
    if not contexts:
        return []
    answers = ask(exchange, [AskRequest(task=task, context=context) for context in contexts], f"{stage} · without an update", journal)
    return [
        (context, Change(base=own.outcomes, adapted=(own.outcomes,)))
        for context, own in zip(contexts, answers, strict=True)
        if isinstance(own, Answers)
    ]


def report_versions(made: Sequence[Made], domain: RecipeDomain, untouched: Sequence[tuple[Context, Change]] = ()) -> dict[str, Any]:
    """The lasting students' part of a report: where they are, every answer before and after, and how many are right.

    Args:
        untouched: Contexts without an update, which count too.
    """
    changes = [*(pair for card, lessons in made for pair in by_context(card, lessons)), *untouched]
    report: dict[str, Any] = {
        "versions": [card.model_dump(exclude={"changes"}) for card, _ in made],
        "answers": [
            {
                "context": context.unaided.id,
                "title": context.title,
                "prompt": prompt,
                "gold": question.answers,
                "before": old.answer,
                "after": new.answer,
                "correct_before": old.correct,
                "correct_after": new.correct,
            }
            for context, change in changes
            for prompt, question, old, new in zip(
                first_prompts(domain, context), context.questions, change.base, change.adapted[0], strict=True
            )
        ],
    }
    graded = [(context, change) for context, change in changes if change.is_graded]
    if graded:
        before, after = [change.base_accuracy for _, change in graded], [change.adapted_accuracy for _, change in graded]
        groups = [context.group for context, _ in graded]
        rows = [row for row in report["answers"] if row["gold"]]
        report["scores"] = {"before": summarize(before, groups), "after": summarize(after, groups)}
        report["gain"] = difference(after, before, groups)
        golds = [row["gold"] for row in rows]
        report["metrics"] = {when: dict(domain.measure([row[when] for row in rows], golds)) for when in WHEN}
    return report


def first_prompts(domain: RecipeDomain, context: Context) -> Sequence[str]:
    """What is asked for each question; the first, where several answers vote."""
    prompts = domain.ask(context)
    return prompts[:: max(1, len(prompts) // max(1, len(context.questions)))]


def by_context(card: VersionCard, lessons: Sequence[Lesson]) -> list[tuple[Context, Change]]:
    """Contexts with their change, each once even if it was learned from several self-edits."""
    found = {lesson.context.id: (lesson.context, change) for lesson, change in zip(lessons, card.changes, strict=True)}
    return list(found.values())


def describe_versions(report: dict[str, Any]) -> str:
    """What the user is told of lasting updates."""
    told = "\n".join(f"lasting student: {v['path']} ({v['trained_tokens']} tokens, {v['seconds']:.1f} s)" for v in report["versions"])
    if "scores" in report:
        before, after = report["scores"]["before"], report["scores"]["after"]
        told += f"\nanswers right: {before['mean']:.1%} before, {after['mean']:.1%} after, on {after['n']} contexts"
    if report.get("store"):
        kept = Counter(choice["memory"] for choice in report["memory"])
        told += f"\nmemory: {', '.join(f'{count} contexts in {name}' for name, count in kept.items())}; the store: {report['store']}"
        told += "\nwhat is found there is in view, before and after; contexts in retrieval are answered by the student without an update"
        if report["misled"]:
            told += f"\n{report['misled']} questions about what is in weights alone have another's passage in view; raise retrieval.floor"
    answered = {row["context"] for row in report["answers"]}
    if left := report.get("without_update"):
        counted = "count as the untouched student answers them" if left[0]["context"] in answered else "do not count"
        told += f"\nno update: {len(left)} contexts have none and {counted}; the first, {left[0]['title']}: {left[0]['reason']}"
    return told
