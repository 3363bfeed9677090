"""Grids of colours: how they are read, and how they are written for models.

A grid is a `(height, width)` array of colours 0 to 9, at most 30 by 30. In a context it is text, a line of digits for each row. A model
is given it in a notation of its own:

- `arrays`, as published (SEAL's few-shot code, after arXiv 2411.07279): as numpy prints it, `[[1 0]` and ` [0 1]]` on two lines;
- `cells`, one word for each cell, which says side, colour, row and column: `2x2 i1r0c0 i0r0c1 i0r1c0 i1r1c1`. A tokenizer of words
  has one token for each, so that a small model need not count.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InvalidInput
from recipes.domains.settings import MAX_SIDE

Grid = NDArray[np.int8]
Notation = Literal["arrays", "cells"]

COLOURS: Final = 10
UNREADABLE: Final = "no grid"
"""What is told of an answer that is none."""

CELL_WORD = re.compile(r"([io])([0-9])r([0-9]{1,2})c([0-9]{1,2})")
SIZE_WORD = re.compile(r"([0-9]{1,2})x([0-9]{1,2})")
_ROW = r"\[([0-9\s,]+)\]"
_ARRAY = re.compile(rf"\[\s*{_ROW}(?:[\s,]*{_ROW})*[\s,]*\]")
"""Between rows there is one way to match: many of them without an end are given up at once."""


def read_grid(rows: Any, place: str) -> Grid:
    """A grid as JSON has it, a list of rows.

    Raises:
        InvalidInput: It is empty, ragged, too large, or holds something else than colours.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise InvalidInput(f"{place} is {_shown(rows)}; it must be a list of rows, none of them empty")
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        raise InvalidInput(f"{place} is {len(rows)} by {len(rows[0])}; a grid is at most {MAX_SIDE} by {MAX_SIDE}")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InvalidInput(f"{place}: row {number} has {len(row)} cells, row 0 has {len(rows[0])}; make them equal")
        for cell in row:
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise InvalidInput(f"{place}: row {number} holds {_shown(cell)}; a colour is a whole number from 0 to 9")
    return np.array(rows, dtype=np.int8)


def to_text(grid: Grid) -> str:
    """A line of digits for each row: how contexts and answers hold a grid."""
    return "\n".join("".join(map(str, row)) for row in grid.tolist())


def from_text(text: str) -> Grid | None:
    """The grid that `to_text` wrote; None if it is something else."""
    rows = text.split("\n")
    if not all(row.isascii() and row.isdigit() and len(row) == len(rows[0]) for row in rows):
        return None
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        return None
    return np.array([[int(cell) for cell in row] for row in rows], dtype=np.int8)


def write_grid(grid: Grid, notation: Notation, side: Literal["i", "o"]) -> str:
    """A grid for a model; `side` says whether it is an input or an output."""
    if notation == "arrays":
        return "[" + "\n ".join("[" + " ".join(map(str, row)) + "]" for row in grid.tolist()) + "]"
    cells = [cell_word(side, colour, r, c) for r, row in enumerate(grid.tolist()) for c, colour in enumerate(row)]
    return " ".join([size_word(*grid.shape), *cells])


def cell_word(side: str, colour: int, row: int, column: int) -> str:
    """What `CELL_WORD` reads."""
    return f"{side}{colour}r{row}c{column}"


def size_word(height: int, width: int) -> str:
    """What `SIZE_WORD` reads."""
    return f"{height}x{width}"


def read_answer(text: str, notation: Notation) -> Grid | None:
    """The output grid that a model wrote, the first if there are several; None if there is none."""
    return _read_array(text) if notation == "arrays" else _read_cells(text)


def _read_array(text: str) -> Grid | None:
    found = _ARRAY.search(text)
    if found is None:
        return None
    rows = [re.findall("[0-9]+", row) for row in re.findall(_ROW, found.group())]
    if any(len(row) != len(rows[0]) or any(len(cell) > 1 for cell in row) for row in rows):
        return None
    return from_text("\n".join("".join(row) for row in rows))


def _read_cells(text: str) -> Grid | None:
    """Strict: the size, then every cell in its place. What follows the last is passed over: a model may go on with another task."""
    words = text.split()
    size = SIZE_WORD.fullmatch(words[0]) if words else None
    if size is None:
        return None
    height, width = (int(number) for number in size.groups())
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE) or len(words) < 1 + height * width:
        return None
    colours = []
    for index, word in enumerate(words[1 : 1 + height * width]):
        cell = CELL_WORD.fullmatch(word)
        if cell is None or cell.group(1) != "o" or (int(cell.group(3)), int(cell.group(4))) != divmod(index, width):
            return None
        colours.append(int(cell.group(2)))
    return np.array(colours, dtype=np.int8).reshape(height, width)


def write_task(demonstrations: Sequence[tuple[Grid, Grid]], test: Grid, notation: Notation) -> str:
    """What stands before the output that a model is to write."""
    if notation == "arrays":
        solved = "".join(f"{write_grid(i, notation, 'i')} -> {write_grid(o, notation, 'o')}#\n" for i, o in demonstrations)
        return f"{INSTRUCTION}{solved}\n{write_grid(test, notation, 'i')} -> "
    solved = "".join(f"in {write_grid(i, notation, 'i')} out {write_grid(o, notation, 'o')}\n" for i, o in demonstrations)
    return f"{solved}in {write_grid(test, notation, 'i')} out"


def write_output(grid: Grid, notation: Notation) -> str:
    """What a model is to write after `write_task`."""
    return write_grid(grid, notation, "o") + "#" if notation == "arrays" else " " + write_grid(grid, notation, "o")


INSTRUCTION: Final = (
    "Figure out the underlying transformation in the following examples and apply it to the test case. "
    "Here are some examples from this transformation, your answer must follow the format.\n"
    "The input-output grids are provided as python arrays:\n"
)
"""Published; it stands before the demonstrations."""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
