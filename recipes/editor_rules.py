"""The rules by which an editor drops lines of a self-edit or refuses it. Pure functions of text, bounded in time by its length."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from recipes.editor_settings import EditorSettings
from recipes.graders.words import normalize
from recipes.patterns import Pattern

_MARK: Final = re.compile(r"\s*(?:\d{1,4}[.)]|[-*•])\s")
"""What a line of a list begins with."""

Patterns = Mapping[str, Sequence[Pattern]]
"""By the setting that has them."""


@dataclass
class Draft:
    """A self-edit under an editor's hands.

    Attributes:
        lines: Those that are left, by number.
        dropped: How many were dropped, by rule.
        refused_by: The rule that refused it, if any, and why.
    """

    lines: dict[int, str]
    dropped: dict[str, int] = field(default_factory=dict)
    refused_by: str = ""
    reason: str = ""

    def drop(self, rule: str, numbers: Iterable[int]) -> None:
        """Drop lines; without any left, the self-edit is refused."""
        found = [number for number in numbers if self.lines.pop(number, None) is not None]
        if found:
            self.dropped[rule] = len(found)
        if found and not self.lines:
            self.refuse(rule, f"no line is left ({self.describe()})")

    def refuse(self, rule: str, reason: str) -> None:
        self.refused_by, self.reason = rule, f"editor.{rule}: {reason}"

    def describe(self) -> str:
        """What was dropped."""
        return "dropped " + ", ".join(f"{count} by {rule}" for rule, count in self.dropped.items())


def apply_rules(draft: Draft, passage: str, settings: EditorSettings, patterns: Patterns) -> None:
    """All rules that need no judge and come before him."""
    _match(draft, patterns)
    if draft.refused_by:
        return
    if settings.duplicates:
        apply(draft, "duplicates", settings.duplicates, find_repeats(draft.lines), "repeats an earlier one")
    if draft.refused_by or not (settings.copies or settings.most_copied is not None):
        return
    copied = find_copies(draft.lines, passage)
    if settings.most_copied is not None and len(copied) > settings.most_copied * len(draft.lines):
        draft.refuse("most_copied", f"{len(copied)} of {len(draft.lines)} lines stand in the passage, more than {settings.most_copied:.0%}")
    elif settings.copies:
        apply(draft, "copies", settings.copies, copied, "stands in the passage")


def apply(draft: Draft, rule: str, action: str, numbers: Collection[int], meaning: str) -> None:
    """Drop the lines that a rule has found, or refuse the self-edit for the first of them."""
    if action == "drop":
        draft.drop(rule, numbers)
    elif numbers:
        first = min(numbers)
        draft.refuse(rule, f"line {first + 1} {meaning}: {draft.lines[first]!r:.80}")


def check_length(draft: Draft, settings: EditorSettings) -> None:
    """Refuse what is too short or too long."""
    counts = {"lines": len(draft.lines), "characters": sum(map(len, draft.lines.values()))}
    for unit, count in counts.items():
        least, most = getattr(settings, f"shortest_{unit}"), getattr(settings, f"longest_{unit}")
        left = f" left ({draft.describe()})" if draft.dropped else ""
        if least is not None and count < least:
            draft.refuse(f"shortest_{unit}", f"{count} {unit}{left}, fewer than {least}")
        elif most is not None and count > most:
            draft.refuse(f"longest_{unit}", f"{count} {unit}{left}, more than {most}")


def _match(draft: Draft, patterns: Patterns) -> None:
    for number, line in draft.lines.items():
        if banned := next((pattern for pattern in patterns["refuse_lines"] if pattern.is_found(line)), None):
            draft.refuse("refuse_lines", f"{banned.text!r:.200} is found in line {number + 1}: {line!r:.80}")
            return
    for rule, unwanted in (("drop_lines", True), ("keep_lines", False)):
        if patterns[rule] and not draft.refused_by:
            found = [n for n, line in draft.lines.items() if any(pattern.is_found(line) for pattern in patterns[rule]) is unwanted]
            draft.drop(rule, found)


def find_repeats(lines: Mapping[int, str]) -> list[int]:
    """Lines that say, but for marks of lists, case, punctuation and articles, what an earlier one says."""
    first: dict[str, int] = {}
    return [number for number, line in lines.items() if first.setdefault(plain(line) or line.strip(), number) != number]


def find_copies(lines: Mapping[int, str], passage: str) -> list[int]:
    """Lines that stand in the passage, in a row and, but for the same, word for word."""
    told = f" {plain(passage)} "
    return [number for number, line in lines.items() if (own := plain(line)) and f" {own} " in told]


def plain(text: str) -> str:
    """Words in a row, without the mark of a list and without characters that nobody sees."""
    seen = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return normalize(_MARK.sub("", seen, count=1) if _MARK.match(seen) else seen)
