"""A student's side of a shared folder (see `protocol.folder_transport`). Several students may work on one: who is free takes a lease on a
cohort, renews it while it trains, and is succeeded by another if it stops renewing.

Every student puts a submission into the same cohorts, so it does not matter who trains which.
"""

import logging
import os
import re
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.folder_transport import SharedFolder, Watch, is_result, place
from protocol.messages import StudentCard, measurement_key
from protocol.wire import Result, Submission, find_obstacle, tell_problem

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.2
_LEASES_TO_DEATH: Final = 10
"""Without a sign of life; one that was suspended for so long makes its sign anew."""
_NAME: Final = re.compile(r"([0-9a-f]{32})\.json")


class FolderDesk:
    """Implements `student.serving.Desk`."""

    def __init__(self, path: Path, card: StudentCard, name: str, lease_seconds: float, max_bytes: int, most_answers: int = 10_000):
        """Join those who serve a folder, or be the first.

        Args:
            name: By which others know this student: unique, and a file name.
            lease_seconds: After so long without a change a lease is taken over.
            max_bytes: Of a submission.
            most_answers: Of a request.

        Raises:
            InvalidInput: The folder cannot be written, or another student is served there.
        """
        self._folder, self._card, self._name = SharedFolder(path), card, name
        self._lease_seconds, self._max_bytes, self._most_answers = lease_seconds, max_bytes, most_answers
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
        self._refuse_others()
        self._beat = threading.Thread(target=self._renew, name="leases", daemon=True)

    def _refuse_others(self) -> None:
        try:
            there = StudentCard.model_validate_json(self._folder.card.read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidInput(f"{self._folder.card} is no student's card; remove it if nobody serves {self._folder.path}") from error
        ours = (measurement_key(self._card, ""), self._card.domains, self._card.graders)
        if (measurement_key(there, ""), there.domains, there.graders) != ours:
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
        with self._lock:
            for lease in list(self._leases):
                self._give_back(lease)
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
            if self._unanswered(path.stem, ids)
        )

    def _unanswered(self, submission_id: str, ids: Sequence[str]) -> list[str]:
        folder, card = self._folder, self._card
        return [id_ for id_ in ids if not folder.result(card, id_).exists() and not folder.cancelled(submission_id, id_).exists()]

    def _read(self, path: Path) -> Submission | None:
        """A submission, if it is one and something of it is to be done."""
        try:
            written, submission = self._parse(path)
        except FileNotFoundError:
            return None
        except InvalidInput as error:
            self._refuse(path, str(error))
            return None
        ids = [request.id for request in submission.requests]
        left = self._unanswered(submission.id, ids)
        self._current, self._left_to_others = (path, written, submission.id), []
        if not left:
            self.finish()
            return None
        return submission.model_copy(update={"known": tuple(sorted(set(ids).difference(left)))})

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
            raise InvalidInput(f"{tell_problem(error, 'it')}; see the protocol's schema") from error
        if path.name != f"{submission.id}.json":
            raise InvalidInput(f"its name is not its id, {submission.id}.json")
        if obstacle := find_obstacle(self._card, submission, self._most_answers):
            raise InvalidInput(obstacle)
        return written, submission

    def _refuse(self, path: Path, reason: str) -> None:
        logger.warning("%s is refused: %s", path, reason)
        try:
            self._passed[path] = (path.lstat().st_mtime_ns, [])
            if name := _NAME.fullmatch(path.name):
                place(self._folder.refused(name.group(1)), reason.encode(errors="replace"), replace=True)
            path.unlink()
        except OSError as error:
            logger.warning("%s cannot be put aside (%s), and is passed over", path, error.strerror)

    def claim(self, ids: Sequence[str]) -> bool:
        """Take the lease on a cohort, known by its first request; or leave it to who has it."""
        assert self._current is not None
        submission_id = self._current[2]
        with self._lock:
            is_held = any(held.issuperset(ids) for held in self._leases.values())
        if is_held:
            return not self._stopping.is_set()
        if self._stopping.is_set() or not self._unanswered(submission_id, ids):
            return False
        lease = self._folder.path / "leases" / f"{submission_id}-{ids[0]}"
        if self._watch.unchanged_for(lease) > self._lease_seconds:
            self._take_over(lease)
        if not place(lease, self._heartbeat(), replace=False):
            self._watch.unchanged_for(lease)
            self._left_to_others.append((lease, list(ids)))
            return False
        with self._lock:
            self._leases[lease] = set(self._unanswered(submission_id, ids))
            if not self._leases[lease]:  # somebody has answered, and given the lease back, since we looked
                self._give_back(lease)
                return False
        return True

    def _take_over(self, lease: Path) -> None:
        """Move a dead student's lease out of the way; of several heirs one succeeds."""
        seen, aside = self._watch.content(lease), lease.with_name(f".{lease.name}.{secrets.token_hex(8)}")
        try:
            lease.rename(aside)
            if aside.read_bytes() != seen:  # another heir's, taken since we looked
                os.link(aside, lease)
            else:
                logger.warning("%s has not been renewed for %.0f s: its work is taken over", lease, self._lease_seconds)
        except OSError:
            pass  # another heir was first
        finally:
            aside.unlink(missing_ok=True)

    def _is_ours(self, lease: Path) -> bool:
        try:
            return lease.read_bytes().startswith(f"{self._name} ".encode())
        except OSError:
            return False

    def _give_back(self, lease: Path) -> None:
        """Under the lock, so that it is not being renewed."""
        if self._is_ours(lease):
            lease.unlink(missing_ok=True)
        self._leases.pop(lease, None)

    def deliver(self, results: Sequence[Result]) -> None:
        for result in results:
            path, content = self._folder.result(self._card, result.request), result.model_dump_json().encode()
            if not place(path, content, replace=False) and not is_result(path):
                place(path, content, replace=True)
        done = {result.request for result in results}
        with self._lock:
            for lease, ids in list(self._leases.items()):
                ids -= done
                if not ids:
                    self._give_back(lease)

    def finish(self) -> None:
        if self._current is not None:
            path, written, _ = self._current
            self._passed[path] = (written, self._left_to_others)
            self._current = None

    def _renew(self) -> None:
        """Show that this student lives, and that what it has taken is being worked on; remove the signs of those that died."""
        signs = Watch()
        while True:
            self._beats += 1
            try:
                place(self._sign, self._heartbeat(), replace=True)
            except OSError as error:
                logger.warning("%s cannot be written (%s)", self._sign, error.strerror)
            with self._lock:
                for lease in list(self._leases):
                    self._renew_one(lease)
            for sign in self._sign.parent.glob("*"):
                if signs.unchanged_for(sign) > _LEASES_TO_DEATH * self._lease_seconds:
                    with suppress(OSError):
                        sign.unlink()
            if self._closed.wait(self._lease_seconds / 5):
                return

    def _renew_one(self, lease: Path) -> None:
        if not self._is_ours(lease):
            logger.warning("%s is another's now; what comes of it is kept if it comes first", lease)
            del self._leases[lease]
            return
        try:
            with lease.open("r+b") as file:
                file.write(self._heartbeat())
        except OSError as error:
            logger.warning("%s cannot be renewed (%s); others may take over", lease, error.strerror)

    def _heartbeat(self) -> bytes:
        return f"{self._name} {self._beats:020d}".encode()
