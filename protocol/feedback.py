"""Feedback from use: what people, their clicks and automated tests say of a student's answers, as messages and in JSONL files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from protocol.errors import InvalidInput
from protocol.identity import content_id
from protocol.messages import PROTOCOL_VERSION, Id, Message, Name, Reason, ShortText
from protocol.wire import tell_problem

Kind = Literal["rating", "thumb", "click", "seconds", "test"]
LOWEST_RATING: Final = 1
HIGHEST_RATING: Final = 5
MOST_ROWS: Final = 10_000
"""Of feedback that is sent at once."""
_LONGEST_ROW: Final = 200_000
"""In bytes, which is more than any valid row has."""
_MOST_SECONDS: Final = 10**9
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999; whoever counts milliseconds is beyond it."""


def _read_time(value: object) -> object:
    """Seconds since 1970 from a time in ISO 8601, which must say how far it is from UTC."""
    if isinstance(value, bool):
        raise ValueError(f"it is {value}; give seconds since 1970, or UTC as in 2026-01-31T12:00:00Z")
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"it is {value!r:.80}; give UTC as in 2026-01-31T12:00:00Z, or seconds since 1970") from None
    if time.tzinfo is None:
        raise ValueError(f"it is {value!r:.80}, of no time zone; end it with Z for UTC, or with an offset such as +01:00")
    return time.timestamp()


Time = Annotated[float, Field(ge=0, le=_LAST_SECOND), BeforeValidator(_read_time, json_schema_input_type=float | str)]
"""Seconds since 1970, UTC; read from ISO 8601 as well."""


class Feedback(Message):
    """One piece of feedback about one answer of a student.

    Attributes:
        version: The fingerprint of the student, after the update that is paid for it.
        context: The id of the context that the question is about.
        question: Its text, as it stands in the context.
        kind: What was observed.
        value: A rating from 1 to 5, halves and the like allowed; seconds on the page; else true for a thumb up, a click, a test passed,
            and false for a thumb down, no click, a test failed.
        time: When it was given.
        answered: When the answer was given, if that is known.
        given: `id` in a row: whatever tells this piece from all others. Without it, equal rows are one piece.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    protocol: Literal[1] = PROTOCOL_VERSION
    version: Id
    context: Id
    question: ShortText
    kind: Kind
    value: bool | float
    time: Time
    answered: Time | None = None
    given: Name | None = Field(default=None, alias="id")

    @field_validator("value", mode="before", json_schema_input_type=bool | float)
    @classmethod
    def _suits_its_kind(cls, value: Any, seen: ValidationInfo) -> bool | float:
        kind = seen.data.get("kind")
        if kind is None:
            return False  # it is wrong, as will be said
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "rating" and not (is_number and LOWEST_RATING <= value <= HIGHEST_RATING):
            raise ValueError(f"it is {value!r:.80}; a rating is a number from {LOWEST_RATING} to {HIGHEST_RATING}")
        if kind == "seconds" and not (is_number and 0 <= value <= _MOST_SECONDS):
            raise ValueError(f"it is {value!r:.80}; seconds are a number from 0 to {_MOST_SECONDS}")
        if kind in ("thumb", "click", "test") and not isinstance(value, bool):
            raise ValueError(f"it is {value!r:.80}; of a {kind} it is true or false")
        return float(value) if is_number else bool(value)

    @model_validator(mode="after")
    def _comes_after_its_answer(self) -> "Feedback":
        if self.answered is not None and self.answered > self.time:
            raise ValueError(f"answered is {self.answered}, later than time, which is {self.time}; they may be swapped")
        return self

    @property
    def id(self) -> str:
        return self.given or content_id("Feedback", self.model_dump(mode="json"))

    @property
    def claim(self) -> str:
        """The identity of what it says, whenever it was said: pieces of one id must agree in it."""
        return content_id(self.version, self.context, self.question, self.kind, self.value)


class FeedbackBatch(Message):
    """Feedback that is sent to a service at once."""

    version: Literal[1] = PROTOCOL_VERSION
    rows: Annotated[tuple[Feedback, ...], Field(max_length=MOST_ROWS)]


class RefusedFeedback(Message):
    """A row of a batch that was not taken: which, counted from 0, and why."""

    row: Annotated[int, Field(ge=0)]
    reason: Reason


class FeedbackReceipt(Message):
    """What became of a batch, once what was taken is on disk.

    Attributes:
        taken: How many rows. What was sent before is taken again; it counts once, by its id.
        refused: The others.
    """

    version: Literal[1] = PROTOCOL_VERSION
    taken: Annotated[int, Field(ge=0)]
    refused: Annotated[tuple[RefusedFeedback, ...], Field(max_length=MOST_ROWS)] = ()


@dataclass(frozen=True)
class Row:
    """A piece of feedback, and where it stands."""

    place: str
    feedback: Feedback


@dataclass(frozen=True)
class RefusedRow:
    """Where a row stands that does not count, and why."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


Refuse = Callable[[RefusedRow], None]
"""What is done about a wrong row."""


def stop_at(row: RefusedRow) -> None:
    """No row may be wrong.

    Raises:
        InvalidInput: Names the file, the line, the value and the remedy.
    """
    raise InvalidInput(str(row))


@dataclass
class RefusedRows:
    """Takes note of wrong rows, and lets the others count.

    Attributes:
        most: Of how many the reasons are kept.
        first: Those.
        count: How many there are.
    """

    most: int = 100
    first: list[RefusedRow] = field(default_factory=list)
    count: int = 0

    def __call__(self, row: RefusedRow) -> None:
        self.count += 1
        if len(self.first) < self.most:
            self.first.append(row)


def read_feedback(path: Path, refuse: Refuse = stop_at) -> Iterator[Row]:
    """Yield the rows of a JSONL file, which may be of any size and still be written.

    Args:
        path: UTF-8, one object a line.
        refuse: Called with every row that is no feedback; also with a last line that is not whole yet.

    Raises:
        InvalidInput: It cannot be read.
    """
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_ROW + 1):
                number += 1
                place = f"{path}, line {number}"
                if len(line) > _LONGEST_ROW:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_LONGEST_ROW)
                    refuse(RefusedRow(place, f"it has more than {_LONGEST_ROW} bytes, as no feedback has; leave it out"))
                elif line.strip():
                    feedback = _read(line.removeprefix(b"\xef\xbb\xbf"))
                    if isinstance(feedback, Feedback):
                        yield Row(place, feedback)
                    else:
                        unfinished = "" if line.endswith(b"\n") else "the last line is not whole, since it is being written or was torn: "
                        refuse(RefusedRow(place, unfinished + feedback))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); give a JSONL file of feedback") from error


def _read(line: bytes) -> Feedback | str:
    """A row, or why it is none."""
    try:
        return Feedback.model_validate_json(line)
    except ValidationError as error:
        return tell_problem(error, "the row").replace("Value error, ", "", 1)
