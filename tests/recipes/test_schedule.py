from datetime import datetime, timedelta

import pytest
from fake_clock import FakeClock

from protocol.errors import InvalidInput
from recipes.schedule import Clock, Schedule, Window, read_schedule, wait_until_due

NIGHT = Window(60, 300)
OVER_MIDNIGHT = Window(22 * 60 + 30, 4 * 60)


def at(time: str, day: int = 5) -> datetime:
    return datetime(2026, 3, day, *map(int, time.split(":")))


def wait(clock: FakeClock, schedule: Schedule, seconds: float, tick: float = 600.0) -> tuple[bool, list[datetime]]:
    shown: list[datetime] = []
    return wait_until_due(clock, schedule, clock.monotonic() + seconds, tick, shown.append), shown


@pytest.mark.parametrize(("words", "seconds"), [("30s", 30), ("10m", 600), ("6h", 21600), ("1d", 86400)])
def test_times_are_told_in_seconds_minutes_hours_and_days(words: str, seconds: int) -> None:
    assert read_schedule(words, "") == Schedule(seconds, None)


@pytest.mark.parametrize("words", ["", "6", "h", "0s", "-1h", "1.5h", "6 h", "6w", "6h ", "1h30m", "999999d", "٣h"])
def test_what_is_no_time_is_refused_with_the_remedy(words: str) -> None:
    with pytest.raises(InvalidInput, match=r"every is .*; give a whole number of seconds, minutes, hours or days, such as 30s"):
        read_schedule(words, "")


def test_a_window_is_two_times_of_the_day() -> None:
    assert read_schedule("6h", "01:00-05:00").window == NIGHT
    assert read_schedule("6h", "22:30-04:00").window == OVER_MIDNIGHT


@pytest.mark.parametrize("words", ["1-5", "01:00", "1:00-5:00", "01:00-24:00", "01:60-05:00", "01:00 - 05:00", "01:00-05:00-06:00"])
def test_what_is_no_window_is_refused_with_the_remedy(words: str) -> None:
    with pytest.raises(InvalidInput, match=r"window is .*; give two times of the day, such as 01:00-05:00"):
        read_schedule("6h", words)


def test_a_window_that_ends_as_it_starts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'03:00-03:00', which ends as it starts; give '' for always"):
        read_schedule("6h", "03:00-03:00")


@pytest.mark.parametrize(
    ("window", "time", "holds"),
    [
        (NIGHT, "00:59", False),
        (NIGHT, "01:00", True),
        (NIGHT, "04:59", True),
        (NIGHT, "05:00", False),
        (OVER_MIDNIGHT, "22:29", False),
        (OVER_MIDNIGHT, "22:30", True),
        (OVER_MIDNIGHT, "00:00", True),
        (OVER_MIDNIGHT, "03:59", True),
        (OVER_MIDNIGHT, "04:00", False),
    ],
)
def test_a_window_holds_from_its_start_until_before_its_end(window: Window, time: str, holds: bool) -> None:
    assert window.holds(at(time)) is holds


def test_the_next_update_is_told_by_the_time_of_day() -> None:
    assert Schedule(60).next_time(at("12:00"), 90) == at("12:01") + timedelta(seconds=30)
    assert Schedule(60).next_time(at("12:00"), -5) == at("12:00")
    assert Schedule(60, NIGHT).next_time(at("02:00"), 3600) == at("03:00")
    assert Schedule(60, NIGHT).next_time(at("04:30"), 3600) == at("01:00", day=6)
    assert Schedule(60, NIGHT).next_time(at("00:10"), 0) == at("01:00")
    assert Schedule(60, OVER_MIDNIGHT).next_time(at("12:00"), 0) == at("22:30")


def test_without_a_window_an_update_comes_when_it_is_due() -> None:
    clock = FakeClock(at("12:00"))
    assert wait(clock, Schedule(60), 1500.0) == (True, [at("12:25")] * 3)
    assert clock.waits == [600.0, 600.0, 300.0]


def test_an_update_that_is_due_waits_for_its_window() -> None:
    clock = FakeClock(at("23:00", day=4))
    is_time, shown = wait(clock, Schedule(60, NIGHT), 60.0)
    assert is_time
    assert at("01:00") <= clock.now() < at("01:11")
    assert set(shown) == {at("01:00")}


@pytest.mark.parametrize("jump", [-5000.0, -1.0, 1.0, 5000.0])
def test_a_clock_that_jumps_changes_nothing_without_a_window(jump: float) -> None:
    clock = FakeClock(at("12:00"), jumps={2: jump})
    assert wait(clock, Schedule(60), 1500.0)[0]
    assert sum(clock.waits) == 1500.0


def test_a_clock_that_jumps_into_the_window_opens_it_and_one_that_jumps_out_closes_it() -> None:
    into = FakeClock(at("12:00"), jumps={3: 14.0})
    assert wait(into, Schedule(60, NIGHT), 0.0)[0]
    assert len(into.waits) == 3
    out = FakeClock(at("02:00"), wakes=50, jumps={1: 10.0})
    assert not wait(out, Schedule(60, NIGHT), 600.0)[0]


def test_waiting_ends_at_once_when_it_is_stopped() -> None:
    clock = FakeClock(at("12:00"), wakes=2)
    assert wait(clock, Schedule(60), 86400.0)[0] is False
    assert len(clock.waits) == 2
    real = Clock()
    real.stop()
    assert wait_until_due(real, Schedule(60), real.monotonic(), 1.0, lambda at: None) is False
