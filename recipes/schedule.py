"""When there is an update: every so often, and within a window of the day. Torch-free.

How long to wait is counted by a clock that nobody sets. The time of day, which may jump, decides about the window alone, and is asked for
anew at every tick.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.errors import InvalidInput

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_WINDOW: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Window:
    """Of the day in local time, in minutes after midnight: from `start` until before `end`, which may be the next day's."""

    start: int
    end: int

    def holds(self, moment: datetime) -> bool:
        minute = moment.hour * 60 + moment.minute
        return (minute - self.start) % 1440 < (self.end - self.start) % 1440

    def opens_after(self, moment: datetime) -> datetime:
        opening = moment.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        return opening if opening > moment else opening + timedelta(days=1)


@dataclass(frozen=True)
class Schedule:
    """`every` in seconds, from the start of one update to that of the next; `window` is None for always."""

    every: float
    window: Window | None = None

    def allows(self, moment: datetime) -> bool:
        return self.window is None or self.window.holds(moment)

    def next_time(self, moment: datetime, seconds: float) -> datetime:
        """When an update comes that is due in so many seconds."""
        due = moment + timedelta(seconds=max(0.0, seconds))
        return due if self.window is None or self.window.holds(due) else self.window.opens_after(due)


def read_schedule(every: str, window: str) -> Schedule:
    """From the recipe's words.

    Raises:
        InvalidInput: Names the key, the value and the remedy.
    """
    duration = _DURATION.fullmatch(every)
    if duration is None:
        raise InvalidInput(f"every is {every!r}; give a whole number of seconds, minutes, hours or days, such as 30s, 10m, 6h or 1d")
    seconds = int(duration[1]) * _SECONDS[duration[2]]
    if not window:
        return Schedule(seconds)
    times = _WINDOW.fullmatch(window)
    if times is None:
        raise InvalidInput(f"window is {window!r}; give two times of the day, such as 01:00-05:00 or 22:30-04:00, or '' for always")
    hour, minute, end_hour, end_minute = map(int, times.groups())
    own = Window(hour * 60 + minute, end_hour * 60 + end_minute)
    if own.start == own.end:
        raise InvalidInput(f"window is {window!r}, which ends as it starts; give '' for always")
    return Schedule(seconds, own)


class Clock:
    """The machine's clocks, and a way to be woken from waiting: by `stop`, for good."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        """Local time."""
        return datetime.now()

    def wait(self, seconds: float) -> None:
        self._stop.wait(seconds)


def wait_until_due(clock: Clock, schedule: Schedule, due: float, tick: float, show: Callable[[datetime], None]) -> bool:
    """Wait until an update is due, by the monotonic clock, and the window is open.

    Args:
        tick: Seconds; so often the time of day is looked at, and `show` is told when the update comes.

    Returns:
        Whether it is time; if not, the clock was stopped.
    """
    while not clock.stopped:
        left, now = due - clock.monotonic(), clock.now()
        if left <= 0 and schedule.allows(now):
            return True
        show(schedule.next_time(now, left))
        clock.wait(min(tick, left) if left > 0 else tick)
    return False
