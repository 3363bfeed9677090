"""How many processes there are, as a launcher's environment has it: torchrun's, deepspeed's or accelerate's.

While a process works alone, the environment does not say that it is one of several (`recipes.launching`).
"""

import os

from protocol.errors import TutelageError


def launched_processes() -> int:
    """How many work together right now."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_company(seen: int) -> None:
    """Hold a trainer, which sees so many processes, to those that were launched: else each would train for itself, in silence.

    Raises:
        TutelageError: It sees others.
    """
    if seen != launched_processes():
        raise TutelageError(f"{launched_processes()} processes were to train together, but the trainer sees {seen}")


def is_first_process() -> bool:
    """Whether, of those, this is the one that writes what all have in common."""
    return os.environ.get("RANK", "0") == "0"


def processes_on_machine() -> int:
    """How many share this machine, whether they work together or not."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
