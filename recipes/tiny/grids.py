"""The tiny grid world: few-shot tasks made of a rule, by families of rules, in the manner of ARC but at most 6 by 6.

Everything is drawn from a seed. Families are split once: `SEEN` ones are pretrained on, and of the `UNSEEN` ones some are for
training teachers; the rest are held out, and occur nowhere else. Two tasks of a family may differ in sizes, colours and the rule's own
choices, and share its idea; that is why intervals are taken over families.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recipes.domains.grids import COLOURS, Grid

TINY_SIDE: Final = 6

Rule = Callable[[Grid], Grid]
Pair = tuple[Grid, Grid]


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    Attributes:
        draw: Draws one rule, which may depend on a colour or, if `recolours`, on a recolouring of all.
        heights, widths: Of inputs, from least to most.
        zeros: Share of zeros in inputs; None draws it for each task.
        square: Whether inputs must be square.
        recolours: If a rule ends in a recolouring, what goes before.
    """

    draw: Callable[[random.Random], Rule]
    heights: tuple[int, int] = (2, TINY_SIDE)
    widths: tuple[int, int] = (2, TINY_SIDE)
    zeros: float | None = None
    square: bool = False
    recolours: Rule | None = None

    def explains(self, pairs: Sequence[Pair]) -> bool:
        """Whether some rule of the family makes all these outputs of these inputs."""
        if self.square and any(before.shape[0] != before.shape[1] for before, _ in pairs):
            return False
        if self.recolours is not None:
            return _is_recolouring([(self.recolours(before), after) for before, after in pairs])
        rules = [self.draw(_OneColour(colour)) for colour in range(1, COLOURS)]
        return any(all(np.array_equal(rule(before), after) for before, after in pairs) for rule in rules)


class _OneColour(random.Random):
    """Draws always the same."""

    def __init__(self, colour: int):
        super().__init__(0)
        self._colour = colour

    def randint(self, a: int, b: int) -> int:
        return self._colour


def _is_recolouring(pairs: Sequence[Pair]) -> bool:
    """Whether equal cells have become equal ones and different ones different, and zeros have stayed."""
    if any(before.shape != after.shape for before, after in pairs):
        return False
    becomes = {(0, 0), *((int(old), int(new)) for before, after in pairs for old, new in zip(before.flat, after.flat, strict=True))}
    return len(becomes) == len({old for old, _ in becomes}) == len({new for _, new in becomes})


def _always(rule: Rule) -> Callable[[random.Random], Rule]:
    return lambda rng: rule


def _then(*draws: Callable[[random.Random], Rule]) -> Callable[[random.Random], Rule]:
    """Rules one after the other."""

    def draw(rng: random.Random) -> Rule:
        rules = [each(rng) for each in draws]

        def apply(grid: Grid) -> Grid:
            for rule in rules:
                grid = rule(grid)
            return grid

        return apply

    return draw


def _colour(rng: random.Random) -> int:
    return rng.randint(1, 9)


def _fall(line: Grid) -> Grid:
    """What is not zero goes to the end of a line."""
    return np.concatenate([line[line == 0], line[line != 0]])


def _gravity(turns: int) -> Rule:
    """Everything falls: to the right, or after so many quarter turns of that direction, clockwise."""
    return lambda grid: np.rot90(np.apply_along_axis(_fall, 1, np.rot90(grid, turns)), -turns)


def _first_colour_of_rows(grid: Grid) -> Grid:
    """Every row in the colour of its first cell that is not zero."""
    firsts = [next((int(cell) for cell in row if cell), 0) for row in grid]
    return np.repeat(np.array(firsts, dtype=grid.dtype)[:, None], grid.shape[1], axis=1)


def _recolour(rng: random.Random) -> Rule:
    colours = np.array([0, *rng.sample(range(1, 10), 9)], dtype=np.int8)
    return lambda grid: colours[grid]


def _replace_first(rng: random.Random) -> Rule:
    new = _colour(rng)
    return lambda grid: np.where(grid == grid[0, 0], np.int8(new), grid)


def _two_tone(rng: random.Random) -> Rule:
    colour = _colour(rng)
    return lambda grid: np.where(grid > 0, np.int8(colour), np.int8(0))


def _negative(rng: random.Random) -> Rule:
    colour = _colour(rng)
    return lambda grid: np.where(grid > 0, np.int8(0), np.int8(colour))


def _paint(where: Callable[[int, int], Grid]) -> Callable[[random.Random], Rule]:
    """Paint the cells that a mask of the grid's height and width has."""

    def draw(rng: random.Random) -> Rule:
        colour = _colour(rng)
        return lambda grid: np.where(where(*grid.shape), np.int8(colour), grid)

    return draw


def _keep(where: Callable[[int, int], Grid]) -> Rule:
    return lambda grid: np.where(where(*grid.shape), grid, np.int8(0))


