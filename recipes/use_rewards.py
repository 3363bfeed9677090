"""A round of ReST-EM on self-edits whose students have been in use: paid for what was said of the answers, beside the questions or instead.

They compete among themselves: a reward from use and an inner loop's have no common scale.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from statistics import fmean

from protocol.errors import InvalidInput
from protocol.exchange import Exchange
from protocol.feedback import RefusedRows, Row, read_feedback
from protocol.journal import CandidateRecord, Journal, SelectionRecord
from protocol.messages import Context, SelfEdit
from recipes import terminal
from recipes.answer_tests import AnswerCase, Untested, run_answer_test
from recipes.candidates import record_candidate
from recipes.domains import RecipeDomain
from recipes.feedback import Taught, Use, UsedVersion, UseReward, combine, reward_use
from recipes.loop_settings import UseSettings
from recipes.scoring import Scoring, score_candidates
from student.version_answers import ANSWERS, AnswerRow, read_answers
from student.version_contexts import read_contexts
from student.version_history import History, read_line
from student.version_records import VersionRecord
from teacher.selection import keep_best


@dataclass(frozen=True)
class UsedEdit:
    """A self-edit of a line of versions, and what use says about it."""

    context: Context
    edit: SelfEdit
    reward: UseReward


def read_use(settings: UseSettings, now: float | None = None) -> list[UsedEdit]:
    """The self-edits that a line's versions have learned, in that order, each once; tells the user what was said of them.

    What was said of a version counts for all that it had learned: its own self-edits and those of the versions that it was made from.

    Args:
        now: Seconds since 1970; None is now.

    Raises:
        InvalidInput: The line or a file cannot be read, or a version is damaged.
    """
    history, now = read_line(Path(settings.line)), time.time() if now is None else now
    contexts = read_used(settings)
    answers = {number: read_answers(history.open_file(number, ANSWERS)) for number in history.versions}
    versions = {record.fingerprint: _used_version(history, number, answers, contexts) for number, record in history.versions.items()}
    tested, refused = _run_tests(settings, history, answers), RefusedRows()
    said = chain(tested, *(read_feedback(Path(path), refused) for path in settings.feedback))
    use = reward_use(said, list(versions.values()), settings.rules, now, refused)
    terminal.console.print(f"use of {settings.line}: {describe_use(use, refused)}")
    learned = {
        (lesson.context, lesson.edit.id): lesson.edit
        for record in history.versions.values()
        for lesson in record.lessons
        if lesson.context in contexts
    }
    return [UsedEdit(contexts[context], edit, use.rewards[context, key]) for (context, key), edit in learned.items()]


def read_used(settings: UseSettings) -> dict[str, Context]:
    """The contexts that a line's versions have learned, by id."""
    return read_contexts(Path(settings.line))


def record_used(domain: RecipeDomain, used: Sequence[UsedEdit], name: str) -> tuple[list[UsedEdit], list[CandidateRecord]]:
    """The self-edits that a teacher could have written, and their candidates, as a stage of this name journals them.

    Each is a completion of the prompt that it was written to, if that is known. What no completion says is left out.
    """
    written, candidates, counts = [], [], Counter[str]()
    for one in used:
        origin, index = one.edit.provenance, counts[one.context.id]
        text = domain.write(one.edit, one.context, origin.style)
        if text is not None:
            counts[one.context.id] += 1
            candidates.append(record_candidate(domain, one.context, text, name, index, origin.seed or 0, origin.style))
            written.append(one)
    if left := len(used) - len(written):
        terminal.console.print(f"{name}: {left} of {len(used)} self-edits say what no completion does, and are left out")
    return written, candidates


