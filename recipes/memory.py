"""Where a context is kept: in the student's weights, in a store that questions are looked up in, or in both. Torch-free.

What lasts and is often asked about is worth learning: that costs once, while a passage in view costs with every question. What changes
soon is better looked up: a store is changed at once and forgets what it had, and nothing else changes with it.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from protocol.errors import InvalidInput
from protocol.messages import Context, Message, Name

CHARACTERS_PER_TOKEN: Final = 4.3

Memory = Literal["weights", "retrieval", "both"]
Amount = Annotated[float, Field(ge=0)]


class Use(Message):
    """What a source says of how a context is used; None where it says nothing.

    Attributes:
        memory: Where it is to be kept, whatever else is said.
        key: What it goes by in the store, where it takes the place of what had the key before; with None it has one of its own.
        asked_per_day, changes_per_day: How many questions about it there are, and how often what it says changes.
        lasts_days: For how long it is asked about at all.
    """

    memory: Literal["weights", "retrieval", "both", "auto"] | None = None
    key: Name | None = None
    asked_per_day: Amount | None = None
    changes_per_day: Amount | None = None
    lasts_days: Amount | None = None


@dataclass
class MemorySettings:
    """Where contexts are kept that do not say so themselves.

    Attributes:
        choice: One memory for all, or `auto`, which chooses for each (`choose_memory`).
        store: The file of the store (`student.store`), which may be there already; empty means `store.jsonl` in the run folder.
        least_days: What stays true for fewer days is looked up.
        least_questions: What is asked about less often while it stays true is looked up. After 50 questions, looking up has cost as much as
            learning: ten epochs over a passage and a self-edit 1.4 times as long, where a token trained is twice the work of one read.
        most_tokens: What is longer is learned: it is too much to have in view.
    """

    choice: Literal["weights", "retrieval", "both", "auto"] = "weights"
    store: str = ""
    least_days: float = 7.0
    least_questions: int = 50
    most_tokens: int = 2000

    def check(self, place: str, prefix: str) -> None:
        """See that every value is in its range.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        for name, least in (("least_days", 0), ("least_questions", 0), ("most_tokens", 1)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class Choice:
    """Where a context is kept, by which key if in a store, and why."""

    memory: Memory
    key: str
    reason: str

    @property
    def is_learned(self) -> bool:
        return self.memory != "retrieval"

    @property
    def is_stored(self) -> bool:
        return self.memory != "weights"


def choose_memory(context: Context, use: Use, settings: MemorySettings) -> Choice:
    """Where a context is kept. Its source's word goes before the recipe's; the rules of `auto` apply in the order in which they stand."""
    wanted, whose = (use.memory, "its source") if use.memory else (settings.choice, "memory.choice")
    memory, reason = (wanted, f"{whose} says so") if wanted != "auto" else _choose(context, use, settings)
    return Choice(memory, use.key or context.id, reason)


def _choose(context: Context, use: Use, settings: MemorySettings) -> tuple[Memory, str]:
    tokens = round(len(context.passage) / CHARACTERS_PER_TOKEN)
    if tokens > settings.most_tokens:
        return "weights", f"about {tokens} tokens are more than the {settings.most_tokens} that may be in view"
    lasts = math.inf if use.lasts_days is None else use.lasts_days
    days = min(lasts, 1 / use.changes_per_day) if use.changes_per_day else lasts
    if days < settings.least_days:
        return "retrieval", f"it stays true for {days:.3g} days, fewer than {settings.least_days:g}"
    if use.asked_per_day is None:
        return "retrieval", "nothing is known of how often it is asked about, and a store leaves all else as it is"
    questions = use.asked_per_day * days if use.asked_per_day else 0.0
    told = f"it is asked about {questions:.3g} times while it stays true"
    if questions < settings.least_questions:
        return "retrieval", f"{told}, fewer than {settings.least_questions}"
    return "weights", f"{told}, at least {settings.least_questions}"
