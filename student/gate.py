"""The gate: what an update must show before it becomes a version."""

from dataclasses import dataclass

from student.version_answers import AnswerRow
from student.version_records import Check


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
