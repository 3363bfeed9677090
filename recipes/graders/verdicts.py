"""Verdicts that were given before, by content: in memory, and in a file if they are to be kept. Any number of processes may share it."""

import errno
import logging
import os
from pathlib import Path

from pydantic import ValidationError

from protocol.errors import InvalidInput, TutelageError
from protocol.messages import Id, Message
from recipes.graders.wording import Verdict

logger = logging.getLogger(__name__)


class _Line(Message):
    key: Id
    verdict: Verdict


class Verdicts:
    """What is known, and the file that it stands in, one JSON object a line.

    A line is appended in one write, so that processes do not tear each other's. What a crash has torn is skipped, and asked again.
    """

    def __init__(self, folder: str):
        """Verdicts are kept in `folder`, or, if it is empty, in memory alone.

        Raises:
            InvalidInput: The folder cannot be made or read.
        """
        self._known: dict[str, Verdict] = {}
        self._path = Path(folder) / "verdicts.jsonl" if folder else None
        self._read = 0
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+", buffering=0) as file:
                if file.tell() and not _ends_a_line(self._path):
                    file.write(b"\n")
            self.refresh()
        except OSError as error:
            raise InvalidInput(f"judge.cache {folder!r} cannot be used ({error.strerror}); give a folder that can be written") from error

    def get(self, key: str) -> Verdict | None:
        return self._known.get(key)

    def add(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict; the first under a key is the one that counts.

        Raises:
            TutelageError: It cannot be written, to a full disk say.
        """
        if self._known.setdefault(key, verdict) is not verdict or self._path is None:
            return
        line = (_Line(key=key, verdict=verdict).model_dump_json() + "\n").encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TutelageError(
                f"{self._path} (judge.cache) cannot be written ({error.strerror}); make room, and the same command goes on"
            ) from error

    def refresh(self) -> None:
        """Read what other processes have written since."""
        if self._path is None or not self._path.exists():  # whoever removes it while this runs starts it anew
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        torn = 0
        for line in whole.splitlines():
            try:
                record = _Line.model_validate_json(line)
            except ValidationError:
                torn += bool(line)
            else:
                self._known.setdefault(record.key, record.verdict)
        if torn:
            logger.warning("%s: %d lines are no verdicts and are skipped; what they said is asked again", self._path, torn)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
