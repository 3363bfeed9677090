"""An exchange with a student in another process: what both transports have in common.

Requests are posted in their order as one submission and their results fetched until all are there. Whatever a student has forgotten,
because it crashed, is posted again just as it was, so that the same cohorts come of it.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol

from protocol.errors import InnerLoopFailed, TutelageError
from protocol.messages import Answers, AskRequest, CommitRequest, Refusal, Reward, RewardRequest, StudentCard, VersionCard
from protocol.wire import LONGEST_WAIT, MOST_IDS, Result, Results, Submission, Wanted

_PAUSE: Final = 0.2
"""Seconds after a submission that had to be repeated, so that nobody is asked without end."""


class Transport(Protocol):
    """Carries messages to a student and back. All raise `TutelageError` once the student has been out of reach for too long."""

    def describe(self) -> StudentCard: ...

    def post(self, submission: Submission) -> None:
        """Hand a submission over. One that is there already is not queued again."""
        ...

    def fetch(self, wanted: Wanted) -> Results:
        """Results that are there, once there is at least one or the wait is over."""
        ...

    def cancel(self, ids: Sequence[str]) -> None: ...


class RemoteExchange:
    """Implements `protocol.exchange.Exchange` over a transport."""

    def __init__(self, transport: Transport):
        self._transport = transport
        self._queue: dict[str, RewardRequest] = {}
        self._known: set[str] = set()

    def describe(self) -> StudentCard:
        return self._transport.describe()

    def submit(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> None:
        for request in requests:
            if self._queue.setdefault(request.id, request) is request and request.id in known:
                self._known.add(request.id)

    def completed(self) -> Iterator[Sequence[Reward | Refusal]]:
        while self._queue:
            taken, known = dict(self._queue), self._known & self._queue.keys()
            for request_id in known:
                del self._queue[request_id]
            self._known -= known
            if len(taken) > MOST_IDS:
                raise TutelageError(f"{len(taken)} self-edits at once are more than {MOST_IDS}; take fewer contexts or candidates")
            submission = Submission(rewards=tuple(taken.values()), known=tuple(sorted(known)))
            for results in self._run(submission, [request_id for request_id in taken if request_id not in known]):
                wanted = [result for result in results if self._queue.pop(result.request, None)]  # others were cancelled meanwhile
                if wanted:
                    yield [result for result in wanted if isinstance(result, Reward | Refusal)]

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        if requests:
            for results in self._run(Submission(asks=tuple(requests)), [request.id for request in requests]):
                yield [result for result in results if isinstance(result, Answers | Refusal)]

    def cancel(self, request_ids: Sequence[str]) -> None:
        cancelled = [request_id for request_id in request_ids if self._queue.pop(request_id, None)]
        if cancelled:
            self._transport.cancel(cancelled)

    def commit(self, request: CommitRequest) -> VersionCard:
        """Make a lasting update.

        Raises:
            InnerLoopFailed: The student refuses it, and says why.
        """
        for result in (result for results in self._run(Submission(commits=(request,)), [request.id]) for result in results):
            if isinstance(result, VersionCard):
                return result
            if isinstance(result, Refusal):
                raise InnerLoopFailed(result.reason)
        raise TutelageError("the student answered a lasting update with something else; update tutelage on both sides")

    def _run(self, submission: Submission, ids: Sequence[str]) -> Iterator[Sequence[Result]]:
        """Post, and yield results until each id has its own, or nobody waits for it any more."""
        left, rewards = dict.fromkeys(ids), bool(submission.rewards)
        if left:
            self._transport.post(submission)
        while left := {request_id: None for request_id in left if not rewards or request_id in self._queue}:
            results = self._transport.fetch(Wanted(ids=tuple(left)[:MOST_IDS], wait=LONGEST_WAIT))
            done = [result for result in results.done if result.request in left]
            for result in done:
                left.pop(result.request, None)
            if done:
                yield done
            if any(request_id in left for request_id in results.unknown):
                self._transport.post(submission)
                time.sleep(_PAUSE)
