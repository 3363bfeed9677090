"""Transformations of grids: those that multiply an example, in four groups, and the eight views that a vote can undo.

Source: SEAL, arXiv 2506.10943, few-shot learning, and its released code; the transformations are those of arXiv 2411.07279. "Rotate" turns
counter-clockwise, axis 0 runs down and axis 1 across, as numpy has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from recipes.domains.grids import Grid

Pair = tuple[Grid, Grid]
"""An example: its input and its output."""

Demonstrations = Sequence[Pair]

Transformation = Callable[[Grid], Grid]

Augmenter = Callable[[Pair, int], Pair]
"""Maps the two grids of an example; the seed is for those that draw."""

MAX_SHIFT: Final = 4
"""A translation moves by fewer rows, and fewer columns, than this."""


@dataclass(frozen=True)
class Augmentations:
    """Which groups of augmentations a self-edit chose."""

    basic: bool = False
    size: bool = False
    chain: bool = False
    repeat: bool = False

    def augmenters(self) -> tuple[Augmenter, ...]:
        """Those of the chosen groups, in the published order."""
        groups = ((self.basic, BASIC), (self.size, SIZE), (self.chain, CHAIN), (self.repeat, REPEAT))
        return tuple(augmenter for chosen, group in groups if chosen for augmenter in group)


@dataclass(frozen=True)
class View:
    """A way to look at a grid: transposed or not, then turned by quarters, counter-clockwise."""

    transposed: bool
    quarters: int

    def apply(self, grid: Grid) -> Grid:
        return np.ascontiguousarray(np.rot90(grid.T if self.transposed else grid, k=self.quarters))

    def undo(self, grid: Grid) -> Grid:
        """The grid that `apply` was given, from what it returned."""
        turned = np.rot90(grid, k=-self.quarters)
        return np.ascontiguousarray(turned.T if self.transposed else turned)


VIEWS: Final = tuple(View(transposed, quarters) for transposed in (False, True) for quarters in range(4))
"""The eight symmetries of a square, the grid as it is first."""


def rotate_90(grid: Grid) -> Grid:
    return np.rot90(grid, k=1)


def rotate_180(grid: Grid) -> Grid:
    return np.rot90(grid, k=2)


def rotate_270(grid: Grid) -> Grid:
    return np.rot90(grid, k=3)


def flip_up_down(grid: Grid) -> Grid:
    return np.flipud(grid)


def flip_left_right(grid: Grid) -> Grid:
    return np.fliplr(grid)


def transpose(grid: Grid) -> Grid:
    return grid.T


def reflect(grid: Grid, axis: int, mirror_first: bool) -> Grid:
    """The grid joined with its mirror image; the side along the axis doubles."""
    mirror = np.flip(grid, axis)
    return np.concatenate([mirror, grid] if mirror_first else [grid, mirror], axis)


def repeat(grid: Grid, down: int, across: int) -> Grid:
    """Copies of the grid, one beside the other."""
    return np.tile(grid, (down, across))


def double(grid: Grid) -> Grid:
    """Every cell becomes two by two."""
    return double_width(double_height(grid))


def double_height(grid: Grid) -> Grid:
    return np.repeat(grid, 2, axis=0)


def double_width(grid: Grid) -> Grid:
    return np.repeat(grid, 2, axis=1)


def translate(grid: Grid, down: int, across: int) -> Grid:
    """What leaves the grid on one side enters it on the other."""
    return np.roll(grid, (down, across), axis=(0, 1))


def translate_randomly(pair: Pair, seed: int) -> Pair:
    """Translate both grids, each by shifts of its own, under `MAX_SHIFT` and under the grid's sides.

    All examples see the same numbers, as published: the input takes the first two draws of the seed, the output the next two. Examples
    whose grids have equal sides are therefore moved equally.
    """
    draw = np.random.RandomState(seed % 2**32)
    shifts = [[draw.randint(0, min(MAX_SHIFT, side)) for side in grid.shape] for grid in pair]
    return translate(pair[0], *shifts[0]), translate(pair[1], *shifts[1])


def _alike(transform: Transformation) -> Augmenter:
    return lambda pair, seed: (transform(pair[0]), transform(pair[1]))


def _then_double(transform: Transformation) -> Transformation:
    return lambda grid: double(transform(grid))


BASIC: Final[tuple[Augmenter, ...]] = (
    *map(_alike, (rotate_90, rotate_270, rotate_180, flip_up_down, flip_left_right)),
    _alike(partial(reflect, axis=0, mirror_first=True)),
    _alike(partial(reflect, axis=1, mirror_first=True)),
    _alike(partial(reflect, axis=0, mirror_first=False)),
    _alike(partial(reflect, axis=1, mirror_first=False)),
    translate_randomly,
    _alike(transpose),
)

SIZE: Final[tuple[Augmenter, ...]] = tuple(map(_alike, (double, double_height, double_width)))

CHAIN: Final[tuple[Augmenter, ...]] = tuple(
    _alike(_then_double(transform)) for transform in (rotate_90, rotate_270, rotate_180, flip_up_down, flip_left_right, transpose)
)

REPEAT: Final[tuple[Augmenter, ...]] = tuple(_alike(partial(repeat, down=down, across=across)) for down, across in ((2, 1), (1, 2), (2, 2)))
