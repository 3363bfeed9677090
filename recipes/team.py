"""The processes of a run: the first runs the recipe, the others lend it a hand.

A launcher (torchrun, deepspeed, accelerate) starts one command many times, one process per device. The process of rank 0 reads
the recipe from top to bottom as if it were alone; what others are to do, it asks for by three verbs. `place` has an object made in
every process, `together` has all do one thing at the same time (a training over all of them), `share` deals out pieces of
work: who is done with one takes the next. With one process they are plain calls.
"""

import gc
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch.distributed.distributed_c10d import Store

from protocol.errors import TutelageError
from recipes.launching import Seat, launched
from recipes.lifeline import Lifeline
from recipes.logs import open_log

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

FOREVER = timedelta(days=365)
"""A process waits as long as another computes; that one has died is noticed otherwise."""
_POLL_SECONDS = 0.02
_FAILING_SECONDS = 60.0
"""How long a process that failed waits for the others to come to the same end; if they do not, it ends, and so the run."""
_SHOWING_SECONDS = 30.0
"""How late a network file system may show a file."""


@dataclass(frozen=True)
class Placed(Generic[T]):
    """Stands for an object that every process has; given as an argument, it becomes that object there."""

    number: int


@dataclass(frozen=True)
class _Call:
    """All do this at the same time; what comes of it may be kept there under the call's number."""

    number: int
    function: Callable[..., Any]
    arguments: Sequence[Any]
    keep: bool = False

    @property
    def key(self) -> str:
        return f"tutelage/call-{self.number}"


@dataclass(frozen=True)
class _Share:
    """Who is free takes the next piece. `number` tells its keys in the store from those of others."""

    number: int
    function: Callable[..., Any]
    pieces: Sequence[Sequence[Any]]
    answer: TypeAdapter[Any]

    def key(self, what: object) -> str:
        return f"tutelage/share-{self.number}/{what}"


@dataclass(frozen=True)
class _Drop:
    number: int


@dataclass(frozen=True)
class _Stop:
    pass


