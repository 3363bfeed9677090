"""Self-edits that were written elsewhere: files of completions, released or anyone's.

A file holds, for each context, the texts that some teacher wrote. Read are SEAL's data files (`completions` beside `context`), its result
files (`articles`), both as JSON or, one context a line, as JSONL; and `prompt`/`completion` rows in the published wording.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import InvalidInput
from protocol.messages import Context
from recipes.domains.files import clean, read_json, read_jsonl
from recipes.domains.knowledge_files import context_of
from recipes.domains.knowledge_text import read_prompt, style_of

SHAPE = '{"title": str, "context": str, "completions": [str]} or {"prompt": str, "completion": str}'


@dataclass(frozen=True)
class Written:
    """What was written about one context. Style is that of the prompt, where it stands there in published words."""

    context: Context
    completions: tuple[str, ...]
    style: str = ""


def read_written(path: Path) -> list[Written]:
    """Read a file of completions, in its order.

    Raises:
        InvalidInput: Names the file, the place, the value and the remedy.
    """
    if not path.is_file():
        raise InvalidInput(f"{path} {'is a folder' if path.exists() else 'does not exist'}; give a file of self-edits, each row {SHAPE}")
    if path.suffix.lower() == ".jsonl":
        rows: Iterable[tuple[str, Any]] = ((f"{path}, line {number}", row) for number, row in read_jsonl(path, SHAPE))
    else:
        content = read_json(path)
        if isinstance(content, dict):
            content = content.get("articles")
        if not isinstance(content, list):
            raise InvalidInput(f"{path} is neither a list of contexts with completions nor a result file; each row is {SHAPE}")
        rows = ((f"{path}, item {number}", row) for number, row in enumerate(content))
    written = [_read(row, place) for place, row in rows]
    if not written:
        raise InvalidInput(f"{path} holds no self-edits; each row is {SHAPE}")
    return written


def find_written(path: Path, contexts: Sequence[Context], count: int, key: str) -> Mapping[str, Sequence[tuple[str, str]]]:
    """What a file says about contexts, by their ids: texts, each with the style of its prompt. Passages are compared, not titles.

    Args:
        count: How many texts each context needs.
        key: The recipe's key, for messages.

    Raises:
        InvalidInput: The file says nothing about some context, or not enough.
    """
    texts: dict[str, list[tuple[str, str]]] = {}
    for written in read_written(path):
        texts.setdefault(_compared(written.context), []).extend((text, written.style) for text in written.completions)
    missing = [context for context in contexts if len(texts.get(_compared(context), [])) < count]
    if missing:
        had = len(texts.get(_compared(missing[0]), []))
        raise InvalidInput(
            f"{key} is {str(path)!r}, which has too few self-edits for {len(missing)} of {len(contexts)} contexts: "
            f"{missing[0].label!r} has {had}, and {count} are needed; give contexts that it is about"
        )
    return {context.id: texts[_compared(context)] for context in contexts}


def _compared(context: Context) -> str:
    return " ".join(context.passage.split())


def _read(row: Any, place: str) -> Written:
    if isinstance(row, dict) and isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        read = read_prompt(row["prompt"])
        if read is None:
            raise InvalidInput(f"{place}: prompt {row['prompt'][:60]!r} is none of the published ones, so its passage is not known")
        style, title, passage = read
        return Written(context_of({"title": title, "context": passage}, place), (clean(row["completion"]),), style)
    context = context_of(row, place)
    completions = row.get("completions")
    if not isinstance(completions, list):
        raise InvalidInput(f"{place}: completions is {completions!r:.80}; each row is {SHAPE}")
    texts: list[Any] = [text.get("text") if isinstance(text, dict) else text for text in completions]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"{place}, completion {index} is {text!r:.80}; it must be a text")
    style = style_of(row["prompt"]) if isinstance(row.get("prompt"), str) else ""
    return Written(context, tuple(clean(text) for text in texts), style)
