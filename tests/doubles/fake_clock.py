"""A clock that only waiting moves on."""

from collections.abc import Callable
from datetime import datetime, timedelta

from recipes.schedule import Clock


class FakeClock(Clock):
    """It is stopped after so many `wakes`.

    Attributes:
        waits: For how long somebody waited.
    """

    def __init__(
        self,
        now: datetime,
        wakes: int = 1000,
        jumps: dict[int, float] | None = None,
        act: Callable[[int], object] = lambda number: None,
    ):
        """`jumps` are hours that the time of day jumps by in the wait of that number; `act` is called with it after each."""
        super().__init__()
        self._now, self._seconds, self._wakes, self._jumps, self._act = now, 1000.0, wakes, jumps or {}, act
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self._seconds

    def now(self) -> datetime:
        return self._now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._seconds += seconds
        self._now += timedelta(seconds=seconds, hours=self._jumps.get(len(self.waits), 0.0))
        self._act(len(self.waits))
        if len(self.waits) == self._wakes:
            self.stop()
