"""Tasks of the tiny grid world as contexts."""

import random
from typing import Final

import numpy as np

from protocol.errors import InvalidInput
from protocol.messages import Context, Demonstration, Question
from recipes.domains.grids import to_text
from recipes.tiny.grids import HELD_OUT_FAMILIES, TRAINING_FAMILIES, UNSEEN, is_of_another_family, make_task

DEMONSTRATIONS: Final = 5
LARGEST_INPUT: Final = 4
MOST_CELLS: Final = 300
"""Of demonstrations and tests together, so that every prompt is about as long as what was pretrained on."""

_SPLITS: Final = {"train": (TRAINING_FAMILIES, 1), "held_out": (HELD_OUT_FAMILIES, 3)}
"""Families, and tests in each task. A held-out task is tested three times as finely; the teacher's reward is for a single grid."""


def load_tiny_tasks(split: str, limit: int | None) -> list[Context]:
    """The first `limit` tasks of a split, one of each family in turn; without a limit three of each. A family is a group."""
    if split not in _SPLITS:
        raise InvalidInput(f"the tiny grid world has no split {split!r}; use {' or '.join(_SPLITS)}")
    families, tests = _SPLITS[split]
    count = 3 * len(families) if limit is None else limit
    return [_make(families[index % len(families)], index // len(families), tests) for index in range(count)]


def _make(family: str, number: int, tests: int) -> Context:
    rng, pairs = random.Random(f"{family} {number}"), None
    while pairs is None or is_of_another_family(pairs, family in HELD_OUT_FAMILIES):
        pairs = make_task(rng, UNSEEN[family], DEMONSTRATIONS + tests, LARGEST_INPUT, MOST_CELLS, fixed=1.0)
    shown = [(to_text(np.asarray(grid)), to_text(np.asarray(result))) for grid, result in pairs]
    return Context(
        title=f"{family} {number}",
        group=family,
        demonstrations=tuple(Demonstration(input=grid, output=result) for grid, result in shown[:DEMONSTRATIONS]),
        questions=tuple(Question(text=grid, answers=(result,)) for grid, result in shown[DEMONSTRATIONS:]),
    )
