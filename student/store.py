"""A store of passages by key, beside a student: what it looks up (`student.retrieval`) in place of learning it.

A file of JSON lines. It is written whole or not at all, so that a fact that has changed is there in its newest form alone.
"""

import fcntl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.files import is_disk_full, write_text
from protocol.messages import Message, Name, Passage
from protocol.wire import tell_problem

MOST_PASSAGES: Final = 100_000
MOST_BYTES: Final = 2**30


class Entry(Message):
    """A line of a store's file."""

    key: Name
    passage: Passage


def read_store(path: Path) -> dict[str, Passage]:
    """The passages of a store by key, in order; none where there is no file yet.

    Raises:
        InvalidInput: The file cannot be read, is too large, or a line is no entry; names the file, the line and the remedy.
    """
    try:
        if not path.exists():
            return {}
        if not path.is_file():
            raise InvalidInput(f"store {path} is no file; give another")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InvalidInput(f"store {path} has {size} bytes, more than {MOST_BYTES}; give a smaller one")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"store {path} cannot be read ({error}); restore it, or give another") from error
    passages: dict[str, Passage] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"store {path}, line {number}"
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError as error:
            raise InvalidInput(f"{place}: {tell_problem(error, 'the line')}; restore it, or take it out") from error
        if entry.key in passages:
            raise InvalidInput(f"{place}: key {entry.key!r} stands there twice; take one out")
        passages[entry.key] = entry.passage
        if len(passages) > MOST_PASSAGES:
            raise InvalidInput(f"{place}: a store has at most {MOST_PASSAGES} passages; take some out")
    return passages


def change_store(path: Path, put: Mapping[str, Passage], remove: Collection[str] = ()) -> dict[str, Passage]:
    """Put passages into a store, or in the place of those that have their keys, and take others out; all of it or nothing.

    Processes that change a store at the same time wait for each other. Keys to remove that are not there are ignored.

    Returns:
        What the store has from then on.

    Raises:
        InvalidInput: As for `read_store`; or a key is none, there would be too many passages, or the file cannot be written.
    """
    try:
        entries = [Entry(key=key, passage=passage) for key, passage in put.items()]
    except ValidationError as error:
        raise InvalidInput(f"store {path}: {tell_problem(error, 'an entry')}; mend it") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = read_store(path)
            left = [Entry(key=key, passage=known[key]) for key in known if key not in put and key not in remove]
            entries = left + entries
            if len(entries) > MOST_PASSAGES:
                raise InvalidInput(f"store {path} would have {len(entries)} passages, but it takes at most {MOST_PASSAGES}; remove some")
            write_text(path, "".join(entry.model_dump_json() + "\n" for entry in entries))
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InvalidInput(f"store {path} cannot be written ({error}); give another") from error
    return {entry.key: entry.passage for entry in entries}
