"""A student at others' service: it takes submissions from a desk, and delivers what comes of them, one after the other."""

from collections.abc import Sequence
from typing import Protocol

from protocol.errors import InnerLoopFailed
from protocol.exchange import StudentService
from protocol.messages import Refusal, measurement_key
from protocol.wire import Result, Submission


class Desk(Protocol):
    """Where submissions come from and results go: a service's queue, or a shared folder."""

    def take(self) -> Submission | None:
        """The next submission, once there is one; None when the student is to stop."""
        ...

    def claim(self, ids: Sequence[str]) -> bool:
        """Whether this student is to answer these requests of the submission, trained together, now."""
        ...

    def deliver(self, results: Sequence[Result]) -> None:
        """Keep results for good, then hand them out."""
        ...

    def finish(self) -> None:
        """There is no more to come of the submission."""
        ...


def serve(student: StudentService, desk: Desk) -> None:
    """Answer submissions until the desk says to stop; what is being trained then is finished first."""
    card = student.describe()
    while (submission := desk.take()) is not None:
        if submission.rewards:
            for rewards in student.score(submission.rewards, submission.known, desk.claim):
                desk.deliver(rewards)
        asks = [request for request in submission.asks if desk.claim([request.id])]
        for answers in student.ask(asks) if asks else ():
            desk.deliver(answers)
        for request in submission.commits:
            if desk.claim([request.id]):
                try:
                    desk.deliver([student.commit(request)])
                except InnerLoopFailed as error:
                    desk.deliver([Refusal(key=measurement_key(card, request), request=request.id, reason=str(error))])
        desk.finish()
