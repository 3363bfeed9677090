"""A grader that stands in for the GPT-4.1 judge offline: a logistic regression over lexical features of question, gold and answer.

Fitted by `recipes.graders.fit_lexical` on the yes/no verdicts that SEAL released (arXiv 2506.10943); coefficients and
figures are in `lexical.json`. The threshold is rate-calibrated: it is where the probabilities of articles held out of the
fit reach it as often as the judge said yes, so that a mean accuracy is unbiased where answers and golds are alike. It was
found with one gold answer a question. A single grade is wrong one time in nine; use the means.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache, cached_property
from pathlib import Path

from protocol.messages import Outcome, Question
from recipes.graders.reading import capitalised, graded_part, stem, words

COEFFICIENTS = Path(__file__).with_name("lexical.json")
MAX_GOLD_CHARACTERS = 500
FEATURES: Mapping[str, str] = {
    "recall": "share of the gold's words that the answer has",
    "precision": "share of what the answer adds to the question that is in the gold",
    "longest_run": "longest stretch of the gold's characters in the answer, as a share of the gold",
    "rarest_nearly_found": "the sought word hardest to hit by chance is missing; how near a word comes: other ending, misspelt name",
    "last_place": "where in the answer the last sought word stands, as a share of its length",
    "gold_in_question": "the question has all of the gold's words, so that finding them means little",
    "names_missing": "share of the names sought that the answer has not: a name cannot be said in other words",
    "other_names": "log of 1 + names in the answer that neither the question nor the gold has",
    "negation": "the answer denies and the question and gold do not, or the reverse",
    "variety": "distinct words as a share of the answer's words; a broken model repeats itself, and an empty answer has none",
    "asks_why": "the question asks why, or how something came about",
    "asks_who": "the question asks who",
    "number_found": "a number sought is in the answer, or a year of the century sought",
    "number_near": "a number within 5% of one sought, or a year next to it, is in the answer",
    "number_contradicted": "a number is sought, and the answer has others only",
}

_COMMON = frozenset(
    stem(word)
    for word in (
        "a an the of in on at to for by with from and or as is was were are be been being it its this that these those he she they his her "
        "their them him who whom which what when where why how did do does had has have there into than then also about around "
        "approximately roughly s t"
    ).split()
)
_NEGATIONS = frozenset("not no never neither nor cannot misunderstand".split())
_WHY = re.compile(r"\b(?:why|how (?:did|do|does|is|are|was|were))\b", re.IGNORECASE)
_WHO = re.compile(r"\bwho(?:m|se)?\b", re.IGNORECASE)


class Reading:
    """A text, its words, and its content words (those that are not too common to tell anything)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = words(text)
        self.content = [word for word in self.words if word not in _COMMON]

    @cached_property
    def names(self) -> set[str]:
        """Words with a capital letter; the first word has one anyway, and does not count."""
        return set(capitalised(self.text)) - set(self.words[:1]) - _COMMON


def features(question: Reading, gold: Reading, answer: Reading) -> dict[str, float]:
    """The values of `FEATURES` for one gold answer and one student answer.

    The words *sought* are those of the gold that the question does not have; all of the gold's, if it has them all.
    """
    expected = gold.content or gold.words
    given = set(question.words)
    sought = [word for word in expected if word not in given] or expected
    found = set(answer.content)
    added = [word for word in answer.content if word not in given]
    places = [place for place, word in enumerate(answer.content, start=1) if word in sought]
    rarest = max(sought, key=lambda word: (word[0].isdigit(), len(word)), default="")  # a number, else the longest
    capitals = set(capitalised(gold.text))
    names = [word for word in sought if word in capitals]
    denied = [bool(_NEGATIONS & set(text)) for text in (answer.words, question.words + gold.words)]
    return {
        "recall": sum(word in found for word in expected) / max(1, len(expected)),
        "precision": sum(word in expected for word in added) / max(1, len(added)),
        "longest_run": longest_run(" ".join(expected), " ".join(answer.content)),
        "rarest_nearly_found": 0.0 if rarest in found else max((likeness(rarest, word) for word in found), default=0.0),
        "last_place": places[-1] / len(answer.content) if places else 0.0,
        "gold_in_question": float(bool(expected) and all(word in given for word in expected)),
        "names_missing": sum(word not in found for word in names) / max(1, len(names)),
        "other_names": math.log1p(len(answer.names - given - set(expected))),
        "negation": float(denied[0] != denied[1]),
        "variety": len(found) / max(1, len(answer.content)),
        "asks_why": float(bool(_WHY.search(question.text))),
        "asks_who": float(bool(_WHO.search(question.text))),
        **number_features(sought, added, a_century="centur" in expected),
    }


