"""The commands that show, turn back and hand on the versions of a student that keeps learning: versions, rollback, diff, publish."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.table import Table

from protocol.messages import Message
from recipes.domains.files import clean
from recipes.terminal import draw, printable
from recipes.version_changes import TURNS, Comparison, compare_versions
from student.version_history import History, read_line
from student.version_records import Check, LearnedLesson
from student.versions import Line

_TITLES: Final = 3
_ROWS: Final = 100
_CELL: Final = 200
_EXAMPLES: Final = """examples:
  tutelage versions runs/my-line                     what was learned when, and which version is current
  tutelage versions runs/my-line --refused           and which updates made no version, and why
  tutelage diff runs/my-line 3 4                     which answers changed from version 3 to version 4
  tutelage rollback runs/my-line 3 --because "version 4 forgot the harp"
  tutelage rollback runs/my-line 4                   forward again: a rollback removes nothing
  tutelage publish runs/my-line 4 my-student         a PEFT folder with a model card
  tutelage publish runs/my-line 4 my-model --merge   a whole model with a model card

Version 0 is the untouched base.
"""


def add_line_commands(commands: Any) -> None:
    """Tell an argument parser about them."""

    def add(name: str, told: str) -> Any:
        command = commands.add_parser(
            name, help=told, description=f"{told}.".capitalize(), epilog=_EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
        )
        command.add_argument("line", type=Path, metavar="LINE", help="the folder in which a student keeps learning")
        return command

    versions = add("versions", "show the versions of a student that keeps learning")
    versions.add_argument("--refused", action="store_true", help="list the updates that made no version, too")
    versions.add_argument("--json", action="store_true", help="print all that the log says, as JSON")
    rollback = add("rollback", "make an earlier version current, or a later one again")
    rollback.add_argument("number", type=int, metavar="NUMBER", help="the version that answers from then on")
    rollback.add_argument("--because", default="", metavar="TEXT", help="why, for the log")
    diff = add("diff", "show which answers changed between two versions")
    diff.add_argument("first", type=int, metavar="A")
    diff.add_argument("second", type=int, metavar="B")
    diff.add_argument("--json", action="store_true", help="print every changed answer, as JSON")
    publish = add("publish", "write a version as a PEFT folder or a whole model, with a model card")
    publish.add_argument("number", type=int, metavar="NUMBER")
    publish.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    publish.add_argument("--merge", action="store_true", help="merge the adapter into its base, so that it is loaded without PEFT")


def show_versions(options: argparse.Namespace) -> str:
    history = read_line(options.line)
    if options.json:
        return json.dumps(report_line(history), indent=1)
    told = [draw(_versions_table(history))]
    if not history.versions:
        told.append("nothing has been learned yet")
    if history.rollbacks:
        last = history.rollbacks[-1]
        told.append(
            f"last rollback: to version {last.to} at {_moment(last.time)} UTC"
            + (f", because {printable(last.why, _CELL)}" if last.why else "")
        )
    if history.refusals and not options.refused:
        told.append(f"updates that made no version: {len(history.refusals)}; --refused lists them")
    if options.refused:
        told.append(draw(_refusals_table(history)) if history.refusals else "no update was refused")
    return "\n".join(told)


def report_line(history: History) -> dict[str, Any]:
    """All that the log says, for machines."""
    versions = list(history.versions.values())
    parts: dict[str, Sequence[Message]] = {"versions": versions, "refused": history.refusals, "rollbacks": history.rollbacks}
    told = {name: [record.model_dump(mode="json", exclude={"kind", "previous"}) for record in records] for name, records in parts.items()}
    return {"line": str(history.path), "current": history.current, **told}


def roll_back(options: argparse.Namespace) -> str:
    read_line(options.line)  # a line is not begun here
    with Line(options.line) as line:
        before = line.current
        line.rollback(options.number, clean(options.because))
    if before == options.number:
        return f"version {before} is current already"
    return f"version {options.number} is current; tutelage rollback {options.line} {before} takes that back"


def show_diff(options: argparse.Namespace) -> str:
    compared = compare_versions(read_line(options.line), options.first, options.second)
    if options.json:
        return json.dumps({"line": str(options.line), "from": options.first, "to": options.second, **compared.report()}, indent=1)
    changed = {name: compared.count(name) for name in TURNS}
    same = compared.questions - sum(changed.values())
    counts = ", ".join([*(f"{count} {name}" for name, count in changed.items()), f"{same} the same"])
    told = [f"version {options.first} to {options.second}: {compared.questions} questions that both were asked: {counts}"]
    if compared.changed:
        told.append(draw(_answers_table(compared)))
    if (hidden := len(compared.changed) - _ROWS) > 0:
        told.append(f"and {hidden} more; --json has all")
    return "\n".join(told)


def publish(options: argparse.Namespace) -> str:
    from recipes.publishing import publish_version

    what = publish_version(read_line(options.line), options.number, options.out, options.merge)
    return f"version {options.number} as {what}: {options.out}; its README.md says how to load it"


def _versions_table(history: History) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("version", "parent"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for heading in ("", "made (UTC)"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("learned", "checks"):
        grid.add_column(heading, overflow="fold")
    grid.add_row("0", "", _mark(history, 0), "", "the untouched base", "")
    for number, record in history.versions.items():
        made, learned, checks = _moment(record.time), tell_titles(record.lessons), tell_checks(record.checks)
        grid.add_row(str(number), str(record.parent), _mark(history, number), made, learned, checks)
    return grid


def _mark(history: History, number: int) -> str:
    return "current" if number == history.current else ""


def _moment(time: str) -> str:
    return time[:19].replace("T", " ")


def _refusals_table(history: History) -> Table:
    grid = Table(title="refused", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("request", "at (UTC)"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("lessons", "checks", "why"):
        grid.add_column(heading, overflow="fold")
    for record in history.refusals:
        cells = (tell_titles(record.lessons), tell_checks(record.checks), printable(record.why, _CELL))
        grid.add_row(record.request[:8], _moment(record.time), *cells)
    return grid


def _answers_table(compared: Comparison) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("", no_wrap=True)
    for heading in ("context", "question", "before", "after", "gold"):
        grid.add_column(heading, overflow="fold")
    for row in compared.changed[:_ROWS]:
        texts = (row.title, row.question, row.before, row.after, " | ".join(row.gold[:_TITLES]))
        grid.add_row(row.change, *(printable(text, _CELL) for text in texts))
    return grid


def tell_titles(lessons: Sequence[LearnedLesson]) -> str:
    """Each context once."""
    titles = list({lesson.context: lesson.title or lesson.context[:8] for lesson in lessons}.values())
    shown = [printable(title, 60) for title in titles[:_TITLES]]
    return ", ".join(shown) + (f" and {len(titles) - _TITLES} more" if len(titles) > _TITLES else "")


def tell_checks(checks: Sequence[Check]) -> str:
    """Each check with its value; those not passed with the threshold and the reason."""
    told = []
    for check in checks:
        text = printable(check.name, 40) + (f" {check.value + 0.0:.3g}" if check.value is not None else "")
        if not check.passed:
            text += " not passed" + (f" (threshold {check.threshold:.3g})" if check.threshold is not None else "")
            text += f": {printable(check.reason, _CELL)}" if check.reason else ""
        told.append(text)
    return ", ".join(told)


LINE_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], str]]] = {
    "versions": show_versions,
    "rollback": roll_back,
    "diff": show_diff,
    "publish": publish,
}
"""By name; each returns what the user is told."""
