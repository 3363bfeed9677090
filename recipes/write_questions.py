"""Questions for texts that have none: a model writes them with the passage in view, and those stay that its student can use.

A question stays if the student agrees with the written answer when it sees the passage, and does not know it otherwise. What is left is
a file of contexts that any recipe takes. Where contexts have real questions, the recipe also measures how well rewards by the written
ones rank self-edits.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protocol.domain import Domain
from protocol.errors import TutelageError
from protocol.exchange import Exchange
from protocol.files import write_text
from protocol.journal import CandidateRecord, Journal, RoundRecord
from protocol.messages import AskRequest, Context, Refusal, Reward, Task
from recipes.candidates import make_request, read_edit
from recipes.domains.knowledge_text import QUESTION_STYLE, read_questions
from recipes.editor import open_editor
from recipes.inputs import choose_task, load_data, student_models, teacher_models
from recipes.run_folder import RunFolder
from recipes.settings import WriteQuestions
from recipes.stages import ask, open_student, place_grader, score, write_candidates
from recipes.statistics import rank_correlation, summarize
from recipes.team import Team
from recipes.terminal import console


def run(settings: WriteQuestions, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=settings.compared > 0)
    models = {**student_models({"student": settings.student}), **teacher_models(settings.writer, "writer")}
    if settings.compared:
        models |= teacher_models(settings.teacher, "teacher")
    with (
        RunFolder(settings, {"contexts": contexts}, models, team) as folder,
        open_student(
            team, domain, "student", settings.student, place_grader(team, settings, folder), folder, settings.distributed.deepspeed
        ) as exchange,
    ):
        journal = folder.journal
        if "questions" not in journal.rounds:
            journal.append(RoundRecord(stage="questions", contexts=tuple(context.id for context in contexts)))
        writer = replace(settings.writer, style=settings.writer.style or QUESTION_STYLE)
        texts = write_candidates(team, writer, domain, contexts, settings.samples, settings.seed, "questions", journal)
        written = [gather(context, texts, settings.samples, n) for n, context in enumerate(contexts)]
        kept = filter_by_agreement(exchange, task, written, journal)
        path = write_questions(folder.path / "questions.jsonl", kept)
        report: dict[str, Any] = {
            "contexts": len(contexts),
            "contexts_with_questions": sum(bool(context.questions) for context in kept),
            "questions_written": sum(len(context.questions) for context in written),
            "questions_kept": sum(len(context.questions) for context in kept),
            "student": exchange.describe().model_dump(),
        }
        if settings.compared:
            editor = open_editor(settings, domain, folder.path)
            stage = "self-edits"
            records = write_candidates(team, settings.teacher, domain, contexts, settings.compared, settings.seed, stage, journal, editor)
            report["ranking"] = compare_rewards(exchange, domain, task, settings, contexts, kept, records, journal)
        place = folder.write_report(report)
    console.print(
        f"questions kept: {report['questions_kept']} of {report['questions_written']}, on {report['contexts_with_questions']} of "
        f"{len(contexts)} contexts: {path}"
    )
    if "ranking" in report:
        console.print(describe_ranking(report["ranking"]))
    console.print(f"report: {place}\nnext: tutelage run recipes/tiny/train_teacher.yaml contexts.source={path} name=by-own-questions")
    return place


def gather(context: Context, texts: Sequence[CandidateRecord], samples: int, number: int) -> Context:
    """A context with the questions that its texts ask, each once, in place of its own."""
    asked = {
        question.text: question for record in texts[number * samples : (number + 1) * samples] for question in read_questions(record.text)
    }
    return context.model_copy(update={"questions": tuple(asked.values())})


def filter_by_agreement(exchange: Exchange, task: Task, written: Sequence[Context], journal: Journal) -> list[Context]:
    """Keep the questions that the student answers as written with the passage in view, and otherwise does not."""
    asked = [context for context in written if context.questions]
    requests = [AskRequest(task=task, context=context, in_view=in_view) for context in asked for in_view in (True, False)]
    results = ask(exchange, requests, "questions", journal)
    kept = {}
    for number, context in enumerate(asked):
        seen, unseen = results[2 * number], results[2 * number + 1]
        if isinstance(seen, Refusal) or isinstance(unseen, Refusal):
            reason = next(result.reason for result in (seen, unseen) if isinstance(result, Refusal))
            console.print(f"context {context.label!r} is left out: {reason}")
            continue
        agreed = zip(context.questions, seen.outcomes, unseen.outcomes, strict=True)
        questions = tuple(question for question, open_book, closed_book in agreed if open_book.correct and closed_book.correct is False)
        kept[id(context)] = questions
    if not any(kept.values()):
        raise TutelageError("no question was agreed on, so there is nothing to be rewarded for; try another writer, or more samples")
    return [context.model_copy(update={"questions": kept.get(id(context), ())}) for context in written]


def write_questions(path: Path, contexts: Sequence[Context]) -> Path:
    """Contexts that have questions, as a file that `contexts.source` takes."""
    rows = [
        {
            "title": context.title,
            "context": context.passage,
            "questions": [{"question": question.text, "answers": list(question.answers)} for question in context.questions],
        }
        for context in contexts
        if context.questions
    ]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def compare_rewards(
    exchange: Exchange,
    domain: Domain,
    task: Task,
    settings: WriteQuestions,
    contexts: Sequence[Context],
    kept: Sequence[Context],
    records: Sequence[CandidateRecord],
    journal: Journal,
) -> dict[str, Any]:
    """How well rewards by written questions rank self-edits: each inner loop is asked the real questions and the written ones.

    Returns:
        `correlation`, Spearman's, mean over contexts in which both rewards differ between self-edits; and the real gain of `all`
        self-edits, of those `chosen` by the written questions, and of the `best` by the real ones, each measured on other repeats than
        it was chosen by.
    """
    edits = [read_edit(record, domain, contexts[n // settings.compared]) for n, record in enumerate(records)]
    requests = []
    for n, edit in enumerate(edits):
        context, own = contexts[n // settings.compared], kept[n // settings.compared].model_copy(update={"passage": ""})
        asked = make_request(task, context, edit, settings.seed, range(settings.repeats), [own]) if edit and own.questions else None
        requests.append(asked)
    results = score(exchange, requests, "self-edits", journal)
    rewards = [result if isinstance(result, Reward) and result.probes[0].is_graded else None for result in results]
    grouped = [[reward for reward in rewards[n : n + settings.compared] if reward] for n in range(0, len(rewards), settings.compared)]
    ranked = [rank_by_half(own) for own in grouped if len(own) > 1]
    groups = [context.group for context, own in zip(contexts, grouped, strict=True) if len(own) > 1]
    if not ranked:
        raise TutelageError("no context has two scored self-edits to rank; give more self-edits (compared) or contexts")
    known = [(one.correlation, group) for one, group in zip(ranked, groups, strict=True) if one.correlation is not None]
    return {
        "correlation": summarize([rho for rho, _ in known], [group for _, group in known]) if known else None,
        "all": summarize([one.all for one in ranked], groups),
        "chosen": summarize([one.chosen for one in ranked], groups),
        "best": summarize([one.best for one in ranked], groups),
    }


@dataclass(frozen=True)
class Ranked:
    """How the written questions rank one context's self-edits, and the real gain of those they choose."""

    correlation: float | None
    all: float
    chosen: float
    best: float


