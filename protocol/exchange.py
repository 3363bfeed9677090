"""The reward exchange: self-edits go to a student, rewards come back as they arrive.

A teacher's side sees only `Exchange`; whether the student lives in this process or elsewhere is the recipe's choice.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from protocol.messages import Answers, AskRequest, CommitRequest, Refusal, Reward, RewardRequest, StudentCard, VersionCard

Take = Callable[[Sequence[str]], bool]
"""Whether to train a cohort, from the ids in it, known ones too."""


class Exchange(Protocol):
    """The only way from a teacher to a student."""

    def describe(self) -> StudentCard: ...

    def submit(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> None:
        """Queue requests. One that is already queued is not queued again.

        A student trains requests together, in their order, and who trains with whom decides the last bits of a reward. So a
        caller that goes on after a crash submits the same requests again, and names those it has answers to.

        Args:
            known: Ids among `requests` that get no answer.
        """
        ...

    def completed(self) -> Iterator[Sequence[Reward | Refusal]]:
        """Yield an answer for every request still queued that is not known, as they arrive: those trained together at once."""
        ...

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        """Yield the untouched base's answers to every request, as they arrive."""
        ...

    def cancel(self, request_ids: Sequence[str]) -> None:
        """Drop queued requests; ids that are unknown or done are ignored.

        What is being trained already may be trained to its end; its answer is dropped.
        """
        ...

    def commit(self, request: CommitRequest) -> VersionCard:
        """Make a lasting update."""
        ...


class StudentService(Protocol):
    """A student as an exchange sees it."""

    def describe(self) -> StudentCard: ...

    def score(
        self, requests: Sequence[RewardRequest], known: Collection[str] = (), take: Take | None = None
    ) -> Iterator[Sequence[Reward | Refusal]]:
        """Answer requests, in any order, but for those whose ids are known; those trained together at once.

        Args:
            take: Asked before each cohort; one that is not taken is left out.
        """
        ...

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        """The untouched base's answers, in any order."""
        ...

    def commit(self, request: CommitRequest) -> VersionCard: ...


class InProcessExchange:
    """Calls a student in this process. Messages are frozen and hold text only, so nothing else is shared."""

    def __init__(self, student: StudentService):
        self._student = student
        self._queue: dict[str, tuple[RewardRequest, bool]] = {}
        """By id, a request and whether its answer is known."""

    def describe(self) -> StudentCard:
        return self._student.describe()

    def submit(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> None:
        for request in requests:
            self._queue.setdefault(request.id, (request, request.id in known))

    def completed(self) -> Iterator[Sequence[Reward | Refusal]]:
        while self._queue:
            taken = dict(self._queue)
            known = {request_id for request_id, (_, is_known) in taken.items() if is_known}
            for request_id in known:
                del self._queue[request_id]
            for results in self._student.score([request for request, _ in taken.values()], known):
                if wanted := [result for result in results if self._queue.pop(result.request, None)]:  # others were cancelled meanwhile
                    yield wanted
            for request_id, entry in taken.items():
                if self._queue.get(request_id) is entry:
                    del self._queue[request_id]

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        return self._student.ask(requests)

    def cancel(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            self._queue.pop(request_id, None)

    def commit(self, request: CommitRequest) -> VersionCard:
        return self._student.commit(request)
