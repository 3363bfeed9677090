"""What a line's log says, record by record, and the chain that holds the records together.

A record is one line of JSON whose last key is `hash`: `content_id` of the line as it stands without it. `previous`, the hash of the record
before, is part of that. So no line can be altered, removed, inserted or moved unnoticed, but for those at the end, over which `head.json`
watches. That finds damage and careless hands; there is no key, so whoever writes the whole log and the head anew is not found out.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from protocol.errors import InvalidInput
from protocol.identity import content_id
from protocol.messages import Id, Message, Name, Reason, SelfEdit, ShortText
from protocol.wire import tell_problem

LINE_VERSION: Final = 1
NOTHING_BEFORE: Final = "0" * 32
"""`previous` of the first record."""

Number = Annotated[int, Field(ge=0)]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
_SEALED: Final = re.compile(rb'(\{.*),"hash":"([0-9a-f]{32})"\}\n', re.DOTALL)


class Check(Message):
    """What a gate found. `value` and `threshold` are None where nothing could be measured, or nothing was asked for."""

    name: Name
    value: float | None = None
    threshold: float | None = None
    passed: bool
    reason: Reason = ""


class LearnedLesson(Message):
    """A self-edit that was learned, and of which context: by id, and as its title names it."""

    context: Id
    title: ShortText
    edit: SelfEdit


class Attempt(Message):
    """An attempt to update the student, whether it made a version or was refused.

    Attributes:
        request: Id of what was asked for.
        recipe: Content id of the settings it was made with.
        rewards: One per lesson: how much more often than before its context's questions are answered rightly, None where that is not known;
            or none at all.
        seconds: Wall time of training, asking and checking.
    """

    request: Id
    lessons: tuple[LearnedLesson, ...]
    strategy: Name
    recipe: Id
    rewards: tuple[float | None, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _has_a_reward_per_lesson(self) -> "Attempt":
        if self.rewards and len(self.rewards) != len(self.lessons):
            raise ValueError(f"there are {len(self.rewards)} rewards and {len(self.lessons)} lessons; give one reward per lesson, or none")
        return self


class Chained(Message):
    """A record of the log. What it stands behind, and its own hash, it gets from `seal`."""

    previous: Id = NOTHING_BEFORE
    hash: Annotated[Id, Field(exclude=True)] = NOTHING_BEFORE


class LineRecord(Chained):
    """The first line: which version of these records the log is written in. A later version may say more in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["line"] = "line"
    version: Annotated[int, Field(ge=1)] = LINE_VERSION


class VersionRecord(Attempt, Chained):
    """A version.

    Attributes:
        parent: Number of the version that the update started from; 0 is the untouched base.
        files: Of every file in the folder the hash (`hash_files`), by its name there.
        fingerprint: Of the student with the version's weights.
        base: Fingerprint of the untouched base, which the weights are a change of.
    """

    kind: Literal["version"] = "version"
    number: Annotated[int, Field(ge=1)]
    parent: Number
    folder: Annotated[str, StringConstraints(pattern=r"^v[0-9]{4,}$")]
    files: dict[ShortText, Id]
    fingerprint: Id
    base: Id
    time: Time


class RefusedRecord(Attempt, Chained):
    """An update that made no version, and why."""

    kind: Literal["refused"] = "refused"
    why: Reason
    time: Time


class RollbackRecord(Chained):
    """From here on an earlier version is current, or a later one again."""

    kind: Literal["rollback"] = "rollback"
    to: Number
    why: Reason = ""
    time: Time


class Head(Message):
    """How far the log is known to reach: so many records, the last with this hash."""

    records: Annotated[int, Field(ge=0)] = 0
    hash: Id = NOTHING_BEFORE


Record = LineRecord | VersionRecord | RefusedRecord | RollbackRecord
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
Sealed = TypeVar("Sealed", LineRecord, VersionRecord, RefusedRecord, RollbackRecord)


def seal(record: Sealed, previous: str) -> tuple[Sealed, bytes]:
    """A record in its place, behind the one with hash `previous`; and its line."""
    placed = record.model_copy(update={"previous": previous})
    body = placed.model_dump_json()[:-1]
    own = content_id(body)
    return placed.model_copy(update={"hash": own}), f'{body},"hash":"{own}"}}\n'.encode()


def read_chain(path: Path, lines: Iterable[bytes]) -> list[Record]:
    """The records of a log, up to a torn last line.

    Args:
        path: Where the lines are from, for messages.

    Raises:
        InvalidInput: A line is altered, removed, inserted or moved, or is of a later version; names the file and the line.
    """
    records: list[Record] = []
    previous = NOTHING_BEFORE
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # torn by a crash, or being written: it counts as never written
        try:
            records.append(_unseal(line, previous))
        except ValueError as error:
            problem = tell_problem(error, "it") if isinstance(error, ValidationError) else str(error)
            raise InvalidInput(f"{path}, line {number}: {problem}; restore {path.name} from a copy") from error
        if isinstance(first := records[0], LineRecord) and first.version > LINE_VERSION:
            known = f"this tutelage reads version {LINE_VERSION}; update tutelage"
            raise InvalidInput(f"{path} is written in version {first.version} of the log, and {known}")
        previous = records[-1].hash
    return records


def _unseal(line: bytes, previous: str) -> Record:
    """Raises ValueError, which says what is wrong with a line."""
    sealed = _SEALED.fullmatch(line)
    if sealed is None:
        raise ValueError("it is no record that ends in its hash")
    body, own = sealed.groups()
    if content_id(body.decode(errors="replace")) != own.decode():
        raise ValueError("it was altered: its hash is of another content")
    record = _RECORD.validate_json(line)
    if record.previous != previous:
        raise ValueError("it does not follow the line before: a line was removed, inserted or moved")
    if (record.kind == "line") != (previous == NOTHING_BEFORE):
        raise ValueError("a log begins with one record of kind line, and has no other")
    return record
