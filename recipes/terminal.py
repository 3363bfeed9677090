"""What the user sees while a recipe runs: one progress bar per stage, or plain lines where there is no terminal."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

console = Console(highlight=False, markup=False, soft_wrap=True)
"""Without markup: names and reasons come from data."""

Advance = Callable[[int, str], None]
"""Called with how much more was done and a note on how it stands, such as the mean reward so far."""


@cache
def note(text: str) -> None:
    """Tell the user something on standard error, once: what a check reads, the run reads again."""
    print(f"note: {text}", file=sys.stderr)


@contextmanager
def stage(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show a stage of `total` steps, `done` of which a resumed run already has."""
    if done >= total:
        if total:
            console.print(f"{title}: {total} of {total} from the journal")
        yield lambda amount, note: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),  # where there is little room, the bar gives way
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    )
    last_note = ""
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total, completed=done, note="")

        def advance(amount: int, note: str) -> None:
            nonlocal last_note
            last_note = note
            progress.update(bar, advance=amount, note=note)

        yield advance
    console.print(f"{title}: {total}" + (f" ({done} from the journal)" if done else "") + (f" · {last_note}" if last_note else ""))


def printable(text: str, most: int) -> str:
    """Somebody else's text on one line of a terminal: no control characters, and at most so many characters."""
    shown = " ".join(text[: most + 1].split())
    shown = "".join(letter if letter.isprintable() else "�" for letter in shown)
    return shown if len(text) <= most else shown[: most - 1] + "…"


def draw(table: Table) -> str:
    """A table as text, as wide as the terminal, or wide enough to be read by others where there is none."""
    paper = Console(
        file=io.StringIO(), width=console.width if console.is_terminal else 160, color_system=None, highlight=False, markup=False
    )
    with paper.capture() as capture:
        paper.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
