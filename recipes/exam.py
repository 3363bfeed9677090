"""What students that learn one context after another are asked after every update: what they learned, what comes next, what they knew from
the start, and what they should not have learned of others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from protocol.domain import Grader
from protocol.identity import derive_seed
from protocol.messages import Context, Lesson, Message, accuracy
from recipes.domains import RecipeDomain
from student.interview import ask_once
from student.keeping import Learned
from student.learner import Learner
from student.others import ask_of_others

OTHERS = 4
"""Others of whom each context's questions are asked."""


class Marks(Message):
    """Of one student, each in [0, 1].

    Attributes:
        contexts: Accuracy on each of its contexts up to the one that it learns next; on all of them before the first update.
        leakage: Share of the newest context's questions that were answered with its answers although they were asked about others; before
            the first update, of all contexts' questions. None where no subject was found.
        retention: Accuracy on what was known from the start; None if it was not asked.
    """

    contexts: tuple[float, ...]
    leakage: float | None
    retention: float | None = None


class Step(Message):
    """What became of an update of every student, and how they answer since.

    Attributes:
        refused: By student, why it learned nothing; empty if it did.
        seconds, cpu_seconds: Of the update of all, without the questions.
    """

    marks: tuple[Marks, ...]
    refused: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Exam:
    """What is asked.

    Attributes:
        sequences: Of lessons, one for each student.
        retention: Contexts that the base knows, asked before the first update and after the last.
        texts: Where the names of others come from, of whom no student learns.
    """

    domain: RecipeDomain
    grader: Grader
    sequences: Sequence[Sequence[Lesson]]
    retention: Sequence[Context]
    texts: Sequence[str]
    seed: int

    @property
    def length(self) -> int:
        return len(self.sequences[0])

    def mark(self, learner: Learner, students: Sequence[Learned], done: int) -> list[Marks]:
        """Ask every student after so many updates."""
        own = [[lesson.context for lesson in sequence[: done + 1 if done else None]] for sequence in self.sequences]
        newest = [sequence[done - 1 : done] if done else sequence for sequence in self.sequences]
        others = [[other for lesson in lessons for other in self._ask_of_others(lesson)] for lessons in newest]
        known = self.retention if done in (0, self.length) else ()
        asked = [[*contexts, *leaks, *known] for contexts, leaks in zip(own, others, strict=True)]
        sheets = [(student, context, False) for student, contexts in zip(students, asked, strict=True) for context in contexts]
        answers = ask_once(learner, self.domain, sheets)
        outcomes = self.domain.read_answers([context for _, context, _ in sheets], answers, self.grader)
        graded = iter([accuracy(outcome) for outcome in outcomes])
        marks = []
        for contexts, leaks in zip(own, others, strict=True):
            on_own, on_others, on_known = ([next(graded) for _ in part] for part in (contexts, leaks, known))
            marks.append(
                Marks(
                    contexts=tuple(on_own),
                    leakage=fmean(on_others) if on_others else None,
                    retention=fmean(on_known) if on_known else None,
                )
            )
        return marks

    def _ask_of_others(self, lesson: Lesson) -> list[Context]:
        seed = derive_seed(self.seed, "asked about others", lesson.context.id)
        return ask_of_others(self.domain, lesson, self.texts, OTHERS, seed)
