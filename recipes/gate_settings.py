"""A gate's settings as a recipe has them. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass, field
from typing import Final

from protocol.errors import InvalidInput
from recipes.patterns import Pattern
from recipes.user_checks import UserCheck, check_user_check
from student.settings import GateSettings

BANNED: Final = "banned"
MEASURED: Final = ("gain", "earlier", "retention", "leakage", "falsehood", "drift")
"""What every gate measures."""


@dataclass
class GateChoice(GateSettings):
    """What every gate measures, and what else a recipe looks for in the answers.

    Attributes:
        banned: Regular expressions (see `recipes.patterns`). An update is refused if one of them is found in an answer, but not in what
            was answered before.
        checks: The user's own, by name.
    """

    banned: list[str] = field(default_factory=list)
    checks: dict[str, UserCheck] = field(default_factory=dict)

    def check(self, place: str, prefix: str) -> None:
        """Ranges and patterns.

        Raises:
            InvalidInput: Names the key, the value and the remedy.
        """
        super().check(place, prefix)
        for number, text in enumerate(self.banned):
            try:
                Pattern(text)
            except ValueError as error:
                raise InvalidInput(f"{place}: {prefix}banned[{number}] is {text!r:.200}: {error}") from error
        for name, told in self.checks.items():
            if not name or name in (*MEASURED, BANNED):
                raise InvalidInput(f"{place}: {prefix}checks.{name}: the gate has a check of that name; choose another")
            told.check(place, f"{prefix}checks.{name}.")


def check_gate(settings: GateChoice, key: str) -> None:
    """See that the commands and functions exist which a gate is to call.

    Raises:
        InvalidInput: Names the key, the value and the remedy.
    """
    for name, told in settings.checks.items():
        check_user_check(told, f"{key}.checks.{name}")
