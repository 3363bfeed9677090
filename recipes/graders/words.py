"""Graders that need no network: exact match and F1 as in SQuAD, and "the gold answer is contained in the answer".

Source: Rajpurkar et al., arXiv 1606.05250 (normalisation and F1); SEAL's released verdicts agree with `contained` in
87% of cases (Cohen's kappa 0.70).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol.messages import Outcome, Question
from student.grading import first_line

if TYPE_CHECKING:
    import evaluate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of token precision and recall, in [0, 1]."""
    ours, theirs = normalize(answer).split(), normalize(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def contained(answer: str, gold: str) -> float:
    """1 if the gold answer's normalised words stand in the answer, in a row."""
    return float(bool(normalize(gold)) and f" {normalize(gold)} " in f" {normalize(answer)} ")


class ExactMatch:
    """Right if the answer's first line is the gold answer; the score is its F1."""

    name, version = "exact_match", 1

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        return [self._grade(q, a) for q, a in zip(questions, answers, strict=True)]

    def _grade(self, question: Question, answer: str) -> Outcome:
        if not question.answers:
            return Outcome(answer=answer, correct=None)
        line = first_line(answer)
        return Outcome(
            answer=answer,
            correct=any(exact_match(line, gold) for gold in question.answers),
            score=max(f1(line, gold) for gold in question.answers),
        )


class Verbatim:
    """Right if the answer is a gold answer to the letter, but for white space at its ends."""

    name, version = "verbatim", 1

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        return [
            Outcome(answer=a, correct=a.strip() in [gold.strip() for gold in q.answers] if q.answers else None)
            for q, a in zip(questions, answers, strict=True)
        ]


class Contained:
    """Right if the gold answer stands anywhere in the whole answer; the score says the same."""

    name, version = "contained", 1

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        return [self._grade(q, a) for q, a in zip(questions, answers, strict=True)]

    def _grade(self, question: Question, answer: str) -> Outcome:
        if not question.answers:
            return Outcome(answer=answer, correct=None)
        score = max(contained(answer, gold) for gold in question.answers)
        return Outcome(answer=answer, correct=bool(score), score=score)


def squad_metric() -> "evaluate.Metric":
    """Exact match and F1 in percent as an `evaluate.Metric` that needs no hub.

    `squad_metric().compute(predictions=["Paris"], references=[["Paris", "paris, France"]])`
    """
    import datasets
    import evaluate

    class SquadMetric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description="SQuAD exact match and F1, best over the gold answers, in percent.",
                citation="Rajpurkar et al., arXiv 1606.05250",
                features=datasets.Features(
                    {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
                ),
            )

        def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
            pairs = list(zip(predictions, references, strict=True))
            return {
                "exact_match": 100 * sum(max(exact_match(p, g) for g in golds) for p, golds in pairs) / len(pairs),
                "f1": 100 * sum(max(f1(p, g) for g in golds) for p, golds in pairs) / len(pairs),
            }

    return SquadMetric(keep_in_memory=True)
