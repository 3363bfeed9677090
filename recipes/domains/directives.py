"""The self-edits of the few-shot domain: directives that say how the student is to train, as JSON.

Source: SEAL, arXiv 2506.10943, section 3.2 and appendix A, and its released code (the prompt).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictBool, StrictInt, ValidationError

from protocol.errors import InvalidInput, MalformedEdit
from protocol.messages import Context, Message, SelfEdit, Update
from recipes.domains.files import first_doubled, read_json, read_jsonl

MAX_CHARACTERS: Final = 20_000
SHAPE: Final = '{"task": name, "completions": [text]}'

REQUEST: Final = """You are configuring a model training pipeline by selecting from predefined tools.

You must make two decisions:

1. **Data Generation Tools** — For each of the following, choose true or false:
    - use_basic_augmentations
    - use_size_augmentations
    - use_chain_augmentations
    - use_repeat_augmentations

2. **Training Configuration** — Choose one of:
    - "train_using_all_tokens"
    - "train_using_output_tokens"

Also specify:
    - learning_rate (float)
    - num_train_epochs (integer)

### Output Format

Respond with a valid JSON object. Do not include any explanation, markdown, or extra text. Use lowercase `true`/`false` for booleans and \
ensure correct JSON syntax.

Example output:

{
  "data_generation": {
    "use_basic_augmentations": ...,
    "use_size_augmentations": ...,
    "use_chain_augmentations": ...,
    "use_repeat_augmentations": ...
  },
  "training": {
    "strategy": ...,
    "learning_rate": ...,
    "num_train_epochs": ...
  }
}
"""
"""What a teacher is asked, after the demonstrations; as published."""


class DataGeneration(Message):
    """Which groups of augmentations are used."""

    use_basic_augmentations: StrictBool
    use_size_augmentations: StrictBool
    use_chain_augmentations: StrictBool
    use_repeat_augmentations: StrictBool


class Training(Message):
    """How the student trains."""

    strategy: Literal["train_using_all_tokens", "train_using_output_tokens"]
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=1)]
    num_train_epochs: Annotated[StrictInt, Field(ge=1, le=10_000)]


class Directives(Message):
    """The published object, every key of it."""

    data_generation: DataGeneration
    training: Training

    def to_edit(self) -> SelfEdit:
        training = self.training
        update = Update(
            learning_rate=training.learning_rate,
            epochs=training.num_train_epochs,
            loss_on="all" if training.strategy == "train_using_all_tokens" else "completion",
        )
        return SelfEdit(directives=self.data_generation.model_dump(), update=update)


def read_directives(text: str) -> SelfEdit:
    """The first JSON object in a candidate that has one of the keys. Text around it is passed over; inside everything must be right.

    Raises:
        MalformedEdit: Names the key, the value and what is allowed.
    """
    if len(text) > MAX_CHARACTERS:
        raise MalformedEdit(f"the candidate has {len(text)} characters, more than {MAX_CHARACTERS}; directives are one small JSON object")
    reasons = []
    for found, problem in _objects(text):
        if found is None:
            reasons.append(problem)
        elif not found.keys() & Directives.model_fields.keys():
            reasons.append(problem or f"the object with {', '.join(map(repr, found)) or 'no keys'} is none"[:200])
        elif problem:
            raise MalformedEdit(problem)
        else:
            try:
                return Directives.model_validate(found).to_edit()
            except ValidationError as error:
                raise MalformedEdit(describe_error(error)) from error
    reason = reasons[0] if reasons else "the candidate holds no JSON object"
    raise MalformedEdit(f"{reason}; directives are one object with data_generation and training")


def read_chosen(text: str) -> SelfEdit:
    """Directives as a user gives them, and nothing beside: a whole self-edit, or groups of augmentations alone; what is left out is false.

    Raises:
        MalformedEdit: As for `read_directives`.
    """
    found, problem = next(_objects(text), (None, "it is no JSON object"))
    if found is None or problem or found.keys() & Directives.model_fields.keys():
        return read_directives(text)
    try:
        json.loads(text)
        chosen = DataGeneration.model_validate(dict.fromkeys(DataGeneration.model_fields, False) | found)
    except json.JSONDecodeError as error:
        raise MalformedEdit(f"it must be one JSON object and nothing else: {error.msg.lower()} at character {error.pos}") from error
    except ValidationError as error:
        raise MalformedEdit(describe_error(error)) from error
    return SelfEdit(directives=chosen.model_dump())


def find_directives(path: Path, contexts: Sequence[Context], count: int, key: str) -> dict[str, list[tuple[str, str]]]:
    """What a file says about tasks: one JSON object of directives for all of them, or rows of `SHAPE`, by the tasks' names.

    Raises:
        InvalidInput: The file cannot be read, or says too little about some task.
    """
    if not path.is_file():
        raise InvalidInput(f"{key} is {str(path)!r}, which is no file; give a JSON object of directives, or a .jsonl with rows {SHAPE}")
    if path.suffix.lower() != ".jsonl":
        constant = json.dumps(read_json(path))
        try:
            read_directives(constant)
        except MalformedEdit as error:
            raise InvalidInput(f"{key} is {str(path)!r}, which is no self-edit for every task: {error}") from error
        return {context.id: [(constant, "")] * count for context in contexts}
    written: dict[str, list[str]] = {}
    for number, row in read_jsonl(path, SHAPE):
        name, texts = (row.get("task"), row.get("completions")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InvalidInput(f"{path}, line {number} is {row!r:.80}; every row is {SHAPE}")
        written.setdefault(name, []).extend(texts)
    for context in contexts:
        if len(written.get(context.title, ())) < count:
            raise InvalidInput(
                f"{key} is {str(path)!r}, which has {len(written.get(context.title, ()))} self-edits for task {context.title!r}, "
                f"and {count} are needed; give tasks that it is about"
            )
    return {context.id: [(text, "") for text in written[context.title]] for context in contexts}


def describe_error(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{place:.80} is no key of directives; leave it out"
    value = f", not {problem['input']!r:.80}" if problem["type"] != "missing" else ""
    return f"{place:.80}: {problem['msg'].lower()}{value}"


def _objects(text: str) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """JSON objects in a text, each with what is wrong with it, if anything; where there should be one, none and why."""
    problems: list[str] = []

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known = dict(pairs)
        if len(known) < len(pairs):
            problems.append(f"key {first_doubled(pairs)!r:.80} stands there twice")
        return known

    decoder = json.JSONDecoder(
        object_pairs_hook=without_duplicates, parse_constant=lambda name: problems.append(f"{name} is no number"), parse_int=_read_int
    )
    start = text.find("{")
    while start >= 0:
        problems.clear()
        try:
            found, end = decoder.raw_decode(text, start)
            yield found, problems[0] if problems else ""
        except json.JSONDecodeError as error:
            yield None, f"what begins with {text[start : start + 20]!r} is no JSON: {error.msg.lower()}"
            end = max(start + 1, error.pos)  # what was read once is not read again
        except RecursionError:
            yield None, "the JSON nests too deeply"
            return
        start = text.find("{", end)


def _read_int(digits: str) -> int | float:
    """Of a number longer than Python reads, what it comes to."""
    return int(digits) if len(digits) <= 400 else float(digits)
