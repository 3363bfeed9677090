"""Automated tests of a student's answers: a command of the user's own that reads one answer, and says whether it passes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.feedback import Feedback
from protocol.identity import content_id
from recipes.sandbox import Limits, run_limited

PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class AnswerCase:
    """An answer to test: which version of a student gave it, to which question about which context, and what counts as right."""

    version: str
    context: str
    title: str
    question: str
    answer: str
    gold: Sequence[str] = ()


@dataclass(frozen=True)
class Untested:
    """Why a test says nothing about an answer."""

    reason: str


def run_answer_test(command: Sequence[str], case: AnswerCase, limits: Limits, now: float) -> Feedback | Untested:
    """Run a test on one answer, within limits.

    It reads a JSON object from stdin, `{"context": TITLE, "question": …, "answer": …, "gold": […]}`, and ends with exit code 0 if the
    answer passes, 1 if it fails. Any other end, a crash or the wall time say, is no feedback. Python itself ends with 1 after an
    exception that nobody catches: a test in Python should catch what the answer is not to blame for, and end with 2.

    Args:
        now: Seconds since 1970. Whenever it is run again, the same test of the same answer is the same piece of feedback.

    Raises:
        InvalidInput: There is no such command.
    """
    shown = json.dumps({"context": case.title, "question": case.question, "answer": case.answer, "gold": list(case.gold)})
    outcome = run_limited(command, shown.encode() + b"\n", limits)
    if outcome.code not in (PASSED, FAILED):
        said = outcome.stderr.strip()[-500:]
        return Untested(f"the test ended by {outcome.ended}, where 0 or 1 is a verdict" + (f"; it said: {said}" if said else ""))
    return Feedback(
        version=case.version,
        context=case.context,
        question=case.question,
        kind="test",
        value=outcome.code == PASSED,
        time=now,
        id=content_id("test", case.version, case.context, shown, list(command)),
    )