class Team:
    """All processes of a run, as one of them sees them. `recipes.assembly` gathers them."""

    def __init__(self, seat: Seat | None = None, store: Store | None = None, lifeline: Lifeline | None = None):
        self.seat = seat or Seat()
        self._store, self._lifeline = store, lifeline
        self._numbers = itertools.count(1)
        self._objects: dict[int, Any] = {}
        self._close_log: Callable[[], None] = lambda: None
        # Orders wait as long as work takes, so they have a group of their own.
        self._group = dist.new_group(backend="gloo", timeout=FOREVER) if self.size > 1 else None

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.seat.size

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """After an error the processes just end: the others notice."""
        if kind is None:
            if self.seat.rank == 0:
                self._tell(_Stop())
            if self._lifeline is not None:
                self._lifeline.close()
                dist.barrier(self._group)
            if dist.is_initialized():
                dist.destroy_process_group()
        self._close_log()

    def place(self, kind: Callable[..., T], *arguments: Any) -> Placed[T]:
        """Have every process make an object, all at the same time.

        Raises:
            TutelageError: One of them could not.
        """
        call = _Call(next(self._numbers), kind, arguments, keep=True)
        self._all(call, {})
        return Placed(call.number)

    def drop(self, placed: Placed[Any]) -> None:
        """Have every process forget an object."""
        self._tell(_Drop(placed.number))
        self._forget(placed.number)

    def together(self, function: Callable[..., R], *arguments: Any, **only_here: Any) -> list[R]:
        """Have all processes call a function at the same time, as one launched job.

        Args:
            only_here: Further arguments, for this process alone.

        Returns:
            What it returned, by rank.

        Raises:
            TutelageError: It was raised in one of the processes.
        """
        return self._all(_Call(next(self._numbers), function, arguments), only_here)

    def share(self, function: Callable[..., R], pieces: Sequence[Sequence[Any]], answer: TypeAdapter[R]) -> Iterator[tuple[int, R]]:
        """Deal out calls of a function: whoever is free takes the next. Each process works as if it were alone.

        What others have done is received between this process's own pieces.

        Args:
            pieces: The arguments of each call.
            answer: What the function returns, so that it can cross as JSON.

        Yields:
            Each piece's index and answer, as they arrive.
        """
        share = _Share(next(self._numbers), function, pieces, answer)
        self._tell(share)
        mine, slots, missing = self._work_on(share), itertools.count(1), len(pieces)
        slot = next(slots)
        while missing:
            done = next(mine, None)
            ready = [done] if done else []
            while self._store and self._store.check([share.key(slot)]):  # what others have sent since
                ready.append(self._receive(share, slot))
                slot = next(slots)
            yield from ready
            missing -= len(ready)
            if not ready:
                time.sleep(_POLL_SECONDS)

    def work_in(self, folder: Path) -> None:
        """Have every process keep its log in a run's folder.

        Raises:
            TutelageError: One of them does not see the folder.
        """
        self.together(Team._open_log, Placed[Team](0), folder, (folder / "lock").read_text())

    def serve(self) -> None:
        """Do what rank 0 asks, until it says that the run is over."""
        while True:
            match self._listen():
                case _Call() as call:
                    reply = self._attempt(call, {})
                    if isinstance(reply, TutelageError) and not self._all_have_ended(call):
                        raise reply
                    dist.gather_object(reply, None, dst=0, group=self._group)
                case _Share() as share:
                    for done in self._work_on(share):
                        self._send(share, *done)
                case _Drop(number):
                    self._forget(number)
                case _Stop():
                    return

    def _all(self, call: _Call, only_here: dict[str, Any]) -> list[Any]:
        self._tell(call)
        reply = self._attempt(call, only_here)
        if isinstance(reply, TutelageError) and not self._all_have_ended(call):
            raise reply
        replies = [reply, *[None] * (self.size - 1)]
        if self.size > 1:
            dist.gather_object(reply, replies, dst=0, group=self._group)
        for rank, reply in enumerate(replies):
            if isinstance(reply, TutelageError):
                raise reply if rank == 0 else type(reply)(f"process {rank} of {self.size}: {reply}")
        return replies

    def _attempt(self, call: _Call, only_here: dict[str, Any]) -> Any:
        """The answer, or the error that rank 0 is to raise."""
        try:
            with launched(self.seat):
                result = call.function(*map(self._resolve, call.arguments), **only_here)
        except TutelageError as error:
            return error
        finally:
            if self._store is not None:
                self._store.add(call.key, 1)
        if not call.keep:
            return result
        self._objects[call.number] = result
        return None

    def _all_have_ended(self, call: _Call) -> bool:
        """Whether every process comes to the end of a call that failed here: else one waits for another that is gone from it."""
        deadline = time.monotonic() + _FAILING_SECONDS
        while self._store is not None and self._store.add(call.key, 0) < self.size:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _work_on(self, share: _Share) -> Iterator[tuple[int, Any]]:
        for index in self._claim(share):
            started = time.perf_counter()
            result = share.function(*map(self._resolve, share.pieces[index]))
            logger.info("%s %d of %d: %.2f s", share.function.__qualname__, index + 1, len(share.pieces), time.perf_counter() - started)
            yield index, result

    def _claim(self, share: _Share) -> Iterator[int]:
        """Pieces that no other process has taken."""
        if self._store is None:
            yield from range(len(share.pieces))
            return
        while (index := self._store.add(share.key("next"), 1) - 1) < len(share.pieces):
            yield index

    def _send(self, share: _Share, index: int, result: Any) -> None:
        assert self._store is not None
        slot = self._store.add(share.key("sent"), 1)
        self._store.set(share.key(slot), f"{index} {share.answer.dump_json(result).decode()}")

    def _receive(self, share: _Share, slot: int) -> tuple[int, Any]:
        assert self._store is not None
        index, _, answer = self._store.get(share.key(slot)).partition(b" ")
        self._store.delete_key(share.key(slot))
        return int(index), share.answer.validate_json(answer)

    def _tell(self, order: Any) -> None:
        if self._group is not None:
            dist.broadcast_object_list([order], src=0, group=self._group)

    def _listen(self) -> Any:
        orders: list[Any] = [None]
        dist.broadcast_object_list(orders, src=0, group=self._group)
        return orders[0]

    def _resolve(self, argument: Any) -> Any:
        if not isinstance(argument, Placed):
            return argument
        return self._objects[argument.number] if argument.number else self

    def _forget(self, number: int) -> None:
        del self._objects[number]
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _open_log(self, folder: Path, token: str) -> None:
        """The token in the folder's lock file shows that it is the same folder everywhere."""
        lock, deadline = folder / "lock", time.monotonic() + _SHOWING_SECONDS
        while not lock.exists() or lock.read_text() != token:
            if time.monotonic() > deadline:
                raise TutelageError(
                    f"{folder} on {socket.gethostname()} is not the folder of rank 0; put runs=DIR on a file system that all share"
                )
            time.sleep(0.5)
        self._close_log = open_log(folder / "logs" / f"rank-{self.seat.rank}.log", quiet=self.seat.rank > 0)
