"""What a version answered when it was made, beside what its parent had answered: `answers.jsonl` in its folder, a row per question."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.files import write_text
from protocol.messages import Id, Message, ShortText, Text
from protocol.wire import tell_problem

ANSWERS: Final = "answers.jsonl"


class AnswerRow(Message):
    """One question and its answer. `correct` is None where there is no verdict.

    Attributes:
        why: Why it was asked: it belongs to what was learned, to what was learned earlier, or to what is to be left alone.
        before: What the parent answered, None if it was not asked; `correct_before` is the verdict on that.
    """

    context: Id
    title: ShortText
    question: Text
    gold: tuple[ShortText, ...] = ()
    answer: Text
    correct: bool | None
    why: Literal["own", "earlier", "probe"]
    before: Text | None = None
    correct_before: bool | None = None


def write_answers(folder: Path, rows: Iterable[AnswerRow]) -> None:
    """Write the rows into a version's folder that is being made."""
    write_text(folder / ANSWERS, "".join(row.model_dump_json() + "\n" for row in rows))


def read_answers(path: Path) -> list[AnswerRow]:
    """The rows of an `answers.jsonl`.

    Raises:
        InvalidInput: It cannot be read, or a line is no such row; names the file and the line.
    """
    rows = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}); every version has one: write it with write_answers, or restore it"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(AnswerRow.model_validate_json(line))
        except ValidationError as error:
            raise InvalidInput(f"{path}, line {number} is no row of answers ({tell_problem(error, 'it')}); restore it") from error
    return rows
