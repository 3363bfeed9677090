"""A line of versions as whoever reads it sees it: what was learned, refused and rolled back, and each version's folder, if it is whole."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.files import hash_files
from protocol.wire import tell_problem
from student.version_records import NOTHING_BEFORE, Head, Record, RefusedRecord, RollbackRecord, VersionRecord, read_chain

LOG: Final = "versions.jsonl"
HEAD: Final = "head.json"


class History:
    """What a line's log says.

    Attributes:
        versions: By number, from 1 on; version 0 is the untouched base.
        refusals, rollbacks: In their order.
        current: Number of the version that answers now.
        length, last_hash: How many records there are, and the hash of the last.
    """

    def __init__(self, path: Path, records: Sequence[Record] = ()):
        self.path = path
        self.versions: dict[int, VersionRecord] = {}
        self.refusals: list[RefusedRecord] = []
        self.rollbacks: list[RollbackRecord] = []
        self.current = 0
        self.length, self.last_hash = 0, NOTHING_BEFORE
        self._numbers: dict[str, int] = {}
        for line, record in enumerate(records, start=1):
            if problem := self.contradiction(record):
                raise InvalidInput(f"{path / LOG}, line {line}: {problem}; restore {LOG} from a copy")
            self.remember(record)

    def find(self, request: str) -> VersionRecord | RefusedRecord | None:
        """What became of an update that was asked for: the version that it made, or how it was last refused."""
        if request in self._numbers:
            return self.versions[self._numbers[request]]
        return next((refusal for refusal in reversed(self.refusals) if refusal.request == request), None)

    def ancestry(self, number: int) -> list[int]:
        """A version, its parent, and so on to 0."""
        self.check_number(number)
        found = [number]
        while found[-1]:
            found.append(self.versions[found[-1]].parent)
        return found

    def check_number(self, number: int) -> None:
        """Raises InvalidInput, which names the versions that exist."""
        if number != 0 and number not in self.versions:
            known = f"versions 0 (the untouched base) to {len(self.versions)}" if self.versions else "only version 0, the untouched base"
            raise InvalidInput(f"version {number} does not exist; {self.path} has {known}")

    def open_version(self, number: int) -> Path:
        """A version's folder, once every file in it is found to be what it was when it was made.

        Raises:
            InvalidInput: There is no such version, or its folder is damaged; names the version and the file.
        """
        record = self._record(number)
        folder = self.path / record.folder
        try:
            found = list_files(folder)
            changed = [f"{name} is missing" for name in record.files if name not in found]
            changed += [f"{name} was not there" for name in found if name not in record.files]
            changed = changed or [f"{name} was altered" for name, path in found.items() if hash_files([path]) != record.files[name]]
        except OSError as error:
            raise InvalidInput(f"version {number} cannot be read: {error.filename} ({error.strerror})") from error
        if changed:
            raise InvalidInput(f"version {number} is damaged: {folder / changed[0]}; restore {folder} from a copy, or take another version")
        return folder

    def open_file(self, number: int, name: str) -> Path:
        """One file of a version, once it is found to be what it was; the others may be damaged.

        Raises:
            InvalidInput: There is no such version or file, or the file was altered.
        """
        record = self._record(number)
        path = self.path / record.folder / name
        try:
            is_same = name in record.files and hash_files([path]) == record.files[name]
        except OSError as error:
            raise InvalidInput(f"version {number} is damaged: {path} cannot be read ({error.strerror}); restore it from a copy") from error
        if not is_same:
            raise InvalidInput(f"version {number} is damaged: {path} was altered; restore it from a copy, or take another version")
        return path

    def _record(self, number: int) -> VersionRecord:
        self.check_number(number)
        if number == 0:
            raise InvalidInput("version 0 is the untouched base, which has no folder in the line; take the model that the line stands on")
        return self.versions[number]

    def contradiction(self, record: Record) -> str | None:
        """Why a record cannot come next, if it cannot."""
        match record:
            case VersionRecord(number=number) if number != len(self.versions) + 1:
                return f"number is {number}; the next version is {len(self.versions) + 1}"
            case VersionRecord(number=number, parent=parent) if parent >= number:
                return f"parent is {parent}, which does not exist"
            case VersionRecord(base=base) if self.versions and base != self.versions[1].base:
                return f"base is {base}, but the line stands on {self.versions[1].base}"
            case VersionRecord(request=request) | RefusedRecord(request=request) if request in self._numbers:
                return f"request {request} is version {self._numbers[request]} already"
            case RollbackRecord(to=to) if to > len(self.versions):
                return f"to is {to}, a version that does not exist"
        return None

    def remember(self, record: Record) -> None:
        """Take in the record that comes next."""
        self.length, self.last_hash = self.length + 1, record.hash
        match record:
            case VersionRecord():
                self.versions[record.number] = record
                self._numbers[record.request] = self.current = record.number
            case RefusedRecord():
                self.refusals.append(record)
            case RollbackRecord():
                self.rollbacks.append(record)
                self.current = record.to


def read_line(path: Path) -> History:
    """What a line's log says at this moment. It may be written meanwhile, and nothing is changed.

    Raises:
        InvalidInput: It is no line; a record was altered, removed, inserted or moved: names the file and the line.
    """
    return History(path, read_log(path)[0])


def read_log(path: Path) -> tuple[list[Record], int]:
    """The records of a line, and how many bytes of its log they take; what comes after is torn."""
    try:  # the head first, so that the log is never behind it
        head = Head.model_validate_json((path / HEAD).read_bytes()) if (path / HEAD).exists() else Head()
        content = (path / LOG).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInput(f"{path} is no line of versions (it has no {LOG}); give the folder in which a student keeps learning") from error
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        problem = tell_problem(error, "it")
        raise InvalidInput(f"{path / HEAD} is not as a line's writer wrote it ({problem}); restore it from a copy, or remove it") from error
    records = read_chain(path / LOG, io.BytesIO(content))
    if head.records and (len(records) < head.records or records[head.records - 1].hash != head.hash):
        raise InvalidInput(
            f"{path / LOG}, line {min(len(records) + 1, head.records)}: it is gone or another one, as {HEAD} knows, which tells of "
            f"{head.records} records; restore {LOG} from a copy, or remove {HEAD} to give up the versions that the log does not have"
        )
    return records, content.rfind(b"\n") + 1


def list_files(folder: Path) -> dict[str, Path]:
    """Every file in a folder and below, by its path from there."""
    return {str(item.relative_to(folder)): item for item in sorted(folder.rglob("*")) if item.is_file()}
