"""Which answers changed between two versions of a line, from what each was asked when it was made."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from protocol.errors import InvalidInput
from student.version_answers import ANSWERS, AnswerRow, read_answers
from student.version_history import History

Asked = tuple[str, str, tuple[str, ...]]
"""A context's id, the question, its gold answers: what makes two rows the same question."""
Turn = Literal["lost", "gained", "reworded"]
TURNS: Final[tuple[Turn, ...]] = ("lost", "gained", "reworded")
"""Losses first."""


@dataclass(frozen=True)
class Said:
    title: str
    answer: str
    correct: bool | None


@dataclass(frozen=True)
class ChangedAnswer:
    """An answer that is another one, or has another verdict, in the second version. Only with a verdict on both is it gained or lost."""

    change: Turn
    context: str
    title: str
    question: str
    gold: tuple[str, ...]
    before: str
    after: str
    correct_before: bool | None
    correct_after: bool | None


@dataclass(frozen=True)
class Comparison:
    """Of two versions: how many questions both were asked, how many only one of them, and what changed."""

    questions: int
    asked_of_one: int
    changed: list[ChangedAnswer]

    def count(self, turn: Turn) -> int:
        return sum(row.change == turn for row in self.changed)

    def report(self) -> dict[str, Any]:
        counts: dict[str, Any] = {turn: self.count(turn) for turn in TURNS}
        return {"questions": self.questions, "asked_of_one": self.asked_of_one, **counts, "rows": [asdict(row) for row in self.changed]}


def compare_versions(history: History, first: int, second: int) -> Comparison:
    """What changed from one version to another, on the questions that both were asked.

    Raises:
        InvalidInput: They are one; there is no such version, or its answers are damaged; they have no question in common.
    """
    if first == second:
        raise InvalidInput(f"both versions are {first}; give two different ones")
    old, new = _answers_of(history, first, second), _answers_of(history, second, first)
    both = [asked for asked in old if asked in new]
    if not both:
        raise InvalidInput(
            f"versions {first} and {second} were asked no question in common, as far as their {ANSWERS} tell; "
            "compare a version with its parent, whose answers it knows, or with a later one that was asked about earlier lessons"
        )
    changed = [row for asked in both for row in _changed(asked, old[asked], new[asked])]
    return Comparison(len(both), len(old.keys() ^ new.keys()), sorted(changed, key=lambda row: TURNS.index(row.change)))


def _answers_of(history: History, number: int, other: int) -> dict[Asked, Said]:
    """What a version answered: in its own rows and, on the way to a later version, in those of the child that was made of it."""
    history.check_number(number)
    said = {}
    way = history.ancestry(other)
    if number in way[1:]:
        child = way[way.index(number) - 1]
        for row in _rows(history, child):
            if row.before is not None:
                said[_asked(row)] = Said(row.title, row.before, row.correct_before)
    if number:
        said |= {_asked(row): Said(row.title, row.answer, row.correct) for row in _rows(history, number)}
    return said


def _rows(history: History, number: int) -> list[AnswerRow]:
    return read_answers(history.open_file(number, ANSWERS))


def _asked(row: AnswerRow) -> Asked:
    return row.context, row.question, row.gold


def _changed(asked: Asked, old: Said, new: Said) -> Iterator[ChangedAnswer]:
    """Nothing, if answer and verdict are the same."""
    turn: Turn = "reworded"
    if None not in (old.correct, new.correct) and old.correct != new.correct:
        turn = "gained" if new.correct else "lost"
    if turn != "reworded" or old.answer != new.answer:
        context, question, gold = asked
        yield ChangedAnswer(turn, context, new.title, question, gold, old.answer, new.answer, old.correct, new.correct)
