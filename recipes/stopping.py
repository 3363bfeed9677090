"""How a recipe that runs on and on is told to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recipes.terminal import console


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Have the first SIGTERM or Ctrl-C stop in good order; the next ends the process as ever."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: object) -> None:
        console.print("stopping, once what is being trained is finished; again Ctrl-C stops at once")
        stop()
        signal.signal(number, former[signal.Signals(number)])

    for number in former:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
