"""What a user sees of a watched inbox: a page while nothing is learned, or plain lines where there is no terminal. Torch-free."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich.live import Live
from rich.table import Table

from recipes.inbox import Inbox
from recipes.line_commands import tell_checks, tell_titles
from recipes.terminal import console, printable
from student.version_history import History
from student.version_records import RefusedRecord, VersionRecord

LEFT: Final = "left"
_SHOWN: Final = 10
_TEXT: Final = 200

Show = Callable[[datetime], None]
"""Called with when the next update comes."""


def describe_update(record: VersionRecord | RefusedRecord) -> str:
    """What became of an update."""
    learned = tell_titles(record.lessons)
    if isinstance(record, RefusedRecord):
        return f"no update from {learned}: {printable(record.why, _TEXT)}"
    checks = tell_checks(record.checks)
    return f"version {record.number} has learned {learned}" + (f" ({checks})" if checks else "")


def last_update(history: History) -> VersionRecord | RefusedRecord | None:
    records: list[VersionRecord | RefusedRecord] = [*history.refusals, *history.versions.values()]
    return max(records, key=lambda record: record.time, default=None)


def describe_left(inbox: Inbox, known: Collection[str] = ()) -> list[str]:
    """Files of which nothing is learned, each with the reason, without those whose names are known."""
    return [f"{printable(name, 60)}: {printable(why, _TEXT)}" for name, why in inbox.left.items() if name not in known]


def describe(inbox: Inbox, history: History, failed: str) -> list[tuple[str, str]]:
    """How it stands, as names and texts.

    Args:
        failed: Why the last attempt came to nothing, if it did.
    """
    last = last_update(history)
    told = [
        ("inbox", str(inbox.folder)),
        ("waiting", _list([printable(document.file, 60) for document in inbox.waiting])),
        ("still changing", _list([printable(name, 60) for name in inbox.unsettled])),
        (LEFT, _list(describe_left(inbox), "\n")),
        ("last update", f"{last.time[:16].replace('T', ' ')} UTC: {describe_update(last)}" if last else "none yet"),
        ("failed", printable(failed, _TEXT)),
        ("current version", f"{history.current} of {len(history.versions)}"),
    ]
    return [(name, text) for name, text in told if text]


def _list(texts: list[str], separator: str = ", ") -> str:
    return separator.join(texts[:_SHOWN]) + (f"{separator}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


@contextmanager
def page(look: Callable[[], list[tuple[str, str]]]) -> Iterator[Show]:
    """A page that is there while this lasts. Without a terminal a line is printed whenever it stands otherwise.

    Args:
        look: Says how it stands now.
    """
    if not console.is_terminal:
        said: list[tuple[str, str]] = []

        def say(at: datetime) -> None:
            nonlocal said
            now = look()
            if now != said:
                said = now
                told = " · ".join(f"{name}: {' | '.join(text.splitlines())}" for name, text in now)
                console.print(f"{told} · next update: {_moment(at)}")

        yield say
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw(at: datetime) -> None:
            table = Table.grid(padding=(0, 2))
            for name, text in [*look(), ("next update", f"{_moment(at)} · Ctrl-C stops")]:
                table.add_row(name, text)
            live.update(table, refresh=True)

        yield draw


def _moment(at: datetime) -> str:
    return f"{at:%a %d %b %H:%M:%S}"
