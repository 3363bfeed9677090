"""What the framework asks of a kind of task, and of a grader. Implementations are passed in as arguments."""

from collections.abc import Sequence
from typing import Protocol

from protocol.messages import Context, Example, Lesson, Outcome, Outcomes, Question, SelfEdit


class Grader(Protocol):
    """Decides whether an answer is right."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        """Grade answers, one per question, in order. A verdict that cannot be had is missing, never wrong."""
        ...


class Domain(Protocol):
    """How one kind of task prompts the teacher, reads a candidate, trains the student, asks and grades.

    Knowledge passages and ARC grids both fit: text in, text out, and nothing outside a domain knows what it means.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Raised whenever the same candidate would be scored differently."""
        ...

    @property
    def styles(self) -> Sequence[str]:
        """The prompt styles that `prompt` knows; the first is the default."""
        ...

    @property
    def floor(self) -> float:
        """The reward of a candidate that does not parse, in [-1, 1]."""
        ...

    @property
    def default_grader(self) -> str: ...

    @property
    def closed_book(self) -> bool:
        """Whether questions are asked without the context in view: then an update can leak into others and make forget."""
        ...

    @property
    def answer_tokens(self) -> int:
        """The longest answer a student may give, in its own tokens."""
        ...

    def prompt(self, context: Context, style: str) -> str:
        """What the teacher reads. The questions are not in it."""
        ...

    def parse(self, text: str, context: Context) -> SelfEdit:
        """Read a candidate.

        Raises:
            MalformedEdit: With the reason.
        """
        ...

    def expand(self, context: Context, edit: SelfEdit, seed: int) -> Sequence[Example]:
        """The sequences the student trains on, in order."""
        ...

    def ask(self, context: Context, in_view: bool = False) -> Sequence[str]:
        """What the student is asked. May be more prompts than questions (votes).

        With closed book the passage is in view only if `in_view`; and in any case what was found for a question.
        """
        ...

    def read_answers(self, contexts: Sequence[Context], answers: Sequence[Sequence[str]], grader: Grader) -> Sequence[Outcomes]:
        """One outcome per question of each context, from the answers to `ask`'s prompts: all in one go, for graders that take long."""
        ...

    def tell_of_others(self, lesson: Lesson, texts: Sequence[str], count: int, seed: int) -> Sequence[Lesson]:
        """The same lesson with something else in its subject's place, so that what is learned can be kept from it (distractors).

        Args:
            texts: Where the others' names are taken from.

        Returns:
            `count` lessons; fewer or none where no subject is found, no names are, or the domain has no such thing.
        """
        ...

    def value(self, base: Outcomes, adapted: Outcomes) -> float:
        """What one repeat pays, in [-1, 1]: the accuracy gain, or 1 and 0 in a domain of all or nothing. Every outcome is graded."""
        ...
