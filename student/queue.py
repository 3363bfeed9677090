"""The queue of a student's service: submissions wait in memory, results stand in a journal and are found there by the requests' ids.

One thread answers, others submit and ask. What waits is lost with the process, and submitted again by whoever waits for it; what was
answered is on disk before anybody hears of it.
"""

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import InvalidInput, TutelageError
from protocol.files import is_whole
from protocol.journal import AnswersRecord, CommitRecord, Journal, Record, RewardRecord
from protocol.messages import (
    Answers,
    AskRequest,
    CommitRequest,
    Refusal,
    Reward,
    RewardRequest,
    StudentCard,
    VersionCard,
    measurement_key,
)
from protocol.wire import Request, Result, Results, Submission, find_obstacle

POOL: Final = "pool"
"""The stage of requests that came alone and were trained with others that did."""
_MOST_POOLED: Final = 256
_MOST_RESULTS: Final = 500
"""In one reply; the rest comes with the next."""
_LONGEST_PAUSE: Final = 60.0
_MOST_KEYS: Final = 100_000
"""Of measurements that are remembered: everybody who waits looks for his again with every arrival."""
_MOST_REFUSED: Final = 1000
"""Lasting updates of which is remembered why they were refused."""


class QueueFull(TutelageError):
    """Nothing more is let in for now; `retry_after` says for how many seconds."""

    def __init__(self, reason: str, retry_after: float):
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, eq=False)
class _Waiting:
    id: str
    submission: Submission
    requests: dict[str, Request]

    @property
    def came_alone(self) -> bool:
        return len(self.requests) == len(self.submission.rewards) == 1


@dataclass
class Counts:
    """What a queue has done since it was opened, in requests but for `trained_tokens`. `repeated` ones had a result when they came."""

    rewards: int = 0
    answers: int = 0
    versions: int = 0
    refusals: int = 0
    repeated: int = 0
    trained_tokens: int = 0

    def add(self, results: Sequence[Result]) -> None:
        for result in results:
            match result:
                case Reward():
                    self.rewards += 1
                    self.trained_tokens += result.trained_tokens
                case Answers():
                    self.answers += 1
                case VersionCard():
                    self.versions += 1
                    self.trained_tokens += result.trained_tokens
                case Refusal():
                    self.refusals += 1


