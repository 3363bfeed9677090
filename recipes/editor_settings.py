"""An editor's settings. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass, fields
from typing import Final, Literal

from protocol.errors import InvalidInput
from recipes.patterns import Pattern

PATTERNS: Final = ("refuse_lines", "drop_lines", "keep_lines")
_NUMBERS: Final = ("shortest_characters", "longest_characters", "shortest_lines", "longest_lines")


@dataclass
class EditorSettings:
    """What an editor looks for in a self-edit before a student learns it; every rule is off unless it is set.

    A line is the text of one of its examples. Rules apply in the order given here, each to the lines that the ones before have left. What
    has no line left is refused.

    Attributes:
        refuse_lines: Regular expressions (see `recipes.patterns`); a self-edit with a line in which one of them is found is refused.
        drop_lines: A line in which one of them is found is dropped.
        keep_lines: A line in which none of them is found is dropped.
        duplicates: What is done about lines that repeat an earlier one.
        most_copied: A self-edit is refused if more than this share of its lines stand in the passage.
        copies: What is done about lines that stand in the passage.
        contradictions: What is done about lines that contradict the passage, as the recipe's `judge` says.
        shortest_characters, longest_characters: Of all lines together; a self-edit out of bounds is refused.
        shortest_lines, longest_lines: How many.
    """

    refuse_lines: list[str] | None = None
    drop_lines: list[str] | None = None
    keep_lines: list[str] | None = None
    duplicates: Literal["drop", "refuse"] | None = None
    most_copied: float | None = None
    copies: Literal["drop", "refuse"] | None = None
    contradictions: Literal["drop", "refuse"] | None = None
    shortest_characters: int | None = None
    longest_characters: int | None = None
    shortest_lines: int | None = None
    longest_lines: int | None = None

    @property
    def rules(self) -> list[str]:
        """The rules that are on."""
        return [item.name for item in fields(self) if getattr(self, item.name) not in (None, [])]

    def check(self, place: str, prefix: str) -> None:
        """See that every value is in its range, and every pattern can be read.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be at least 1, or null")
        for unit in ("characters", "lines"):
            least, most = getattr(self, f"shortest_{unit}"), getattr(self, f"longest_{unit}")
            if least is not None and most is not None and least > most:
                raise InvalidInput(f"{place}: {prefix}shortest_{unit} is {least}, above {prefix}longest_{unit}, which is {most}; lower it")
        if self.most_copied is not None and not 0 <= self.most_copied < 1:
            raise InvalidInput(f"{place}: {prefix}most_copied is {self.most_copied}; it must be in [0, 1), or null")
        if self.most_copied is not None and self.copies == "refuse":
            raise InvalidInput(
                f"{place}: {prefix}copies is 'refuse', which allows no copy, but {prefix}most_copied is {self.most_copied}; leave one out"
            )
        for name in PATTERNS:
            for number, text in enumerate(getattr(self, name) or []):
                try:
                    Pattern(text)
                except ValueError as error:
                    raise InvalidInput(f"{place}: {prefix}{name}[{number}] is {text!r:.200}: {error}") from error
