"""A gate as a recipe asks for it: beside what every gate measures, banned outputs, the user's own checks, and questions by the base."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from protocol.domain import Domain, Grader
from protocol.messages import Context
from recipes.domains.knowledge_text import QUESTION_STYLE, read_questions
from recipes.gate_settings import BANNED, GateChoice
from recipes.patterns import Pattern
from recipes.user_checks import open_user_check
from student.gate import Gate
from student.interview import Interview
from student.learner import Learner
from student.version_answers import AnswerRow
from student.version_records import Check

_LONGEST: Final = 256
"""Tokens that the base writes of questions about a context."""


def open_gate(
    settings: GateChoice, learner: Learner, domain: Domain, grader: Grader, probes: Sequence[Context], texts: Sequence[str], seed: int
) -> Gate:
    """The gate that a recipe asks for; see `student.gate.Gate`."""
    write = partial(write_own_questions, learner, domain) if QUESTION_STYLE in domain.styles else None
    checks = [open_user_check(name, told) for name, told in settings.checks.items()]
    if settings.banned:
        checks.insert(0, partial(find_banned, [Pattern(text) for text in settings.banned]))
    return Gate(Interview(learner, domain, grader, settings, probes, texts, seed, write), checks)


def find_banned(patterns: Sequence[Pattern], rows: Sequence[AnswerRow]) -> Check:
    """Whether a pattern is found in an answer, but not in what was answered before."""
    for pattern in patterns:
        for row in rows:
            if pattern.is_found(row.answer) and not pattern.is_found(row.before or ""):
                reason = f"{pattern.text!r:.200} is found in the answer to {row.question!r:.200}: {row.answer!r:.200}"
                return Check(name=BANNED, passed=False, reason=reason)
    return Check(name=BANNED, passed=True)


def write_own_questions(learner: Learner, domain: Domain, contexts: Sequence[Context]) -> list[Context]:
    """Contexts with the questions that the untouched base writes about them, in place of their own; without any where it has no room."""
    prompts = [domain.prompt(context, QUESTION_STYLE) for context in contexts]
    fitting = [prompt for prompt in prompts if learner.fits([prompt], _LONGEST)]
    (given,) = learner.ask([learner.nothing], [fitting], _LONGEST)
    texts = dict(zip(fitting, given, strict=True))
    return [
        context.model_copy(update={"questions": tuple({q.text: q for q in read_questions(texts.get(prompt, ""))}.values())})
        for context, prompt in zip(contexts, prompts, strict=True)
    ]