def select_used(
    scoring: Scoring,
    students: Mapping[str, Exchange],
    used: Sequence[UsedEdit],
    candidates: Sequence[CandidateRecord],
    weight: float,
    stage: str,
    journal: Journal,
) -> SelectionRecord:
    """The best of each context, by what use says and, with a weight below 1, by its questions, if it has any with an answer. What the
    student refuses then is not kept; where only a grader failed, use alone counts.

    Args:
        candidates: One for each of those used.
        weight: Of the reward from use; see `recipes.feedback.combine`.
    """
    by_questions: dict[str, float] = {}
    refused: set[str] = set()
    if weight < 1:
        asked = [(one.context, c) for one, c in zip(used, candidates, strict=True) if any(q.answers for q in one.context.questions)]
        contexts = list({context.id: context for context, _ in asked}.values())
        scored = score_candidates(scoring, students, contexts, [c for _, c in asked], stage, journal) if asked else []
        results = [(c.candidate, own) for (_, c), own in zip(asked, scored, strict=True)]
        by_questions = {candidate: own.reward for candidate, own in results if own.running}
        refused = {candidate for candidate, own in results if not own.running and own.waves}
    rewards = [combine(by_questions.get(c.candidate), one.reward.value, weight) for one, c in zip(used, candidates, strict=True)]
    refused |= {c.candidate for c in candidates if c.unusable is not None}
    paid = [(c, r) for c, r in zip(candidates, rewards, strict=True) if r is not None and c.candidate not in refused]
    loop = scoring.loop
    kept = keep_best([c for c, _ in paid], [r for _, r in paid], loop.keep_per_context, loop.minimum, context_of=lambda c: c.context)
    by_context: dict[str, list[float]] = {}
    for candidate, reward in paid:
        by_context.setdefault(candidate.context, []).append(reward)
    known = {one.context.id: one.context.group for one in used}
    groups = [known[context] for context in by_context]
    return SelectionRecord(
        stage=stage,
        rule="best",
        kept=tuple(c.candidate for c in kept),
        rewards=tuple(fmean(own) for own in by_context.values()),
        groups=tuple(groups) if any(groups) else (),
    )


def describe_use(use: Use, refused: RefusedRows) -> str:
    """What came of all rows, in words."""
    paid = sum(reward.value is not None for reward in use.rewards.values())
    counts = {"early": use.early, "late": use.late, "repeated": use.repeated, "of no weight": use.weightless, "refused": refused.count}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    first = f"; the first refused: {refused.first[0]}" if refused.first else ""
    return f"{use.counted} pieces of feedback pay {paid} of {len(use.rewards)} self-edits" + (f" ({told})" if told else "") + first


def _used_version(history: History, number: int, answers: dict[int, list[AnswerRow]], contexts: dict[str, Context]) -> UsedVersion:
    record, line = history.versions[number], [own for own in history.ancestry(number) if own]
    asked: dict[str, dict[str, None]] = {}
    for row in chain.from_iterable(answers[own] for own in line):
        asked.setdefault(row.context, {})[row.question] = None
    lessons = {
        (lesson.context, lesson.edit.id): Taught(lesson.context, lesson.edit.id, _questions(contexts, lesson.context, asked))
        for own in line
        for lesson in history.versions[own].lessons
    }
    return UsedVersion(record.fingerprint, _made(record), list(lessons.values()))


def _made(record: VersionRecord) -> float:
    """When, in seconds since 1970."""
    return datetime.fromisoformat(record.time).timestamp()


def _questions(contexts: dict[str, Context], context: str, asked: dict[str, dict[str, None]]) -> list[str]:
    """What a context is asked: its own questions, and those that the gate has asked about it."""
    own = [question.text for question in contexts[context].questions] if context in contexts else []
    return list(dict.fromkeys([*own, *asked.get(context, ())]))


def _run_tests(settings: UseSettings, history: History, answers: dict[int, list[AnswerRow]]) -> Iterator[Row]:
    """What a user's test says of every answer that a version gave to a question about what it had just learned, when it was made."""
    if not settings.test:
        return
    cases = [
        (_made(record), AnswerCase(record.fingerprint, row.context, row.title, row.question, row.answer, row.gold))
        for number, record in history.versions.items()
        for row in answers[number]
        if row.why == "own"
    ]
    untested: list[Untested] = []
    with terminal.stage("testing answers", len(cases)) as advance:
        for number, (made, case) in enumerate(cases, start=1):
            verdict = run_answer_test(settings.test, case, settings.limits, made)
            advance(1, "")
            if isinstance(verdict, Untested):
                untested.append(verdict)
            else:
                yield Row(f"test {number}", verdict)
    if untested:
        terminal.console.print(f"{len(untested)} of {len(cases)} answers have no verdict; the first: {untested[0].reason}")
    if len(untested) == len(cases) > 0:
        raise InvalidInput(f"use.test is {settings.test}, which has no verdict on any answer: {untested[0].reason}")
