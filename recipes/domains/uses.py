"""What rows of a data file say of how their contexts are used, beside the contexts themselves: see `recipes.memory.Use`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.wire import tell_problem
from recipes.domains.files import read_json, read_jsonl
from recipes.domains.knowledge_files import SHAPE, context_of
from recipes.memory import Use


def load_uses(source: str) -> dict[str, Use]:
    """By context id, of rows in a `.jsonl` file or a `.json` list that say anything; other sources say nothing.

    Raises:
        InvalidInput: Names the file, the row, the key and what it must be.
    """
    path = Path(source).expanduser()
    rows: Iterable[tuple[int, Any]] = ()
    if path.suffix.lower() == ".jsonl" and path.is_file():
        rows = read_jsonl(path, SHAPE)
    elif path.suffix.lower() == ".json" and path.is_file():
        content = read_json(path)
        rows = enumerate(content, start=1) if isinstance(content, list) else ()
    uses = {}
    for number, row in rows:
        place = f"{path}, row {number}"
        said = {key: row[key] for key in Use.model_fields if key in row} if isinstance(row, dict) else {}
        if said:
            try:
                uses[context_of(row, place).id] = Use.model_validate(said)
            except ValidationError as error:
                raise InvalidInput(f"{place}: {tell_problem(error, 'the row')}; mend it, or leave it out") from error
    return uses
