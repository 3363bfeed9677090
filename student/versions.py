"""The line of versions of a student that keeps learning: an append-only log, and a whole folder for each version.

    LINE/
      versions.jsonl   what was learned, refused and rolled back (`student.version_records`)
      head.json        which record the log is known to reach: one that ends earlier has lost lines
      contexts.jsonl   what the updates were about (`student.version_contexts`)
      v0001/           a PEFT adapter, or a merged model, with the whole change against the base; and answers.jsonl
      lock             held by who writes

Version 0 is the untouched base and has no folder. The folder comes first, then its record, then the head, each synced to disk: a crash at
any moment leaves a line that reads back whole, and at most a folder without a record, which the next writer removes.
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from protocol.errors import InvalidInput, TutelageError
from protocol.files import append, hash_files, is_disk_full, publish_folder, sync, write_json
from student.version_answers import ANSWERS, read_answers
from student.version_history import HEAD, LOG, History, list_files, read_log
from student.version_records import Attempt, Head, LineRecord, RefusedRecord, RollbackRecord, Sealed, VersionRecord, seal

logger = logging.getLogger(__name__)

LOCK: Final = "lock"
WEIGHTS: Final = ("adapter_config.json", "config.json")
"""A version's folder has one of them: of a PEFT adapter, or of a whole model."""
_FOLDER: Final = re.compile(r"v[0-9]{4,}(\.tmp.*)?")
"""A version, or what is being made of one, with whatever is made beside it under a longer name."""


class Line(History):
    """A line for the one process that may add to it, until it is closed."""

    def __init__(self, path: Path):
        """Begin a line in a new folder, or go on with one.

        Raises:
            InvalidInput: The folder cannot be written, is no line, or is being written by another process; or its log was tampered with.
        """
        with ExitStack() as stack:
            with _writing(path):
                _check_folder(path)
                path.mkdir(parents=True, exist_ok=True)
                _lock(path, stack.enter_context((path / LOCK).open("a+")))
                self._file = stack.enter_context((path / LOG).open("ab", buffering=0))
            records, self._end = read_log(path)
            super().__init__(path, records)
            with _writing(path):
                self._clear_up()
                if not records:
                    self._append(LineRecord())
                    sync(path)
                    sync(path.parent)
            self._write_head()
            self._held = stack.pop_all()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        self._held.close()

    def unfinished(self) -> Path:
        """A new, empty folder to write the next version into, for `add`."""
        folder = self.path / f"{self._next_folder}.tmp"
        with _writing(self.path):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def add(self, folder: Path, attempt: Attempt, *, base: str, fingerprint: str, parent: int | None = None) -> VersionRecord:
        """Make a finished folder the next version, which is current from then on.

        Args:
            folder: Weights that are the whole change against the base, and `answers.jsonl`; from `unfinished`, or on the same file system.
            base, fingerprint: Fingerprints of the untouched base, and of the student with these weights.
            parent: The version that the update started from; None is the current one.

        Raises:
            InvalidInput: The request is a version already, the base is another one, or the folder is not what it must be.
            TutelageError: It could not be written, to a full disk say. The line and the folder are as they were.
        """
        record = VersionRecord(
            **dict(attempt),
            number=len(self.versions) + 1,
            parent=self.current if parent is None else parent,
            folder=self._next_folder,
            files={},
            fingerprint=fingerprint,
            base=base,
            time=_now(),
        )
        self._refuse_contradiction(record)
        _check_version(folder)
        published = self.path / record.folder
        with _writing(self.path):
            publish_folder(folder, published)
            files = {name: hash_files([path]) for name, path in list_files(published).items()}
        try:
            return self._append(record.model_copy(update={"files": files}))
        except TutelageError:
            published.rename(folder)
            raise

    def refuse(self, attempt: Attempt, why: str) -> RefusedRecord:
        """Note that an update made no version.

        Raises:
            InvalidInput: The request is a version.
        """
        return self._append(RefusedRecord(**dict(attempt), why=why, time=_now()))

    def rollback(self, number: int, why: str = "") -> None:
        """Make another version current, an earlier or a later one; all of them stay. Nothing happens if it is current.

        Raises:
            InvalidInput: There is no such version, or it is damaged.
        """
        self.check_number(number)
        if number == self.current:
            return
        if number:
            self.open_version(number)
        self._append(RollbackRecord(to=number, why=why, time=_now()))

    @property
    def _next_folder(self) -> str:
        return f"v{len(self.versions) + 1:04d}"

    def _clear_up(self) -> None:
        """Remove what a crash has left: half a record, folders without a record, temporary ones."""
        if (torn := os.fstat(self._file.fileno()).st_size - self._end) > 0:
            logger.warning("%s ends in a torn line of %d bytes; it is dropped", self.path / LOG, torn)
            self._file.truncate(self._end)
        known = {record.folder for record in self.versions.values()}
        for item in sorted(self.path.iterdir()):
            if _FOLDER.fullmatch(item.name) and item.name not in known and item.is_dir() and not item.is_symlink():
                if not self.length:
                    raise InvalidInput(f"{self.path / LOG} is empty, but there is {item}; restore {LOG} from a copy")
                logger.warning("%s has no record, so it is no version: it is removed", item)
                shutil.rmtree(item)

    def _append(self, record: Sealed) -> Sealed:
        """Write a record and wait until it is on disk."""
        self._refuse_contradiction(record)
        sealed, line = seal(record, self.last_hash)
        with _writing(self.path):
            append(self._file.fileno(), line, self._end)
        self._end += len(line)
        self.remember(sealed)
        self._write_head()
        return sealed

    def _refuse_contradiction(self, record: Sealed) -> None:
        if problem := self.contradiction(record):
            raise InvalidInput(f"{self.path}: {problem}")

    def _write_head(self) -> None:
        """The log may be ahead of it, so it may fail."""
        try:
            write_json(self.path / HEAD, Head(records=self.length, hash=self.last_hash).model_dump())
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self.path / HEAD, error.strerror)


def _check_folder(path: Path) -> None:
    """See that a folder is a line, or may become one, before anything is written there."""
    if path.is_dir() and not (path / LOG).exists():
        strange = sorted(item.name for item in path.iterdir() if item.name != LOCK)
        if strange:
            raise InvalidInput(f"{path} is no line of versions: it has {strange[0]}, but no {LOG}; restore that, or choose a new folder")


def _check_version(folder: Path) -> None:
    """See that a folder holds what a version is made of."""
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise InvalidInput(f"{folder} has neither {' nor '.join(WEIGHTS)}; save a PEFT adapter or a whole model there")
    read_answers(folder / ANSWERS)


def _lock(path: Path, file: IO[str]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise InvalidInput(f"{path} is being written by process {file.read(20)}; wait until it is done, or end it") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        if is_disk_full(error):
            raise TutelageError(f"{problem}; make room and do it again: the line is as it was") from error
        raise InvalidInput(f"{problem}; choose a folder that you may write") from error
