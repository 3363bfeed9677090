"""The journal: an append-only file of everything measured, from which an interrupted run goes on.

One JSON record a line, one writer, synced to disk per batch. What stands in it is never computed again. Of the many records,
candidates, decisions, rewards and answers, only their places are held in memory.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema

from protocol.errors import InvalidInput, TutelageError
from protocol.files import append, drop_torn_line, sync
from protocol.identity import content_id
from protocol.messages import Answers, Id, Message, Name, Refusal, Reward, Seed, ShortText, VersionCard
from protocol.spending import Spending

JOURNAL_VERSION: Final = 1


class JournalRecord(Message):
    """The first line: which version of these records the journal is written in. A later version may say more in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["journal"] = "journal"
    version: Annotated[int, Field(ge=1)] = JOURNAL_VERSION


class RoundRecord(Message):
    """A stage began: which contexts, in which order."""

    kind: Literal["round"] = "round"
    stage: Name
    contexts: tuple[Id, ...]


class DecisionRecord(Message):
    """What an editor made of a self-edit before any student saw it.

    Attributes:
        reason: Why it was mended or refused.
        rules: The settings that said so.
        dropped: How many of its examples were dropped.
        kept: If it was mended, which of its examples the student learns, counted from 0.
        text: If it was mended, the completion that says only that, where the domain can write it.
    """

    kind: Literal["decision"] = "decision"
    stage: Name
    context: Id
    index: Annotated[int, Field(ge=0)]
    decision: Literal["accepted", "mended", "refused"]
    reason: ShortText = ""
    rules: tuple[Name, ...] = ()
    dropped: Annotated[int, Field(ge=0)] = 0
    kept: tuple[int, ...] | None = None
    text: str | None = None

    @property
    def candidate(self) -> str:
        return content_id("candidate", self.stage, self.context, self.index)


class CandidateRecord(Message):
    """One text of the teacher, written to the prompt of a style; `malformed` says why it is no self-edit. Of a huge text only a
    start is kept.

    Attributes:
        decision: The editor's, if there is an editor; it has a record of its own.
    """

    kind: Literal["candidate"] = "candidate"
    stage: Name
    context: Id
    index: Annotated[int, Field(ge=0)]
    seed: Seed
    style: ShortText = ""
    text: str
    malformed: ShortText | None = None
    decision: SkipJsonSchema[DecisionRecord | None] = Field(default=None, exclude=True)

    @property
    def candidate(self) -> str:
        return content_id("candidate", self.stage, self.context, self.index)

    @property
    def refused(self) -> str | None:
        """Why the editor refused it."""
        return self.decision.reason if self.decision and self.decision.decision == "refused" else None

    @property
    def unusable(self) -> str | None:
        """Why no student learns it: it is no self-edit, or the editor refused it."""
        return self.malformed if self.malformed is not None else self.refused

    @property
    def taught(self) -> str:
        """What a teacher is finetuned on: what the student learned, where that could be written as a completion."""
        return self.decision.text if self.decision and self.decision.text is not None else self.text


class RewardRecord(Message):
    """A measurement, and the stage that had it made."""

    kind: Literal["reward"] = "reward"
    stage: Name
    result: Reward | Refusal


class AnswersRecord(Message):
    """What the untouched base answered."""

    kind: Literal["answers"] = "answers"
    stage: Name
    result: Answers | Refusal


class SelectionRecord(Message):
    """Which candidates the teacher is finetuned on.

    Attributes:
        rewards: The mean reward of each context's candidates, where they were scored: of the repeats that all of them had.
        groups: Of the contexts that have rewards, if any context has a group.
        reliability: Of these rewards, if there were repeats.
        saved: Inner loops not run because a candidate had no chance any more.
    """

    kind: Literal["selection"] = "selection"
    stage: Name
    rule: Name
    kept: tuple[Id, ...]
    rewards: tuple[float, ...] = ()
    groups: tuple[ShortText, ...] = ()
    reliability: dict[Name, float] | None = None
    saved: int = 0


class CheckpointRecord(Message):
    """A finished M step; `path` is relative to the run folder."""

    kind: Literal["checkpoint"] = "checkpoint"
    stage: Name
    path: ShortText
    fingerprint: Id


class SpendingRecord(Message):
    """What a candidate cost that was asked for at an endpoint, whether it came or not."""

    kind: Literal["spending"] = "spending"
    stage: Name
    spending: Spending


class CommitRecord(Message):
    kind: Literal["commit"] = "commit"
    card: VersionCard


Record = (
    JournalRecord
    | RoundRecord
    | CandidateRecord
    | DecisionRecord
    | RewardRecord
    | AnswersRecord
    | SelectionRecord
    | CheckpointRecord
    | SpendingRecord
    | CommitRecord
)
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])

Key = TypeVar("Key")
Value = TypeVar("Value")


