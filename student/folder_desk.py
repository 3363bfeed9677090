"""A student's side of a shared folder (see `protocol.folder_transport`). Several students may work on one: who is free takes a lease on a
cohort, renews it while it trains, and is succeeded by another if it stops renewing.

Every student puts a submission into the same cohorts, so it does not matter who trains which.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.folder_transport import SharedFolder, Watch, place
from protocol.messages import StudentCard, measurement_key
from protocol.wire import Result, Submission

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.2
_NAME: Final = re.compile(r"([0-9a-f]{32})\.json")


class FolderDesk:
    """Implements `student.serving.Desk`."""

    def __init__(self, path: Path, card: StudentCard, name: str, lease_seconds: float, max_bytes: int):
        """Join those who serve a folder, or be the first.

        Args:
            name: By which others know this student: unique, and a file name.
            lease_seconds: After so long without a change a lease is taken over.
            max_bytes: Of a submission.

        Raises:
            InvalidInput: The folder cannot be written, or another student is served there.
        """
        self._folder, self._card, self._name = SharedFolder(path), card, name
        self._lease_seconds, self._max_bytes = lease_seconds, max_bytes
        self._watch, self._beats = Watch(), 0
        self._stopping, self._closed = threading.Event(), threading.Event()
        self._leases: dict[Path, set[str]] = {}
        """Those held, each with its requests that have no result yet."""
        self._passed: dict[Path, tuple[int, list[tuple[Path, list[str]]]]] = {}
        """Submissions seen to their end: when they were written, and what others had a lease on, with its requests."""
        self._current: tuple[Path, int, str] | None = None
        self._left_to_others: list[tuple[Path, list[str]]] = []
        self._lock = threading.Lock()
        self._folder.make()
        place(self._folder.card, card.model_dump_json(indent=1).encode(), replace=False)
        self._refuse_others(StudentCard.model_validate_json(self._folder.card.read_bytes()))
        self._beat = threading.Thread(target=self._renew, name="leases", daemon=True)

    def _refuse_others(self, there: StudentCard) -> None:
        if measurement_key(there, "") != measurement_key(self._card, "") or there.domains != self._card.domains:
            raise InvalidInput(
                f"folder {self._folder.path} is served by another student ({there.model}), or with other settings; "
                "serve another folder, or remove its student.json and results"
            )

    def __enter__(self) -> "FolderDesk":
        self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Return what is held."""
        self._closed.set()
        self._beat.join()
        for lease in self._leases:
            lease.unlink(missing_ok=True)
        self._sign.unlink(missing_ok=True)

    @property
    def _sign(self) -> Path:
        return self._folder.path / "students" / self._name

    def stop(self) -> None:
        """Have `take` return None. A signal's handler may call it."""
        self._stopping.set()

    def take(self) -> Submission | None:
        while not self._stopping.is_set():
            for path in self._waiting():
                if submission := self._read(path):
                    return submission
            self._stopping.wait(_POLL_SECONDS)
        return None

    def _waiting(self) -> list[Path]:
        """Submissions with something to do, the oldest first."""
        found = []
        for path in (self._folder.path / "submissions").glob("*.json"):
            try:
                written = path.lstat().st_mtime_ns
            except FileNotFoundError:
                continue
            if path not in self._passed or self._passed[path][0] != written or self._is_left(path):
                found.append((written, path))
        self._passed = {path: passed for path, passed in self._passed.items() if path.exists()}
        return [path for _, path in sorted(found)]

    def _is_left(self, path: Path) -> bool:
        """Whether something that others had a lease on is without a result, and the lease given back or out of date."""
        return any(
            not lease.exists() or self._watch.unchanged_for(lease) > self._lease_seconds
            for lease, ids in self._passed[path][1]
            if self._unanswered(ids)
        )

    def _unanswered(self, ids: Sequence[str]) -> list[str]:
        return [
            request_id
            for request_id in ids
            if not self._folder.result(self._card, request_id).exists() and not self._folder.cancelled(request_id).exists()
        ]

    def _read(self, path: Path) -> Submission | None:
        """A submission, if it is one and something of it is to be done."""
        try:
            written, submission = self._parse(path)
        except FileNotFoundError:
            return None
        except InvalidInput as error:
            self._refuse(path, str(error))
            return None
        ids = [request.id for request in submission.requests if request.id not in submission.known]
        left = self._unanswered(ids)
        self._current, self._left_to_others = (path, written, submission.id), []
        if not left:
            self.finish()
            return None
        answered = set(ids).difference(left)
        return submission.model_copy(update={"known": tuple(sorted({*submission.known, *answered}))})

    def _parse(self, path: Path) -> tuple[int, Submission]:
        """When a file was written, and the submission in it. It is data from a stranger."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                written, content = os.fstat(descriptor).st_mtime_ns, file.read(self._max_bytes + 1)
            if len(content) > self._max_bytes:
                raise InvalidInput(f"it has more than {self._max_bytes} bytes; send less at once, or raise max_body_mb")
            submission = Submission.model_validate_json(content)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InvalidInput(f"it cannot be read ({error.strerror})") from error
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place_in = ".".join(map(str, problem["loc"]))[:200]
            raise InvalidInput(f"{place_in or 'it'}: {problem['msg'][:500]}; see the protocol's schema") from error
        if path.name != f"{submission.id}.json":
            raise InvalidInput(f"its name is not its id, {submission.id}.json")
        return written, submission

    def _refuse(self, path: Path, reason: str) -> None:
        logger.warning("%s is refused: %s", path, reason)
        if name := _NAME.fullmatch(path.name):
            place(self._folder.refused(name.group(1)), reason.encode(errors="replace"), replace=True)
        path.unlink(missing_ok=True)

    def claim(self, ids: Sequence[str]) -> bool:
        """Take the lease on a cohort, known by its first request; or leave it to who has it."""
        assert self._current is not None
        if self._stopping.is_set() or not self._unanswered(ids):
            return False
        lease = self._folder.path / "leases" / f"{self._current[2]}-{ids[0]}"
        if self._watch.unchanged_for(lease) > self._lease_seconds:
            logger.warning("%s has not been renewed for %.0f s: its work is taken over", lease, self._lease_seconds)
            lease.unlink(missing_ok=True)
        if place(lease, self._heartbeat(), replace=False):
            if not self._unanswered(ids):  # somebody has answered and given the lease back since we looked
                lease.unlink(missing_ok=True)
                return False
            with self._lock:
                self._leases[lease] = set(ids)
            return True
        self._watch.unchanged_for(lease)
        self._left_to_others.append((lease, list(ids)))
        return False

    def deliver(self, results: Sequence[Result]) -> None:
        for result in results:
            place(self._folder.result(self._card, result.request), result.model_dump_json().encode(), replace=False)
        done = {result.request for result in results}
        with self._lock:
            for lease, ids in list(self._leases.items()):
                ids -= done
                if not ids:
                    del self._leases[lease]
                    lease.unlink(missing_ok=True)

    def finish(self) -> None:
        if self._current is not None:
            path, written, _ = self._current
            self._passed[path] = (written, self._left_to_others)
            self._current = None

    def _renew(self) -> None:
        """Show that this student lives, and that what it has taken is being worked on."""
        while True:
            self._beats += 1
            with self._lock:
                held = list(self._leases)
            try:
                place(self._sign, self._heartbeat(), replace=True)
                for lease in held:
                    if lease.read_bytes().startswith(f"{self._name} ".encode()):
                        lease.write_bytes(self._heartbeat())
            except OSError as error:
                logger.warning("a lease cannot be renewed (%s); others may take over", error)
            if self._closed.wait(self._lease_seconds / 5):
                return

    def _heartbeat(self) -> bytes:
        return f"{self._name} {self._beats} {time.time():.0f}".encode()
