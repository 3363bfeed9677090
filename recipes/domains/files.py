"""Data files as users have them: text, JSON, JSON lines.

Whatever is wrong is an `InvalidInput` that names the file, the place, the value and the remedy.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidInput

MAX_BYTES: Final = 2**30
"""A larger file is read by nobody in one piece."""


def find_source(source: str, remedy: str) -> Path:
    """The file or folder that a recipe names."""
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, no such user, a zero byte
        raise InvalidInput(f"data source {source!r:.200} cannot be looked up ({error!s:.200}); {remedy}") from error
    raise InvalidInput(f"data source {source!r} does not exist; {remedy}")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InvalidInput(f"{path} has {size} bytes, more than {MAX_BYTES}; split it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file, whatever it is."""
    text = read_text(path)
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path}, line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InvalidInput(f"{path} nests too deeply to be data") from error
    except ValueError as error:  # a doubled key, a number of thousands of digits
        raise InvalidInput(f"{path} is not JSON that can be read: {error}") from error


def read_jsonl(path: Path, shape: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for every line that is not blank; `shape` says in messages what a line should be."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, _loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{path}, line {number} is not JSON: {error}; every line is one object {shape}") from error


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values under one key nobody knows which is meant."""
    known = dict(pairs)
    if len(known) < len(pairs):
        raise ValueError(f"key {first_doubled(pairs)!r:.80} stands there twice; leave one out")
    return known


def first_doubled(pairs: list[tuple[str, Any]]) -> str:
    """The first key that has stood there before."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise ValueError("no key stands there twice")


def clean(text: str) -> str:
    """Text that can be written again: half characters, which JSON can hold and UTF-8 cannot, become question marks."""
    return text.encode("utf-8", errors="replace").decode()