def _edge(height: int, width: int) -> Grid:
    mask = np.ones((height, width), dtype=bool)
    mask[1:-1, 1:-1] = False
    return mask


def _corners(height: int, width: int) -> Grid:
    mask = np.zeros((height, width), dtype=bool)
    mask[np.ix_([0, -1], [0, -1])] = True
    return mask


def _diagonal(height: int, width: int) -> Grid:
    return np.eye(height, width, dtype=bool)


def _antidiagonal(height: int, width: int) -> Grid:
    return np.eye(height, width, dtype=bool)[:, ::-1]


def _most_frequent(grid: Grid) -> Grid:
    return np.full_like(grid, np.bincount(grid.ravel()).argmax())


def _repeat_line(line: int, axis: int) -> Rule:
    """All lines like one of them."""
    return lambda grid: np.repeat(np.take(grid, [line], axis=axis), grid.shape[axis], axis=axis)


def _joined(axis: int, other: Rule = lambda grid: grid) -> Rule:
    return lambda grid: np.concatenate([grid, other(grid)], axis=axis)


_SHORT, _NARROW = (2, 3), (2, 3)
_LARGE = (3, TINY_SIDE)

SEEN: Final[dict[str, Family]] = {
    "identity": Family(_always(lambda grid: grid)),
    "flip_left_right": Family(_always(np.fliplr)),
    "transpose": Family(_always(np.transpose)),
    "turn_right": Family(_always(lambda grid: np.rot90(grid, -1))),
    "tile_right": Family(_always(_joined(1)), widths=_NARROW),
    "tile_down": Family(_always(_joined(0)), heights=_SHORT),
    "pad_right": Family(_always(_joined(1, np.zeros_like)), widths=_NARROW),
    "double": Family(_always(lambda grid: grid.repeat(2, axis=0).repeat(2, axis=1)), _SHORT, _NARROW),
    "upper_half": Family(_always(lambda grid: grid[: len(grid) // 2])),
    "left_half": Family(_always(lambda grid: grid[:, : grid.shape[1] // 2])),
    "drop_first_row": Family(_always(lambda grid: grid[1:]), heights=_LARGE),
    "double_rows": Family(_always(lambda grid: grid.repeat(2, axis=0)), heights=_SHORT),
    "beside_its_transpose": Family(_always(_joined(1, np.transpose)), _SHORT, _NARROW, square=True),
    "recolour": Family(_recolour, recolours=lambda grid: grid),
    "replace_first_colour": Family(_replace_first),
    "keep_first_colour": Family(_always(lambda grid: np.where(grid == grid[0, 0], grid, np.int8(0)))),
    "frame": Family(_paint(_edge), _LARGE, _LARGE),
    "two_tone": Family(_two_tone, zeros=0.5),
    "shift_right": Family(_always(lambda grid: np.roll(grid, 1, axis=1))),
    "fall_down": Family(_always(_gravity(1)), zeros=0.6),
    "first_column": Family(_always(_repeat_line(0, 1))),
    "diagonal": Family(_paint(_diagonal), _LARGE, _LARGE),
    "first_colour_of_rows": Family(_always(_first_colour_of_rows), zeros=0.75),
    "colour_of_corner": Family(_always(lambda grid: np.full_like(grid, grid[0, 0]))),
    "move_up": Family(_always(lambda grid: np.concatenate([grid[1:], np.zeros_like(grid[:1])]))),
    "recolour_and_transpose": Family(_then(_recolour, _always(np.transpose)), recolours=np.transpose),
    "two_tone_falls_down": Family(_then(_two_tone, _always(_gravity(1))), zeros=0.6),
}
"""Pretrained on."""

UNSEEN: Final[dict[str, Family]] = {
    "flip_up_down": Family(_always(np.flipud)),
    "turn_half": Family(_always(lambda grid: np.rot90(grid, 2))),
    "turn_left": Family(_always(np.rot90)),
    "antitranspose": Family(_always(lambda grid: np.rot90(grid.T, 2))),
    "mirror_right": Family(_always(_joined(1, np.fliplr)), widths=_NARROW),
    "mirror_down": Family(_always(_joined(0, np.flipud)), heights=_SHORT),
    "mirror_both": Family(_then(_always(_joined(0, np.flipud)), _always(_joined(1, np.fliplr))), _SHORT, _NARROW),
    "tile_both": Family(_then(_always(_joined(0)), _always(_joined(1))), _SHORT, _NARROW),
    "lower_half": Family(_always(lambda grid: grid[(len(grid) + 1) // 2 :])),
    "right_half": Family(_always(lambda grid: grid[:, (grid.shape[1] + 1) // 2 :])),
    "drop_last_column": Family(_always(lambda grid: grid[:, :-1]), widths=_LARGE),
    "double_columns": Family(_always(lambda grid: grid.repeat(2, axis=1)), widths=_NARROW),
    "interior": Family(_always(lambda grid: grid[1:-1, 1:-1]), (4, TINY_SIDE), (4, TINY_SIDE)),
    "margin": Family(_always(lambda grid: np.pad(grid, 1)), (2, 4), (2, 4)),
    "shift_down": Family(_always(lambda grid: np.roll(grid, 1, axis=0))),
    "shift_left": Family(_always(lambda grid: np.roll(grid, -1, axis=1))),
    "fall_left": Family(_always(_gravity(2)), zeros=0.6),
    "fall_up": Family(_always(_gravity(3)), zeros=0.6),
    "first_row": Family(_always(_repeat_line(0, 0))),
    "last_column": Family(_always(_repeat_line(-1, 1))),
    "first_colour_of_columns": Family(_always(lambda grid: _first_colour_of_rows(grid.T).T), zeros=0.75),
    "antidiagonal": Family(_paint(_antidiagonal), _LARGE, _LARGE),
    "outline": Family(_always(_keep(_edge)), _LARGE, _LARGE),
    "corners": Family(_always(_keep(_corners)), _LARGE, _LARGE),
    "negative": Family(_negative, zeros=0.5),
    "most_frequent": Family(_always(_most_frequent)),
    "flip_and_recolour": Family(_then(_always(np.fliplr), _recolour), recolours=np.fliplr),
    "fall_down_and_recolour": Family(_then(_always(_gravity(1)), _recolour), zeros=0.6, recolours=_gravity(1)),
    "two_tone_transposed": Family(_then(_two_tone, _always(np.transpose)), zeros=0.5),
    "flip_and_frame": Family(_then(_always(np.fliplr), _paint(_edge)), _LARGE, _LARGE),
}
"""Not pretrained on."""

TRAINING_FAMILIES: Final = tuple(name for number, name in enumerate(UNSEEN) if number % 5 in (0, 2))
HELD_OUT_FAMILIES: Final = tuple(name for name in UNSEEN if name not in TRAINING_FAMILIES)
"""Two of every five in the order above, where neighbours are of one kind, so that each kind is on both sides."""


def is_of_another_family(pairs: Sequence[Pair], held_out: bool) -> bool:
    """Whether a rule that was pretrained on, or of a held-out task one of the teacher's training, explains a task as well.

    Small grids allow it: moving two rows down by one is turning them upside down.
    """
    known = [*SEEN, *TRAINING_FAMILIES] if held_out else list(SEEN)
    return any((SEEN | UNSEEN)[name].explains(pairs) for name in known)


def make_task(
    rng: random.Random, family: Family, pairs: int, max_side: int = TINY_SIDE, max_cells: int = 10**9, fixed: float = 0.5
) -> list[Pair] | None:
    """Draw inputs, all different, and apply one rule to them.

    Args:
        pairs: How many.
        max_side: Of inputs, where the family allows so small ones.
        max_cells: Of all grids together.
        fixed: How likely all inputs have the same size.

    Returns:
        None if the draw does not fit: draw again.
    """
    rule = family.draw(rng)
    (least_high, most_high), (least_wide, most_wide) = family.heights, family.widths
    high = (least_high, max(least_high, min(most_high, max_side)))
    wide = (least_wide, max(least_wide, min(most_wide, max_side)))
    size = (rng.randint(*high), rng.randint(*wide)) if rng.random() < fixed else None
    zeros = rng.choice((0.0, 0.3, 0.5)) if family.zeros is None else family.zeros
    palette = rng.sample(range(1, 10), rng.randint(2, 5)) if rng.random() < 0.5 else None
    made: dict[bytes, Pair] = {}
    for _ in range(60):
        height, width = size or (rng.randint(*high), rng.randint(*wide))
        if family.square:
            width = height
        grid = _draw_grid(rng, height, width, palette or rng.sample(range(1, 10), rng.randint(2, 5)), zeros)
        result = np.ascontiguousarray(rule(grid))
        if not 1 <= min(result.shape) <= max(result.shape) <= TINY_SIDE:
            continue
        if family is not SEEN["identity"] and np.array_equal(grid, result) and rng.random() < 0.9:
            continue
        made.setdefault(bytes(grid.shape) + grid.tobytes(), (grid, result))
        if len(made) == pairs:
            drawn = list(made.values())
            return drawn if sum(side.size for pair in drawn for side in pair) <= max_cells else None
    return None


def _draw_grid(rng: random.Random, height: int, width: int, palette: list[int], zeros: float) -> Grid:
    cells = [0 if rng.random() < zeros else rng.choice(palette) for _ in range(height * width)]
    return np.array(cells, dtype=np.int8).reshape(height, width)
