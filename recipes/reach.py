"""How a run reaches a student that is served elsewhere: its address, its token, and whether it fits the recipe. Torch-free."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from protocol.errors import InvalidInput
from protocol.folder_transport import FolderTransport
from protocol.http_transport import HttpTransport
from protocol.messages import StudentCard, Task
from protocol.remote import Transport
from protocol.wire import find_strange_task
from recipes.base_settings import FOLDER, StudentChoice
from student.settings import StudentSettings

_CHECK_SECONDS = 15.0
_NOT_COMPARED = ("model", "revision")
"""Where a model lies may differ from machine to machine."""


@contextmanager
def reach(choice: StudentChoice, patience: float = 600.0) -> Iterator[Transport]:
    """The way to a student, for as long as it is needed.

    Args:
        patience: Seconds for which one out of reach is tried again.
    """
    if choice.exchange.startswith(FOLDER):
        yield FolderTransport(Path(choice.exchange.removeprefix(FOLDER)), patience)
        return
    transport = HttpTransport(choice.exchange, os.environ.get(choice.token_env, ""), patience)
    try:
        yield transport
    finally:
        transport.close()


def check_exchange(choice: StudentChoice, key: str, task: Task, fetch: bool) -> None:
    """See that a student elsewhere can be reached and fits the recipe.

    Args:
        key: The recipe's key of the student, for messages.
        fetch: Whether to ask it; otherwise it is taken to be there.

    Raises:
        InvalidInput: Names the key, the value and the remedy.
    """
    if not choice.exchange.startswith((FOLDER, "http://", "https://")):
        raise InvalidInput(f"{key}.exchange is {choice.exchange!r}; it is local, an address such as http://127.0.0.1:8400, or folder:PATH")
    if not fetch:
        return
    if choice.exchange.startswith("http") and not os.environ.get(choice.token_env):
        raise InvalidInput(f"{key}.token_env is {choice.token_env!r}, which is not set; export the token that the service was started with")
    with reach(choice, _CHECK_SECONDS) as transport:
        card = transport.describe()
    if strange := find_strange_task(card, [task]):
        alike = "set domain and grader so, and what stands in brackets, such as grids.notation, on both sides alike"
        raise InvalidInput(f"{key}.exchange {choice.exchange}: {strange}; {alike}")
    if choice.model:
        _compare(choice, key, card)


def _compare(choice: StudentChoice, key: str, card: StudentCard) -> None:
    """See that settings which stand in the recipe are those of the service, as far as its card tells them."""
    told = card.settings | card.limits.model_dump()
    for name in (item.name for item in fields(StudentSettings) if item.name in told and item.name not in _NOT_COMPARED):
        ours = getattr(choice, name)
        if name not in ("chat", "deepspeed") and ours != told[name]:
            raise InvalidInput(
                f"{key}.{name} is {ours!r}, but the student at {choice.exchange} has {told[name]!r}; "
                f"make them equal, or set {key}.model= (nothing) to take the service's settings"
            )
