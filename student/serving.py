"""A student at others' service: it takes submissions from a desk, and delivers what comes of them, one after the other."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from protocol.errors import InnerLoopFailed, TutelageError
from protocol.exchange import StudentService
from protocol.messages import AskRequest, CommitRequest, Refusal, RewardRequest, measurement_key
from protocol.wire import Request, Result, Submission
from student.deaths import ALONE_AFTER, REFUSED_AFTER, Deaths

logger = logging.getLogger(__name__)

R = TypeVar("R", RewardRequest, AskRequest, CommitRequest)

_FORESEEN: Final = (TutelageError, OSError)
"""Nothing can be journaled, say: no request is to blame."""
_MOST_BREAKDOWNS: Final = 3
"""In a row: then it is the student that is broken, and not what it was asked."""


class Desk(Protocol):
    """Where submissions come from and results go: a service's queue, or a shared folder."""

    def take(self) -> Submission | None:
        """The next submission, once there is one; None when the student is to stop."""
        ...

    def claim(self, ids: Sequence[str]) -> bool:
        """Whether this student is to answer these requests of the submission, trained together, now. It may be asked again."""
        ...

    def deliver(self, results: Sequence[Result]) -> None:
        """Keep results for good, then hand them out."""
        ...

    def finish(self) -> None:
        """There is no more to come of the submission."""
        ...


def serve(student: StudentService, desk: Desk, deaths: Deaths, outlives: bool = True) -> None:
    """Answer submissions until the desk says to stop; what is being trained then is finished first.

    Args:
        deaths: Over which requests earlier processes died.
        outlives: Go on after an error that nobody foresaw: what was asked for is tried again one by one, and what fails then is refused,
            without blame. Not for a student of several processes, which are out of step after it.

    Raises:
        Exception: Whatever broke the student several times in a row; or at once, if it is not to be outlived.
    """
    server = _Server(student, desk, deaths, outlives)
    try:
        while (submission := desk.take()) is not None:
            for results in server.answer(submission):
                desk.deliver(results)
                deaths.end(result.request for result in results)
            desk.finish()
    finally:
        deaths.stop()


class _Server:
    """Answers submissions, and counts how often the student broke down in a row."""

    def __init__(self, student: StudentService, desk: Desk, deaths: Deaths, outlives: bool):
        self._student, self._desk, self._deaths, self._outlives = student, desk, deaths, outlives
        self._card, self._breakdowns = student.describe(), 0

    def answer(self, submission: Submission) -> Iterator[Sequence[Result]]:
        student, claim = self._student, self._desk.claim
        yield from self._answer(submission.rewards, lambda requests: student.score(requests, submission.known, self._claim))
        yield from self._answer([request for request in submission.asks if claim([request.id])], self._ask)
        yield from self._answer([request for request in submission.commits if claim([request.id])], self._commit)

    def _claim(self, ids: Sequence[str]) -> bool:
        if not self._desk.claim(ids):
            return False
        self._deaths.begin(ids)
        return True

    def _ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Result]]:
        self._deaths.begin(request.id for request in requests)
        return self._student.ask(requests)

    def _commit(self, requests: Sequence[CommitRequest]) -> Iterator[Sequence[Result]]:
        for request in requests:
            self._deaths.begin([request.id])
            try:
                yield [self._student.commit(request)]
            except InnerLoopFailed as error:
                yield [self._refuse(request, str(error))]

    def _answer(self, requests: Sequence[R], answer: Callable[[Sequence[R]], Iterator[Sequence[Result]]]) -> Iterator[Sequence[Result]]:
        """All at once; each by itself that is left if that breaks the student, or over which its process has died."""
        suspects = [request for request in requests if self._deaths.count(request.id) >= ALONE_AFTER]
        requests, answered = [request for request in requests if request not in suspects], set[str]()
        try:
            for results in answer(requests) if requests else ():
                yield results
                answered |= {result.request for result in results}
                self._breakdowns = 0
        except _FORESEEN:
            raise
        except Exception:
            if not self._outlives:
                raise
            logger.exception("the student broke down over %d requests; it tries those that are left one by one", len(requests))
            for request in requests:
                if request.id not in answered:
                    yield from self._answer_alone(request, answer)
        for request in suspects:
            yield from self._answer_alone(request, answer)

    def _answer_alone(self, request: R, answer: Callable[[Sequence[R]], Iterator[Sequence[Result]]]) -> Iterator[Sequence[Result]]:
        if (deaths := self._deaths.count(request.id)) >= REFUSED_AFTER:
            reason = f"the student's process died {deaths} times while it answered this, last with nothing beside it"
            yield [self._refuse(request, reason, ungraded=True)]
            return
        try:
            for results in answer([request]):
                yield results
                self._breakdowns = 0
        except _FORESEEN:
            raise
        except Exception as error:
            self._breakdowns += 1
            if self._breakdowns == _MOST_BREAKDOWNS:
                raise
            logger.exception("the student broke down over request %s, which is refused", request.id)
            reason = f"the student broke down over it ({type(error).__name__}: {error}); its log says where"
            yield [self._refuse(request, reason, ungraded=True)]

    def _refuse(self, request: Request, reason: str, ungraded: bool = False) -> Refusal:
        return Refusal(key=measurement_key(self._card, request), request=request.id, reason=reason, ungraded=ungraded)
