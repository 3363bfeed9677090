"""The reward exchange: self-edits go to a student, rewards come back as they arrive.

A teacher's side sees only `Exchange`; whether the student lives in this process or elsewhere is the recipe's choice.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from protocol.messages import CommitRequest, Refusal, Reward, RewardRequest, StudentCard, VersionCard


class Exchange(Protocol):
    """The only way from a teacher to a student."""

    def describe(self) -> StudentCard: ...

    def submit(self, requests: Sequence[RewardRequest]) -> None:
        """Queue requests. One that is already queued is not queued again."""
        ...

    def completed(self) -> Iterator[Reward | Refusal]:
        """Yield an answer for every request still queued, each as soon as it is known."""
        ...

    def cancel(self, request_ids: Sequence[str]) -> None:
        """Drop queued requests; ids that are unknown or done are ignored."""
        ...

    def commit(self, request: CommitRequest) -> VersionCard:
        """Make a lasting update."""
        ...


class StudentService(Protocol):
    """A student as an exchange sees it."""

    def describe(self) -> StudentCard: ...

    def score(self, request: RewardRequest) -> Reward | Refusal: ...

    def commit(self, request: CommitRequest) -> VersionCard: ...


class InProcessExchange:
    """Calls a student in this process. Messages are frozen and hold text only, so nothing else is shared."""

    def __init__(self, student: StudentService):
        self._student = student
        self._queue: dict[str, RewardRequest] = {}

    def describe(self) -> StudentCard:
        return self._student.describe()

    def submit(self, requests: Sequence[RewardRequest]) -> None:
        for request in requests:
            self._queue.setdefault(request.id, request)

    def completed(self) -> Iterator[Reward | Refusal]:
        while self._queue:
            request = self._queue.pop(next(iter(self._queue)))
            yield self._student.score(request)

    def cancel(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            self._queue.pop(request_id, None)

    def commit(self, request: CommitRequest) -> VersionCard:
        return self._student.commit(request)
