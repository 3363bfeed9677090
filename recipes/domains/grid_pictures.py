"""Pictures of a few-shot task: its demonstrations, what was answered under each condition, and the solution. As PNG and in the terminal."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from protocol.messages import Context
from recipes.domains.grids import UNREADABLE, Grid, from_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE: Final = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25")
"""Colours 0 to 9, as ARC's own pages show them."""
_SHOWN_DEMONSTRATIONS: Final = 5
_SHOWN_TESTS: Final = 4

Panel = tuple[str, Grid | None]
"""A heading, and the grid under it."""


@dataclass(frozen=True)
class TaskPicture:
    """Implements `recipes.domains.Picture`.

    Attributes:
        answers: By condition, one for each question; of several attempts a right one is shown, or the first.
    """

    context: Context
    answers: Mapping[str, Sequence[str]]

    def rows(self) -> list[list[Panel]]:
        """The first demonstrations' inputs, their outputs, then a row for each of the first tests."""
        shown = self.context.demonstrations[:_SHOWN_DEMONSTRATIONS]
        rows = [
            [("demonstration", from_text(pair.input)) for pair in shown],
            [("becomes", from_text(pair.output)) for pair in shown],
        ]
        for number, question in enumerate(self.context.questions[:_SHOWN_TESTS]):
            tested: list[Panel] = [("test", from_text(question.text))]
            for condition, answers in self.answers.items():
                attempts = answers[number].split("\n\n")
                right = next((attempt for attempt in attempts if attempt in question.answers), None)
                mark = "" if not question.answers else " (wrong)" if right is None else " (right)"
                tested.append((condition.replace("_", " ") + mark, from_text(right or attempts[0])))
            rows.append([*tested, *(("solution", from_text(answer)) for answer in question.answers[:1])])
        return rows

    def save(self, path: Path) -> None:
        """Write it as PNG."""
        from matplotlib.figure import Figure

        rows = self.rows()
        columns = max(map(len, rows))
        figure = Figure(figsize=(1.7 * columns, 1.9 * len(rows)), layout="constrained")
        figure.suptitle(self.context.title, parse_math=False)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for own, row in zip(axes, rows, strict=True):
            for axis, panel in zip(own, [*row, *[None] * (columns - len(row))], strict=True):
                _draw(axis, panel)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path, dpi=100)

    def __rich__(self) -> Group:
        parts: list[Text | Table] = [Text(self.context.title, style="bold")]
        for row in self.rows():
            grid = Table.grid(padding=(0, 2))
            grid.add_row(*(heading for heading, _ in row))
            grid.add_row(*(_blocks(cells) for _, cells in row))
            parts += [grid, Text()]
        return Group(*parts)


def _draw(axis: "Axes", panel: Panel | None) -> None:
    from matplotlib.colors import ListedColormap

    axis.set_axis_off()
    if panel is None:
        return
    heading, grid = panel
    axis.set_title(heading, fontsize=7, parse_math=False)
    if grid is None:
        axis.text(0.5, 0.5, UNREADABLE, ha="center", va="center", fontsize=7)
        return
    axis.pcolormesh(np.flipud(grid), cmap=ListedColormap(PALETTE), vmin=0, vmax=9, edgecolors="#555555", linewidth=0.5)
    axis.set_aspect("equal")


def _blocks(grid: Grid | None) -> Text:
    """A cell is two spaces on its colour; its digit stands there too, for terminals without colours."""
    if grid is None:
        return Text(UNREADABLE)
    text = Text()
    for number, row in enumerate(grid.tolist()):
        for colour in row:
            text.append(f"{colour} ", style=f"{'black' if colour in (4, 5, 8) else 'white'} on {PALETTE[colour]}")
        if number < len(grid) - 1:
            text.append("\n")
    return text
