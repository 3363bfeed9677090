"""Reward from use: feedback about a student's answers, joined to the self-edits that taught what was asked.

A question without feedback has no reward, which is not the same as 0. Feedback comes as `protocol.feedback` reads it; what it is worth
is for `recipes.feedback_rules` to say.
"""

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from protocol.errors import TutelageError
from protocol.feedback import Feedback, Refuse, RefusedRow, Row, stop_at
from recipes.feedback_rules import FeedbackRules, appraise

_UNITS: Final = 2**40
"""Values are summed in such parts of 1, as whole numbers: the order of rows changes no bit of a reward."""


@dataclass(frozen=True)
class Taught:
    """A lesson of a lasting update, by its ids, and the questions whose answers it is paid for."""

    context: str
    edit: str
    questions: Sequence[str]


@dataclass(frozen=True)
class UsedVersion:
    """A student that was used: its fingerprint, when it was made in seconds since 1970, and what made it."""

    fingerprint: str
    made: float
    lessons: Sequence[Taught]


@dataclass(frozen=True)
class UseReward:
    """What use says about a self-edit.

    Attributes:
        value: The mean over its questions that have a reward, in [-1, 1]; None if none has.
        questions: How many have, those of several versions counted separately.
        pieces: How many pieces of feedback that is made of.
    """

    value: float | None
    questions: int
    pieces: int


@dataclass(frozen=True)
class Use:
    """Rewards by (context, edit), and how many rows there were of each sort; those refused are not among them.

    Attributes:
        counted: Make up the rewards, if their question has enough of them.
        repeated: Said what had been said, under the same id.
        early: About an answer that is too young; they count later.
        late: Too long after their version was made.
        weightless: Of a kind that has no weight.
    """

    rewards: Mapping[tuple[str, str], UseReward]
    counted: int
    repeated: int
    early: int
    late: int
    weightless: int


def reward_use(rows: Iterable[Row], versions: Sequence[UsedVersion], rules: FeedbackRules, now: float, refuse: Refuse = stop_at) -> Use:
    """Join feedback to the self-edits that made the versions it is about. Memory grows with their questions, not with the rows.

    Args:
        rows: In any order; of two with one id that say different things the first counts.
        versions: Whose feedback counts; each fingerprint once.
        rules: What it is worth.
        now: Seconds since 1970.
        refuse: Called with every row that is about an unknown version or question, older than its version, or at odds with its id.

    Returns:
        A reward for each lesson, also for those without feedback. Feedback to a question counts for all lessons that it is a test of.

    Raises:
        ValueError: A version is given twice.
    """
    known = {version.fingerprint: version for version in versions}
    if len(known) < len(versions):
        raise ValueError(f"{len(versions)} versions, but only {len(known)} fingerprints; give each version once")
    tallies = {
        (version.fingerprint, lesson.context, question): _Tally()
        for version in versions
        for lesson in version.lessons
        for question in lesson.questions
    }
    counts = dict.fromkeys(("counted", "repeated", "early", "late", "weightless"), 0)
    with _remember() as seen:
        for row in rows:
            feedback = row.feedback
            tally = tallies.get((feedback.version, feedback.context, feedback.question))
            if reason := _find_problem(feedback, known.get(feedback.version), tally):
                refuse(RefusedRow(row.place, reason))
                continue
            assert tally is not None
            sort = _sort(feedback, known[feedback.version], rules, now)
            if sort == "counted" and (stands := _look_up(seen, feedback)) is not None:
                if stands != feedback.claim:
                    refuse(RefusedRow(row.place, f"id is {feedback.id!r}, as in an earlier row that says something else; give it its own"))
                    continue
                sort = "repeated"
            counts[sort] += 1
            if sort == "counted":
                tally.add(feedback.kind, appraise(feedback, rules))
    return Use(_share_out(versions, tallies, rules), **counts)


