"""Settings of domains that have any. Torch-free: recipe files and `--help` read them too."""

from dataclasses import dataclass, fields
from typing import Final, Literal

from protocol.errors import InvalidInput

MAX_SIDE: Final = 30
"""Of any grid, as ARC has it."""


@dataclass
class GridSettings:
    """How the `few_shot` domain shows grids to a student, and what of its answers counts.

    The defaults are the published setting (SEAL, few-shot learning).

    Attributes:
        notation: `arrays`, as numpy prints them, or `cells`, one word for each cell (see `recipes.domains.grids`).
        attempts: The answer is right if one of so many grids is: 1, or 2 as ARC counts. Two take at least two votes.
        votes: A student is asked in so many views of a task, of 8 by turns and mirror images, and the grids that it answers most often,
            each turned back, are its attempts. 1 asks once, as the task stands.
        max_side: Tasks with larger grids are left out, and so are augmentations that would be larger.
        always_recolour: Half of the sequences have their colours permuted, even where a self-edit chooses no augmentation.
        max_sequences: A self-edit makes at most so many training sequences, drawn by lot.
    """

    notation: Literal["arrays", "cells"] = "arrays"
    attempts: int = 1
    votes: int = 1
    max_side: int = 30
    always_recolour: bool = False
    max_sequences: int = 250

    def check(self, place: str, prefix: str) -> None:
        """See that every value is in its range.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        for name, most in (("attempts", 2), ("votes", 8), ("max_side", MAX_SIDE), ("max_sequences", None)):
            value = getattr(self, name)
            if value < 1:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be at least 1")
            if most is not None and value > most:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be at most {most}")
        if self.attempts > self.votes:
            raise InvalidInput(
                f"{place}: {prefix}attempts is {self.attempts}, but {prefix}votes is {self.votes}, and one vote names one grid; "
                f"set {prefix}votes=8"
            )

    def describe(self) -> str:
        """What differs from the defaults, in a fixed order."""
        changed = {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) != item.default}
        return ", ".join(f"{name}={value}" for name, value in changed.items())
