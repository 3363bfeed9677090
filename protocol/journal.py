"""The journal: an append-only file of everything measured, from which an interrupted run goes on.

One JSON record a line, one writer, synced to disk per batch. What stands in it is never computed again.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from protocol.errors import InvalidInput
from protocol.identity import content_id
from protocol.messages import Id, Message, Name, Refusal, Reward, Seed, ShortText, VersionCard

logger = logging.getLogger(__name__)


class RoundRecord(Message):
    """A stage began: which contexts, in which order."""

    kind: Literal["round"] = "round"
    stage: Name
    contexts: tuple[Id, ...]


class CandidateRecord(Message):
    """One text sampled from the teacher; `malformed` says why it is no self-edit. Of a huge text only a start is kept."""

    kind: Literal["candidate"] = "candidate"
    stage: Name
    context: Id
    index: Annotated[int, Field(ge=0)]
    seed: Seed
    text: str
    malformed: ShortText | None = None

    @property
    def candidate(self) -> str:
        return content_id("candidate", self.stage, self.context, self.index)


class RewardRecord(Message):
    """A measurement, and the stage that had it made."""

    kind: Literal["reward"] = "reward"
    stage: Name
    result: Reward | Refusal


class SelectionRecord(Message):
    """Which candidates the teacher is finetuned on."""

    kind: Literal["selection"] = "selection"
    stage: Name
    rule: Name
    kept: tuple[Id, ...]


class CheckpointRecord(Message):
    """A finished M step; `path` is relative to the run folder."""

    kind: Literal["checkpoint"] = "checkpoint"
    stage: Name
    path: ShortText
    fingerprint: Id


class CommitRecord(Message):
    kind: Literal["commit"] = "commit"
    card: VersionCard


Record = RoundRecord | CandidateRecord | RewardRecord | SelectionRecord | CheckpointRecord | CommitRecord
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


class Journal:
    """Reads what is there, then appends. Look-ups answer from memory."""

    def __init__(self, path: Path):
        self.path = path
        self.rounds: dict[str, RoundRecord] = {}
        self.candidates: dict[tuple[str, str, int], CandidateRecord] = {}
        self.results: dict[str, Reward | Refusal] = {}
        self.scored_in: dict[str, str] = {}
        self.selections: dict[str, SelectionRecord] = {}
        self.checkpoints: dict[str, CheckpointRecord] = {}
        self.commits: dict[str, VersionCard] = {}
        if path.exists():
            _drop_torn_line(path)
            for record in read_records(path):
                self._remember(record)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def append(self, *records: Record) -> None:
        """Write records and wait until they are on disk."""
        self._file.write("".join(record.model_dump_json() + "\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())
        for record in records:
            self._remember(record)

    def close(self) -> None:
        self._file.close()

    def _remember(self, record: Record) -> None:
        """The first record under a key is the one that counts."""
        match record:
            case RoundRecord():
                self.rounds.setdefault(record.stage, record)
            case CandidateRecord():
                self.candidates.setdefault((record.stage, record.context, record.index), record)
            case RewardRecord():
                self.results.setdefault(record.result.key, record.result)
                self.scored_in.setdefault(record.result.key, record.stage)
            case SelectionRecord():
                self.selections.setdefault(record.stage, record)
            case CheckpointRecord():
                self.checkpoints.setdefault(record.stage, record)
            case CommitRecord():
                self.commits.setdefault(record.card.key, record.card)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a journal.

    Raises:
        InvalidInput: A line is not a record; names the file and the line.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield _RECORD.validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise InvalidInput(
                    f"{path}, line {number} is not a journal record ({problem}); restore the file or start a new run with name=..."
                ) from error


def _drop_torn_line(path: Path) -> None:
    """A crash in mid-write leaves a last line without its end: cut it off, since it was never confirmed."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        logger.warning("%s ends in a torn line of %d bytes; it is dropped and computed again", path, len(content) - end)
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
