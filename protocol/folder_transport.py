"""A folder that teachers and students share, as a teacher's side uses it.

```
student.json            whoever serves here: all the same student
submissions/ID.json     what teachers want, until they have it
results/KEY.json        what came of a request, by the measurement's key: written once, kept
leases/ID-REQUEST       a cohort that a student is at work on (see `student.folder_desk`)
students/NAME           a sign of life, changed every few seconds
cancelled/ID-REQUEST    a request of a submission that nobody waits for
refused/ID.txt          why a submission is none
```

Every file is written under another name, synced and renamed, so none is ever seen half. Whether somebody is alive is judged by whether
their file changes, by one's own clock: clocks may differ, and jump.
"""

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from protocol.errors import InvalidInput, TutelageError
from protocol.files import sync
from protocol.messages import StudentCard, measurement_key
from protocol.wire import Result, Results, Submission, Wanted

RESULT: Final[TypeAdapter[Result]] = TypeAdapter(Result)
_POLL_SECONDS: Final = (0.02, 0.5)
"""How often to look, at first and after a while."""


@dataclass(frozen=True)
class SharedFolder:
    """Where everything lies."""

    path: Path

    @property
    def card(self) -> Path:
        return self.path / "student.json"

    def submission(self, submission_id: str) -> Path:
        return self.path / "submissions" / f"{submission_id}.json"

    def result(self, card: StudentCard, request_id: str) -> Path:
        return self.path / "results" / f"{measurement_key(card, request_id)}.json"

    def cancelled(self, submission_id: str, request_id: str) -> Path:
        return self.path / "cancelled" / f"{submission_id}-{request_id}"

    def refused(self, submission_id: str) -> Path:
        return self.path / "refused" / f"{submission_id}.txt"

    def make(self) -> None:
        """Make what is missing.

        Raises:
            InvalidInput: It cannot be written.
        """
        try:
            for name in ("submissions", "results", "leases", "students", "cancelled", "refused"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"folder {self.path} cannot be written ({error.strerror}); give one that teachers and students share"
            ) from error


def place(path: Path, content: bytes, *, replace: bool) -> bool:
    """Write a file whole. Without `replace` the first to write it wins; returns whether it was this one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        sync(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def is_result(path: Path) -> bool:
    """Whether a file can be read as one."""
    try:
        RESULT.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return False
    return True


class Watch:
    """Tells since when a file has been as it is, by this process's own clock."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def unchanged_for(self, path: Path) -> float:
        """Seconds; 0 for a file that is new, has changed, or is gone."""
        try:
            content = path.read_bytes()
        except OSError:
            self._seen.pop(path, None)
            return 0.0
        known, since = self._seen.get(path, (b"", 0.0))
        if known != content:
            since = time.monotonic()
            self._seen[path] = (content, since)
        return time.monotonic() - since

    def content(self, path: Path) -> bytes:
        """What was last seen of a file."""
        return self._seen.get(path, (b"", 0.0))[0]


class FolderTransport:
    """Implements `protocol.remote.Transport`."""

    def __init__(self, path: Path, patience: float = 600.0):
        """Look at nothing yet.

        Args:
            patience: Seconds after which a folder where no student shows a sign of life is given up.
        """
        self._folder, self._patience = SharedFolder(path), patience
        self._card: StudentCard | None = None
        self._posted: dict[str, str] = {}
        """By request, the submission it went with."""
        self._left: dict[str, set[str]] = {}
        """By submission, its requests without a result."""
        self._watch, self._asked = Watch(), time.monotonic()

    def describe(self) -> StudentCard:
        deadline = time.monotonic() + self._patience
        while self._card is None:
            try:
                self._card = StudentCard.model_validate_json(self._folder.card.read_bytes())
            except ValidationError as error:
                raise InvalidInput(f"{self._folder.card} is no student's card; update tutelage on both sides") from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise TutelageError(
                        f"no student serves folder:{self._folder.path} ({error.strerror}: student.json); start one with "
                        f"tutelage serve RECIPE folder={self._folder.path}"
                    ) from error
                time.sleep(_POLL_SECONDS[1])
        return self._card

    def post(self, submission: Submission) -> None:
        self._folder.make()
        submission_id, ids = submission.id, [request.id for request in submission.requests]
        for request_id in ids:
            self._folder.cancelled(submission_id, request_id).unlink(missing_ok=True)
        self._folder.refused(submission_id).unlink(missing_ok=True)
        # Whoever else submits the same may know less of it: students find out by themselves what has a result.
        told = submission.model_copy(update={"known": ()})
        self._write(self._folder.submission(submission_id), told.model_dump_json().encode())
        self._posted |= dict.fromkeys(ids, submission_id)
        self._left[submission_id] = set(ids) - set(submission.known)
        self._asked = time.monotonic()

    def fetch(self, wanted: Wanted) -> Results:
        deadline, pause = time.monotonic() + wanted.wait, _POLL_SECONDS[0]
        while True:
            found = self._look(wanted.ids)
            if found.done or found.unknown or time.monotonic() >= deadline:
                return found
            self._expect_life()
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL_SECONDS[1])

    def _look(self, ids: Sequence[str]) -> Results:
        done: list[Result] = []
        unknown = []
        for request_id in ids:
            submission_id = self._posted.get(request_id, "")
            is_posted = bool(submission_id) and self._folder.submission(submission_id).exists()
            path = self._folder.result(self.describe(), request_id)
            try:
                done.append(RESULT.validate_json(path.read_bytes()))
                self._settle(submission_id, request_id)
            except FileNotFoundError:
                if not is_posted:
                    self._tell_refusal(submission_id)
                    unknown.append(request_id)
            except ValidationError as error:
                raise TutelageError(f"{path} is no result; remove it, and it is computed again") from error
        return Results(done=tuple(done), unknown=tuple(unknown))

    def _settle(self, submission_id: str, request_id: str) -> None:
        """Once nobody waits for anything of a submission it need not lie there any more."""
        left = self._left.get(submission_id)
        if left is not None:
            left.discard(request_id)
            if not left:
                del self._left[submission_id]
                self._folder.submission(submission_id).unlink(missing_ok=True)
                for mark in (self._folder.path / "cancelled").glob(f"{submission_id}-*"):
                    mark.unlink(missing_ok=True)

    def _tell_refusal(self, submission_id: str) -> None:
        path = self._folder.refused(submission_id)
        if submission_id and path.exists():
            raise InvalidInput(f"the student of folder:{self._folder.path} refuses a submission: {path.read_text(encoding='utf-8')}")

    def _expect_life(self) -> None:
        """See that some student's sign of life has changed within patience.

        Raises:
            TutelageError: None has.
        """
        signs = (self._folder.path / "students").glob("*")
        quiet = min([time.monotonic() - self._asked, *map(self._watch.unchanged_for, signs)])
        if quiet > self._patience:
            raise TutelageError(
                f"no student of folder:{self._folder.path} has shown a sign of life for {self._patience:.0f} s; start one, "
                "and the same command goes on from what is journaled"
            )

    def cancel(self, ids: Sequence[str]) -> None:
        for request_id in ids:
            if submission_id := self._posted.get(request_id):
                self._write(self._folder.cancelled(submission_id, request_id), b"")
                self._settle(submission_id, request_id)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            place(path, content, replace=True)
        except OSError as error:
            raise TutelageError(f"{path} cannot be written ({error.strerror}); make room, or see that the folder is there") from error