def number_features(sought: Sequence[str], added: Sequence[str], a_century: bool) -> dict[str, float]:
    """Whether the numbers among the words sought are found, nearly found, or contradicted by those the answer adds."""
    wanted = {word for word in sought if word[0].isdigit()}
    given = {word for word in added if word[0].isdigit()}
    found = bool(wanted & given) or (a_century and any(_century(number) in wanted for number in given))
    return {
        "number_found": float(found),
        "number_near": float(not found and any(_near(a, b) for a in wanted for b in given)),
        "number_contradicted": float(bool(wanted and given) and not found),
    }


def _century(number: str) -> str:
    return str((int(number) - 1) // 100 + 1) if len(number) == 4 and number.isdecimal() else ""


def _near(wanted: str, given: str) -> bool:
    """Years (1000 to 2100) may be one off, other numbers one part in twenty; times of day and dotted dates never are near."""
    try:
        a, b = float(wanted), float(given)
    except ValueError:
        return False
    return abs(a - b) <= (1 if 1000 < a < 2100 else 0.05 * max(a, b))


def likeness(wanted: str, given: str) -> float:
    """How alike two words are, in [0, 1]: by their first letters, four or more, or by spelling if over 75% alike.

    A number is like itself only.
    """
    if wanted == given:
        return 1.0
    if not wanted or wanted[0].isdigit() or given[0].isdigit():
        return 0.0
    short, long = sorted((len(wanted), len(given)))
    start = next((i for i, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b), short)
    alike = max(0.9 * start / short, start / long) if start >= 4 else 0.0
    if short >= 4 and long - short <= 3:
        spelling = SequenceMatcher(None, wanted, given, autojunk=False).ratio()
        alike = max(alike, spelling if spelling > 0.75 else 0.0)
    return alike


def longest_run(wanted: str, text: str) -> float:
    """The longest part of `wanted` that stands in `text`, as a share of `wanted`."""
    length = 0
    for start in range(len(wanted)):
        while start + length < len(wanted) and wanted[start : start + length + 1] in text:
            length += 1
    return length / max(1, len(wanted))


def probability(values: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    """The logistic function of the weighted sum; `intercept` is the coefficient of no feature."""
    score = coefficients["intercept"] + sum(coefficients[name] * value for name, value in values.items())
    return 1 / (1 + math.exp(-max(-40.0, min(40.0, score))))


@cache
def _fitted() -> tuple[dict[str, float], float]:
    read = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
    return read["coefficients"], read["threshold"]


class Lexical:
    """Right if the probability that the judge says yes, best over the gold answers, reaches the threshold; it is the score."""

    name, version = "lexical", 1

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        return [self._grade(q, a) for q, a in zip(questions, answers, strict=True)]

    def _grade(self, question: Question, answer: str) -> Outcome:
        if not question.answers:
            return Outcome(answer=answer, correct=None)
        coefficients, threshold = _fitted()
        asked, given = Reading(question.text), Reading(graded_part(answer))
        golds = (Reading(gold[:MAX_GOLD_CHARACTERS]) for gold in question.answers)
        score = max(probability(features(asked, gold, given), coefficients) for gold in golds)
        return Outcome(answer=answer, correct=score >= threshold, score=score)