def rank_by_half(rewards: Sequence[Reward]) -> Ranked:
    """Rank by one half of the repeats, measure on the other, and the other way round.

    What both kinds of questions were asked after the same training would agree by luck as well.
    """
    base = rewards[0].change.base_accuracy
    real = [[accuracy - base for accuracy in reward.change.accuracies] for reward in rewards]
    written = [reward.probes[0].accuracies for reward in rewards]
    correlations, figures = [], []
    for half in (0, 1):
        by_written, by_real = ([statistics.fmean(own[half::2]) for own in results] for results in (written, real))
        gains = [statistics.fmean(own[1 - half :: 2]) for own in real]
        correlations.append(rank_correlation(by_written, gains))
        figures.append((statistics.fmean(gains), gains[by_written.index(max(by_written))], gains[by_real.index(max(by_real))]))
    known = [rho for rho in correlations if rho is not None]
    return Ranked(statistics.fmean(known) if known else None, *(statistics.fmean(column) for column in zip(*figures, strict=True)))


def describe_ranking(ranking: dict[str, Any]) -> str:
    """What the user is told of it."""
    rho = ranking["correlation"]
    told = (
        f"rank correlation with real questions: {rho['mean']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}], {rho['n']} contexts"
        if rho
        else "rank correlation with real questions: no context in which both differ"
    )
    gains = ", ".join(f"{name} {ranking[name]['mean']:+.1%}" for name in ("all", "chosen", "best"))
    return f"{told}\nreal gain of self-edits: {gains} (chosen by the written questions, best by the real ones)"