class Queue:
    """Implements `student.serving.Desk`. A submission of several requests makes cohorts of its own; requests that come alone are pooled.

    Attributes:
        on_results: Called from the answering thread whenever results are there.
    """

    def __init__(self, card: StudentCard, journal: Journal, most: int, most_answers: int = 10_000, gather: float = 0.05):
        """An empty queue.

        Args:
            most: How many requests may wait.
            most_answers: For how many one request may ask.
            gather: Seconds for which a request that comes alone waits for others.
        """
        self.card, self.most, self.counts = card, most, Counts()
        self.on_results: Callable[[], None] = lambda: None
        self._journal, self._most_answers, self._gather = journal, most_answers, gather
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._open: set[str] = set()
        """Requests that wait or are being answered."""
        self._taken, self._stage, self._requests = "", "", dict[str, Request]()
        """The submission that is being answered, if it is one; the stage of its records; its requests."""
        self._first = "", 0.0
        """A submission that is let in before others, and until when."""
        self._refused_commits: dict[str, Refusal] = {}
        self._key = functools.lru_cache(_MOST_KEYS)(functools.partial(measurement_key, card))
        self._stopping = False
        self._pace, self._delivered = 1.0, time.monotonic()

    @property
    def size(self) -> int:
        """How many requests wait or are being answered."""
        return len(self._open)

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def submit(self, submission: Submission) -> None:
        """Queue what has no result yet.

        Raises:
            QueueFull: Try again later.
            TutelageError: It is larger than any queue.
            InvalidInput: It asks for what this student has not, or for too much.
        """
        if obstacle := find_obstacle(self.card, submission, self._most_answers):
            raise InvalidInput(obstacle)
        requests = {request.id: request for request in submission.requests}
        entry, known = _Waiting(submission.id, submission, requests), set(submission.known)
        with self._changed:
            if self._stopping:
                raise QueueFull("the service is stopping; try again when it is back", 5.0)
            wanted = [request_id for request_id in requests if request_id not in known]
            for request_id in wanted:
                self._refused_commits.pop(request_id, None)
            new = {request_id for request_id in wanted if not self._has(request_id)}
            self.counts.repeated += len(wanted) - len(new)
            waits = any(entry.id == other.id for other in self._waiting)
            if not new or (new <= self._open and (waits or entry.id == self._taken)):
                return
            if len(requests) > self.most:
                raise TutelageError(
                    f"the submission has {len(requests)} requests, and {self.most} may wait; send fewer, or raise max_waiting"
                )
            if not waits:
                self._find_room(entry)
            self._open |= new
            if not waits:
                self._waiting.append(entry)
            self._changed.notify_all()

    def _find_room(self, entry: _Waiting) -> None:
        """A submission of several that has found none is let in before what others send meanwhile: those that come alone leave no gap.

        Raises:
            QueueFull: Now there is no room.
        """
        held = len(self._requests) + sum(len(other.requests) for other in self._waiting)
        missing, now = held + len(entry.requests) - self.most, time.monotonic()
        first, until = self._first
        comes_later = first != entry.id and now < until
        if missing > 0 or comes_later:
            pause = min(max(1.0, missing * self._pace), _LONGEST_PAUSE)
            if not comes_later and not entry.came_alone:
                self._first = entry.id, now + 2 * pause
            raise QueueFull(f"{held} requests wait already, and {self.most} may; try again in {pause:.0f} s", pause)
        if first == entry.id:
            self._first = "", 0.0

    def _has(self, request_id: str) -> bool:
        """Whether there is a result, without reading it."""
        key = self._key(request_id)
        version = self._journal.commits.get(key)
        return key in self._journal.results or key in self._journal.answers or (version is not None and is_whole(Path(version.path)))

    def find(self, request_id: str) -> Result | None:
        """The result of a request, if it has one."""
        key = self._key(request_id)
        if key in self._journal.results:
            return self._journal.results[key]
        version = self._journal.commits.get(key)
        if version is not None and is_whole(Path(version.path)):
            return version
        return self._journal.answers.get(key) or self._refused_commits.get(request_id)

    def results(self, ids: Sequence[str]) -> Results:
        """Results so far, at most so many as go into a reply."""
        done: list[Result] = []
        unknown: list[str] = []
        for request_id in ids:
            waits = request_id in self._open  # looked at first: a request is open until its result can be found
            if found := self.find(request_id):
                done.append(found)
            elif not waits:
                unknown.append(request_id)
            if len(done) == _MOST_RESULTS:
                break
        return Results(done=tuple(done), unknown=tuple(unknown))

    def cancel(self, ids: Sequence[str]) -> None:
        """Forget requests. Whoever else waits for one finds it unknown, and submits it again."""
        with self._changed:
            self._open -= set(ids)
        self.on_results()

    def stop(self) -> None:
        """Let nothing more in, and tell the student to stop. A signal's handler may call it."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def take(self) -> Submission | None:
        with self._changed:
            while not self._stopping:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._waiting and self._waiting[0].came_alone:
                    self._changed.wait_for(lambda: self._stopping, self._gather)
                if self._waiting and not self._stopping and (submission := self._take_next()):
                    return submission
        return None

    def _take_next(self) -> Submission | None:
        """The first that waits, or all that came alone, without what has been answered or cancelled meanwhile."""
        first = self._waiting[0]
        if not first.came_alone:
            self._waiting.popleft()
            self._stage, requests = first.id, self._select(first)
            known = requests.keys() - self._open
        else:
            alone = {entry.id: entry for entry in itertools.islice((entry for entry in self._waiting if entry.came_alone), _MOST_POOLED)}
            self._waiting = deque(entry for entry in self._waiting if entry.id not in alone)
            self._stage, known = POOL, set()
            requests = {id_: request for entry in alone.values() for id_, request in entry.requests.items() if id_ in self._open}
        if self._open.isdisjoint(requests):
            return None
        self._taken, self._requests = "" if self._stage == POOL else first.id, requests
        self._delivered = time.monotonic()
        return Submission(
            rewards=tuple(request for request in requests.values() if isinstance(request, RewardRequest)),
            asks=tuple(request for request in requests.values() if isinstance(request, AskRequest)),
            commits=tuple(request for request in requests.values() if isinstance(request, CommitRequest)),
            known=tuple(sorted(known)),
        )

    def _select(self, entry: _Waiting) -> dict[str, Request]:
        """What this submission has had answered before, or knows, keeps its place in its cohort; what others had answered stays out."""
        known = {
            request_id
            for request_id in entry.requests
            if request_id in entry.submission.known or self._journal.scored_in.get(self._key(request_id)) == entry.id
        }
        return {request_id: request for request_id, request in entry.requests.items() if request_id in self._open | known}

    def claim(self, ids: Sequence[str]) -> bool:
        """Not if all have been cancelled, nor when the student is to stop."""
        return not self._stopping and not self._open.isdisjoint(ids)

    def deliver(self, results: Sequence[Result]) -> None:
        self._journal.append(*(record for result in results if (record := self._record(result))))
        now = time.monotonic()
        with self._changed:
            self._open -= {result.request for result in results}
            self._pace += 0.2 * ((now - self._delivered) / len(results) - self._pace)
            self._delivered = now
        self.counts.add(results)
        self.on_results()

    def _record(self, result: Result) -> Record | None:
        """Why a lasting update was refused is not journaled: it may be asked for again."""
        match result:
            case VersionCard():
                return CommitRecord(card=result)
            case Answers():
                return AnswersRecord(stage=self._stage, result=result)
            case Reward():
                return RewardRecord(stage=self._stage, result=result)
        match self._requests[result.request]:
            case CommitRequest():
                self._refused_commits[result.request] = result
                if len(self._refused_commits) > _MOST_REFUSED:
                    del self._refused_commits[next(iter(self._refused_commits))]
                return None
            case AskRequest():
                return AnswersRecord(stage=self._stage, result=result)
            case RewardRequest():
                return RewardRecord(stage=self._stage, result=result)

    def finish(self) -> None:
        with self._changed:
            self._taken, self._requests = "", {}
