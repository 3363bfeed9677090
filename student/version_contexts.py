"""The contexts that a line's updates were about: `contexts.jsonl` beside its log, one a line, appended and never altered.

The log knows contexts by id. A context is on disk before the record that speaks of it, and since its id is of its content, one that was
altered is found missing.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from protocol.errors import InvalidInput, TutelageError
from protocol.files import append, sync
from protocol.messages import Context
from protocol.wire import tell_problem

CONTEXTS: Final = "contexts.jsonl"


def keep_contexts(line: Path, contexts: Iterable[Context]) -> None:
    """Append those that are not there yet, and wait until they are on disk. Only who holds the line's lock may.

    Raises:
        TutelageError: They could not be written, to a full disk say; the file is as it was.
    """
    known, end = _read(line / CONTEXTS)
    new = {context.id: context for context in contexts if context.id not in known}
    if not new:
        return
    try:
        with (line / CONTEXTS).open("ab", buffering=0) as file:
            file.truncate(end)  # half a line that a crash has left
            append(file.fileno(), "".join(context.model_dump_json() + "\n" for context in new.values()).encode(), end)
        sync(line)
    except OSError as error:
        raise TutelageError(f"{line / CONTEXTS} cannot be written ({error.strerror}); make room, or let this user write there") from error


def read_contexts(line: Path) -> dict[str, Context]:
    """A line's contexts by id; none before its first update.

    Raises:
        InvalidInput: A line of the file is no context; names it.
    """
    return _read(line / CONTEXTS)[0]


def _read(path: Path) -> tuple[dict[str, Context], int]:
    """The contexts, and how many bytes they take; what comes after is torn, and counts as never written."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror})") from error
    end = content.rfind(b"\n") + 1
    contexts = {}
    for number, line in enumerate(content[:end].splitlines(), start=1):
        try:
            context = Context.model_validate_json(line)
        except ValidationError as error:
            raise InvalidInput(
                f"{path}, line {number} is no context ({tell_problem(error, 'it')}); restore the file from a copy"
            ) from error
        contexts[context.id] = context
    return contexts, end
