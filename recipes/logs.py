"""Each process's own log. The first process speaks to the user too; the others write all that they have to say there."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

OURS = ("protocol", "student", "teacher", "recipes")


def open_log(path: Path, *, quiet: bool) -> Callable[[], None]:
    """Append to a log what this program notes, and what libraries warn of; warnings go to standard error as well.

    Args:
        quiet: Send standard output and error to the log, from here on and for good.

    Returns:
        What closes the log.
    """
    path.parent.mkdir(exist_ok=True)
    file = path.open("a", encoding="utf-8", buffering=1)
    handlers: list[logging.Handler] = [logging.StreamHandler(file)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if quiet:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    else:
        handlers.append(logging.StreamHandler())
        handlers[1].setLevel(logging.WARNING)
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)

    def close() -> None:
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
        file.close()

    return close