class OnDisk(Mapping[Key, Value]):
    """Values that stand in a file, by key: each is read when it is asked for."""

    def __init__(self, read: Callable[[int, int], Value]):
        """`read` gives the value at so many bytes from the start, so many bytes long."""
        self._read = read
        self._places: dict[Key, tuple[int, int]] = {}

    def place(self, key: Key, start: int, length: int) -> None:
        """The first value under a key is the one that counts."""
        self._places.setdefault(key, (start, length))

    def __getitem__(self, key: Key) -> Value:
        return self._read(*self._places[key])

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[Key]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Journal:
    """Reads what is there, then appends.

    Attributes:
        inner_loops: How many inner loops the journaled rewards are made of.
        spending: What all candidates that were asked for at endpoints cost.
        scored_in: By a measurement's key, the stage that had it made.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rounds: dict[str, RoundRecord] = {}
        self.candidates = OnDisk[tuple[str, str, int], CandidateRecord](self._read_candidate)
        self.decisions = OnDisk[tuple[str, str, int], DecisionRecord](self._read_decision)
        self.results = OnDisk[str, Reward | Refusal](self._read_result)
        self.answers = OnDisk[str, Answers | Refusal](self._read_answers)
        self.scored_in: dict[str, str] = {}
        self.selections: dict[str, SelectionRecord] = {}
        self.checkpoints: dict[str, CheckpointRecord] = {}
        self.commits: dict[str, VersionCard] = {}
        self.inner_loops = 0
        self.spending = Spending()
        self._end = 0
        if path.exists():
            drop_torn_line(path)
            for record, length in _read_lines(path):
                self._remember(record, length)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if not self._end:
            self.append(JournalRecord())
            sync(path.parent)

    def append(self, *records: Record) -> None:
        """Write records and wait until they are on disk. A crash meanwhile may leave the first of them.

        Raises:
            TutelageError: They could not be written, to a full disk say; the journal is as it was.
        """
        lines = [(record.model_dump_json() + "\n").encode() for record in records]
        try:
            append(self._file, b"".join(lines), self._end)
        except OSError as error:
            raise TutelageError(
                f"{self.path} cannot be written ({error.strerror}); make room, and the same command goes on from what is journaled"
            ) from error
        for record, line in zip(records, lines, strict=True):
            self._remember(record, len(line))

    def close(self) -> None:
        os.close(self._file)

    def _remember(self, record: Record, length: int) -> None:
        """The first record under a key is the one that counts."""
        start, self._end = self._end, self._end + length
        match record:
            case RoundRecord():
                self.rounds.setdefault(record.stage, record)
            case CandidateRecord():
                self.candidates.place((sys.intern(record.stage), sys.intern(record.context), record.index), start, length)
            case DecisionRecord():
                self.decisions.place((sys.intern(record.stage), sys.intern(record.context), record.index), start, length)
            case RewardRecord(result=result):
                if isinstance(result, Reward) and result.key not in self.results:
                    self.inner_loops += len(result.seeds)
                self.results.place(result.key, start, length)
                self.scored_in.setdefault(result.key, sys.intern(record.stage))
            case AnswersRecord(result=answers):
                self.answers.place(answers.key, start, length)
            case SelectionRecord():
                self.selections.setdefault(record.stage, record)
            case CheckpointRecord():
                self.checkpoints.setdefault(record.stage, record)
            case SpendingRecord(spending=spending):
                self.spending += spending
            case CommitRecord():
                self.commits.setdefault(record.card.key, record.card)

    def _read_candidate(self, start: int, length: int) -> CandidateRecord:
        return CandidateRecord.model_validate_json(os.pread(self._file, length, start))

    def _read_decision(self, start: int, length: int) -> DecisionRecord:
        return DecisionRecord.model_validate_json(os.pread(self._file, length, start))

    def _read_result(self, start: int, length: int) -> Reward | Refusal:
        return RewardRecord.model_validate_json(os.pread(self._file, length, start)).result

    def _read_answers(self, start: int, length: int) -> Answers | Refusal:
        return AnswersRecord.model_validate_json(os.pread(self._file, length, start)).result


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a journal.

    Raises:
        InvalidInput: There is none; a line is not a record, or of a later version; names the file and the line.
    """
    if not path.is_file():
        raise InvalidInput(f"{path} does not exist, so there is no run to read; give a run folder")
    return (record for record, _ in _read_lines(path))


def _read_lines(path: Path) -> Iterator[tuple[Record, int]]:
    """Each record with the length of its line, in bytes."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return  # torn by a crash, or being written: it counts as never written
            try:
                record = _RECORD.validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise InvalidInput(
                    f"{path}, line {number} is not a journal record ({problem}); restore the file or start a new run with name=..."
                ) from error
            if isinstance(record, JournalRecord) and record.version > JOURNAL_VERSION:
                raise InvalidInput(
                    f"{path} is written in version {record.version} of the journal, and this tutelage reads version {JOURNAL_VERSION}; "
                    "update tutelage, or start a new run with name=..."
                )
            yield record, len(line)
