"""The gate: what an update must show before it becomes a version."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from protocol.messages import Lesson
from student.interview import Interview, Proposal, Reply, Sort
from student.keeping import Learned
from student.version_answers import AnswerRow
from student.version_records import Check

AnswerCheck = Callable[[Sequence[AnswerRow]], Check]
"""A check of the answers before and after, whatever it looks for."""
_WHY = {"own": "own", "written": "own", "earlier": "earlier", "probe": "probe", "other": "probe", "stranger": "probe"}


@dataclass(frozen=True)
class Verdict:
    """What a gate found.

    Attributes:
        checks: One for everything that was looked at; an update passes if all are passed.
        answers: What was asked for it, before and after: the version's `answers.jsonl`.
    """

    checks: tuple[Check, ...]
    answers: tuple[AnswerRow, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


class Gate:
    """Judges updates of one learner's students."""

    def __init__(self, interview: Interview, checks: Sequence[AnswerCheck] = ()):
        """`checks` is what else is looked for in the answers."""
        self._interview, self._checks = interview, checks

    def __call__(self, before: Learned, after: Learned, lessons: Sequence[Lesson]) -> Verdict:
        """Judge one update."""
        return self.judge([Proposal(before, after, tuple(lessons))])[0]

    def judge(self, proposals: Sequence[Proposal]) -> list[Verdict]:
        """Judge many updates, each by itself; they are asked together."""
        replies = self._interview.hold(proposals)
        return [self._judge(proposal, own) for proposal, own in zip(proposals, replies, strict=True)]

    def _judge(self, proposal: Proposal, replies: Sequence[Reply]) -> Verdict:
        told = self._interview.settings
        own = _graded(replies, "own") or _graded(replies, "written")
        checks = [
            self._hold("gain", _rise(own), told.least_gain, "no new context has a question with an answer, and the base wrote none"),
            self._hold("earlier", _fall(_graded(replies, "earlier")), told.most_lost_earlier, "nothing learned earlier has questions"),
            self._hold("retention", _fall(_graded(replies, "probe")), told.most_lost, "no contexts are given that were known before"),
            self._hold("leakage", _rise(_graded(replies, "other")), told.most_leaked, "no subject was found, or no names of others"),
            self._hold(
                "falsehood", _worst(replies), told.most_false, "the self-edit has no example, or no question about its subject an answer"
            ),
        ]
        if told.most_drift is not None:
            drift = self._interview.learner.drift(proposal.before, proposal.after, told.drift_texts)
            checks.append(self._hold("drift", (drift, "nats per token, on texts that the base wrote"), told.most_drift, ""))
        rows = tuple(_row(reply) for reply in replies)
        return Verdict((*(check for check in checks if check), *(check(rows) for check in self._checks)), rows)

    def _hold(self, name: str, measured: tuple[float, str] | None, threshold: float | None, why_not: str) -> Check | None:
        """Hold what was measured, and how, to a threshold; None if there is none."""
        if threshold is None:
            return None
        if measured is None:
            return Check(name=name, passed=self._interview.settings.unmeasured == "pass", reason=f"not measured: {why_not}")
        value, reason = measured
        passed = value >= threshold if name == "gain" else value <= threshold
        return Check(name=name, value=value, threshold=threshold, passed=passed, reason=reason)


def _graded(replies: Iterable[Reply], sort: Sort) -> list[Reply]:
    return [r for r in replies if r.inquiry.sort == sort and r.before.correct is not None and r.after.correct is not None]


def _rise(replies: Sequence[Reply]) -> tuple[float, str] | None:
    """How much more often the answer is given than before, and in words."""
    if not replies:
        return None
    before, after = (fmean(bool(outcome.correct) for outcome in own) for own in ([r.before for r in replies], [r.after for r in replies]))
    return after - before, f"{before:.1%} before, {after:.1%} after, of {len(replies)} questions"


def _fall(replies: Sequence[Reply]) -> tuple[float, str] | None:
    rise = _rise(replies)
    return rise and (-rise[0], rise[1])


def _worst(replies: Iterable[Reply]) -> tuple[float, str] | None:
    """The subject with the largest share of false answers: that share, and one of them."""
    subjects: dict[int, list[Reply]] = {}
    for reply in replies:
        if reply.false is not None:
            subjects.setdefault(reply.inquiry.subject, []).append(reply)
    if not subjects:
        return None
    worst = max(subjects.values(), key=lambda own: fmean(bool(reply.false) for reply in own))
    false = [reply for reply in worst if reply.false]
    shown = f", such as {false[0].question.text!r:.200}: {false[0].after.answer.strip()!r:.200}" if false else ""
    said = f"{len(false)} of {len(worst)} questions about one subject are answered as the self-edit says, and the passage does not{shown}"
    return len(false) / len(worst), said


def _row(reply: Reply) -> AnswerRow:
    """What others are asked has no right answer."""
    has_gold = reply.inquiry.sort not in ("other", "stranger")
    return AnswerRow(
        context=reply.inquiry.source.id,
        title=reply.inquiry.source.title,
        question=reply.question.text,
        gold=reply.question.answers if has_gold else (),
        answer=reply.after.answer,
        correct=reply.after.correct if has_gold else None,
        why=_WHY[reply.inquiry.sort],  # type: ignore[arg-type]
        before=reply.before.answer,
        correct_before=reply.before.correct if has_gold else None,
    )
