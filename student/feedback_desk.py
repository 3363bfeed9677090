"""Feedback from use as a service keeps it: rows about the versions of a line, in a JSONL file that `protocol.feedback` reads."""

import os
import threading
from collections.abc import Set
from pathlib import Path

from protocol.errors import InvalidInput, TutelageError
from protocol.feedback import FeedbackBatch, FeedbackReceipt, RefusedFeedback
from protocol.files import append, drop_torn_line, sync
from student.version_history import LOG, read_line


class NotKept(TutelageError):
    """Nothing of a batch was kept; it may be sent again."""


class FeedbackDesk:
    """Takes feedback from any thread, about versions that may be made meanwhile."""

    def __init__(self, path: Path, line: Path):
        """A desk that appends to the file `path`, which nobody else writes, what is about versions of `line`."""
        self._path, self._line = path, line
        self._lock = threading.Lock()
        self._versions: Set[str] = frozenset()
        self._log_size = -1

    def take(self, batch: FeedbackBatch) -> FeedbackReceipt:
        """Keep the rows that are about versions of the line; they are on disk when this returns.

        Raises:
            NotKept: The line cannot be read, or the file not be written. It is as it was.
        """
        with self._lock:
            known = self._select_known({row.version for row in batch.rows})
            taken = [row for row in batch.rows if row.version in known]
            if taken:
                self._append("".join(row.model_dump_json() + "\n" for row in taken).encode())
        refused = tuple(
            RefusedFeedback(
                row=number,
                reason=f"version is {row.version}, which the line in use has not; give one that tutelage versions LINE --json tells",
            )
            for number, row in enumerate(batch.rows)
            if row.version not in known
        )
        return FeedbackReceipt(taken=len(taken), refused=refused)

    def _select_known(self, versions: Set[str]) -> Set[str]:
        """Those of the line. Its log is read if there is one that was unknown so far, and the log has changed."""
        try:
            if not versions <= self._versions and (size := (self._line / LOG).stat().st_size) != self._log_size:
                self._versions = {record.fingerprint for record in read_line(self._line).versions.values()}
                self._log_size = size
        except (OSError, InvalidInput) as error:
            raise NotKept(f"nothing was kept, since it cannot be read which versions there are; send it again later ({error})") from error
        return versions & self._versions

    def _append(self, lines: bytes) -> None:
        """What a crash has torn is cut off first, so that no line follows half of another."""
        try:
            end = drop_torn_line(self._path) if self._path.exists() else 0
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                append(descriptor, lines, end)
            finally:
                os.close(descriptor)
            if not end:
                sync(self._path.parent)
        except OSError as error:
            raise NotKept(
                f"nothing was kept, since {self._path} cannot be written ({error.strerror}); make room, and send it again"
            ) from error
