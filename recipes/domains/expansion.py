"""From a task's demonstrations to the tasks that a student trains on.

Every demonstration becomes a test in turn, with the others as its demonstrations, and chosen augmentations multiply what that gives.

Source: SEAL, arXiv 2506.10943, few-shot learning, and its released code. Two things differ from it. Colours are permuted uniformly, where
the published code first takes colours that the task lacks. And where the sides allowed are below 30, tasks as they were given are held to
them too.
"""

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recipes.domains.augmentations import Augmentations, Augmenter, Demonstrations, Pair
from recipes.domains.grids import COLOURS
from recipes.domains.settings import MAX_SIDE

LEFT_OUT: Final = (1, 2)
"""How many of the demonstrations an initial task goes without: its test, or its test and one more."""

MAX_DEMONSTRATIONS: Final = 20
"""Tasks grow with their square. ARC's have ten at most."""

TaskNumbers = tuple[int, ...]
"""A task in numbers of its examples, the test last."""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A task with its solution. Equal are tasks with equal grids in the same order."""

    demonstrations: tuple[Pair, ...]
    test: Pair

    @cached_property
    def key(self) -> bytes:
        """A hash over all shapes and cells."""
        return hashlib.blake2b(b"".join(_key(pair) for pair in (*self.demonstrations, self.test))).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainingTask) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def count_tasks(demonstrations: Demonstrations, chosen: Augmentations, seed: int = 0, max_side: int = MAX_SIDE) -> dict[str, int]:
    """How many distinct tasks there are before colours and demonstrations are permuted; the published seed is 0."""
    _, rows = _transform(demonstrations, chosen.augmenters(), seed, max_side)
    return {f"leave_{left_out}_out": len(_unite(rows, len(demonstrations), left_out)) for left_out in LEFT_OUT}


def make_tasks(
    demonstrations: Demonstrations,
    chosen: Augmentations,
    seed: int,
    max_sequences: int,
    max_side: int = MAX_SIDE,
    recolour: bool = False,
) -> list[TrainingTask]:
    """The tasks that a student trains on, each with a permuted copy, shuffled.

    Args:
        demonstrations: The solved examples of one task.
        chosen: The groups of augmentations.
        seed: Equal seeds give equal lists.
        max_sequences: At most so many are returned; published are 250.
        max_side: A task with a grid of a longer side is left out.
        recolour: Permute colours in the copies even if no group was chosen, which the published code does not.

    Returns:
        Distinct tasks; none if there is no demonstration, or none that fits. With two demonstrations some tasks have only a test, with
        one the only task does.
    """
    augmenters = chosen.augmenters()
    pairs, rows = _transform(demonstrations, augmenters, seed, max_side)
    draw = random.Random(seed)
    tasks: list[TrainingTask] = []
    for left_out in LEFT_OUT:
        united = [
            TrainingTask(demonstrations=tuple(pairs[number] for number in others), test=pairs[test])
            for *others, test in _unite(rows, len(demonstrations), left_out)
        ]
        copies = [_permute(task, draw, colours=recolour or bool(augmenters)) for task in united]
        tasks += dict.fromkeys(copies + united)
    draw.shuffle(tasks)
    return tasks[:max_sequences]


def draw_colours(draw: random.Random) -> NDArray[np.int8]:
    """A colour for each colour, `(10,)`: a uniform permutation of 1 to 9; 0, the background, stays."""
    return np.array([0, *draw.sample(range(1, COLOURS), COLOURS - 1)], dtype=np.int8)


def _transform(
    demonstrations: Demonstrations, augmenters: Sequence[Augmenter], seed: int, max_side: int
) -> tuple[list[Pair], list[dict[int, int]]]:
    """Transform each example once with each augmenter, so that tasks need only be put together.

    Returns:
        The distinct examples, and a row for each augmenter and a last one for the examples as they are: by an example's place among the
        demonstrations, the number of what it became. It lacks those with a side over `max_side`.
    """
    distinct: list[Pair] = []
    known: dict[bytes, int] = {}
    rows = []
    for augmenter in (*augmenters, _as_it_is):
        row = {}
        for place, demonstration in enumerate(demonstrations):
            before, after = augmenter(demonstration, seed)
            if max(*before.shape, *after.shape) > max_side:
                continue
            pair = np.ascontiguousarray(before), np.ascontiguousarray(after)
            row[place] = known.setdefault(_key(pair), len(distinct))
            if row[place] == len(distinct):
                distinct.append(pair)
        rows.append(row)
    return distinct, rows


def _unite(rows: Sequence[dict[int, int]], count: int, left_out: int) -> list[TaskNumbers]:
    """The distinct tasks of all rows, the augmented ones first."""
    initial = _initial_tasks(count, left_out)
    return list(
        dict.fromkeys(tuple(row[place] for place in task) for row in rows for task in initial if all(place in row for place in task))
    )


def _initial_tasks(count: int, left_out: int) -> list[TaskNumbers]:
    """Each example as the test; of the others, all but `left_out` - 1 in their order, for each choice of those."""
    tasks = []
    for test in range(count):
        others = [place for place in range(count) if place != test]
        for dropped in itertools.combinations(others, left_out - 1):
            tasks.append((*(place for place in others if place not in dropped), test))
    return tasks


def _permute(task: TrainingTask, draw: random.Random, colours: bool) -> TrainingTask:
    """A copy with the demonstrations in another order and, if asked, other colours, the same in all grids."""
    demonstrations = draw.sample(task.demonstrations, len(task.demonstrations))
    if not colours:
        return TrainingTask(demonstrations=tuple(demonstrations), test=task.test)
    new = draw_colours(draw)
    return TrainingTask(
        demonstrations=tuple((new[before], new[after]) for before, after in demonstrations), test=(new[task.test[0]], new[task.test[1]])
    )


def _as_it_is(pair: Pair, seed: int) -> Pair:
    return pair


def _key(pair: Pair) -> bytes:
    return b"".join(bytes(grid.shape) + grid.tobytes() for grid in pair)