def combine(question_reward: float | None, use_reward: float | None, weight: float) -> float | None:
    """One reward of a self-edit for selection, of that from its questions and that from use.

    It is (1 - weight) x the first + weight x the second. With a weight of 0 the first alone is asked, with 1 the second alone; if it is
    missing, so is the result. Between them, where one is missing the other stands for both: no feedback speaks neither for a self-edit
    nor against it.

    Raises:
        ValueError: The weight is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}; it must be in [0, 1]")
    if weight == 0 or (use_reward is None and weight < 1):
        return question_reward
    if weight == 1 or question_reward is None or use_reward is None:
        return use_reward
    return (1 - weight) * question_reward + weight * use_reward


class _Tally:
    """What was said about the answers to one question: by kind how often, and the sum of its values in `_UNITS`."""

    __slots__ = ("_by_kind",)

    def __init__(self) -> None:
        self._by_kind: dict[str, tuple[int, int]] = {}

    def add(self, kind: str, value: float) -> None:
        count, total = self._by_kind.get(kind, (0, 0))
        self._by_kind[kind] = (count + 1, total + round(value * _UNITS))

    @property
    def pieces(self) -> int:
        return sum(count for count, _ in self._by_kind.values())

    def reward(self, rules: FeedbackRules) -> float | None:
        if self.pieces < rules.minimum:
            return None
        weighted = [(getattr(rules.weights, kind), *said) for kind, said in sorted(self._by_kind.items())]
        total = math.fsum(weight * units / _UNITS for weight, _, units in weighted)
        mass = math.fsum([rules.shrink, *(weight * count for weight, count, _ in weighted)])
        return min(1.0, max(-1.0, total / mass))


def _find_problem(feedback: Feedback, version: UsedVersion | None, tally: _Tally | None) -> str | None:
    """Why a row cannot be joined to anything."""
    if version is None:
        return f"version is {feedback.version}, which is none of those that feedback is asked for; give the fingerprint of one"
    if tally is None:
        return (
            f"question is {feedback.question!r:.80} about context {feedback.context}, which no lesson of version {feedback.version} is "
            "tested by; give its text as it stands in the context"
        )
    first = feedback.time if feedback.answered is None else feedback.answered
    if first < version.made:
        return f"it is of {first}, but its version was made at {version.made}, in seconds since 1970; see that clocks agree"
    return None


def _sort(feedback: Feedback, version: UsedVersion, rules: FeedbackRules, now: float) -> str:
    if not getattr(rules.weights, feedback.kind):
        return "weightless"
    if rules.latest is not None and feedback.time - version.made > rules.latest:
        return "late"
    answered = version.made if feedback.answered is None else feedback.answered
    return "early" if now - answered < rules.wait else "counted"


def _share_out(
    versions: Sequence[UsedVersion], tallies: Mapping[tuple[str, str, str], _Tally], rules: FeedbackRules
) -> dict[tuple[str, str], UseReward]:
    tested: dict[tuple[str, str], dict[tuple[str, str, str], None]] = {}
    for version in versions:
        for lesson in version.lessons:
            asked = tested.setdefault((lesson.context, lesson.edit), {})
            asked.update(dict.fromkeys((version.fingerprint, lesson.context, question) for question in lesson.questions))
    rewards = {}
    for lesson_key, asked in tested.items():
        said = [(reward, tallies[key].pieces) for key in asked if (reward := tallies[key].reward(rules)) is not None]
        mean = math.fsum(reward for reward, _ in said) / len(said) if said else None
        rewards[lesson_key] = UseReward(mean, len(said), sum(pieces for _, pieces in said))
    return rewards


@contextmanager
def _remember() -> Iterator[sqlite3.Connection]:
    """A table of ids in a temporary file, since there may be more than memory holds."""
    with closing(sqlite3.connect("")) as seen:
        try:
            seen.execute("PRAGMA journal_mode = OFF")
            seen.execute("PRAGMA cache_size = -16000")
            seen.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, claim BLOB) WITHOUT ROWID")
            yield seen
        except sqlite3.OperationalError as error:
            raise TutelageError(
                f"the ids of feedback cannot be kept in a temporary file ({error}); make room, or set SQLITE_TMPDIR"
            ) from error


def _look_up(seen: sqlite3.Connection, feedback: Feedback) -> str | None:
    """What a row with this id has claimed; None if there was none, and from now on there is."""
    key, claim = hashlib.sha256(feedback.id.encode()).digest()[:16], bytes.fromhex(feedback.claim)
    if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, claim)).rowcount:
        return None
    (stands,) = seen.execute("SELECT claim FROM seen WHERE id = ?", (key,)).fetchone()
    return bytes(stands).hex()
