"""The seat of this process among those that a launcher started: torchrun, deepspeed or accelerate. Torch-free.

Launchers speak through the environment, and libraries listen to it whenever they train. Here a process trains alone (an inner
loop) at one time and with all others (a finetuning) at another. So the seat is taken out of the environment at the start, and
`launched` puts it back for as long as all train together.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from protocol.errors import InvalidInput

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OF_LAUNCHERS = (*_NEEDED, "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
_OF_ACCELERATE = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PMI_", "OMPI_", "MV2_")
"""How accelerate is configured by the environment, MPI's included; here the recipe says it, training by training."""


@dataclass(frozen=True)
class Seat:
    """Which of how many processes this is, in all and on its machine; `environment` is how the launcher said so."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


def take_seat(environment: MutableMapping[str, str] = os.environ) -> Seat:
    """Read the seat and take it out of the environment.

    Raises:
        InvalidInput: The launcher left something out, or its numbers contradict each other.
    """
    _forget(environment)
    found = {name: environment.pop(name) for name in _OF_LAUNCHERS if name in environment}
    if "WORLD_SIZE" not in found and "RANK" not in found:
        return Seat()
    if missing := [name for name in _NEEDED if name not in found]:
        raise InvalidInput(
            f"{', '.join(missing)} missing in the environment, but {', '.join(found)} is set; start by torchrun, deepspeed, "
            "accelerate launch or tutelage run --processes N"
        )
    # DeepSpeed's launcher has a name of its own; whoever says nothing of machines means one.
    environment.setdefault("LOCAL_WORLD_SIZE", environment.get("LOCAL_SIZE", found["WORLD_SIZE"]))
    found.setdefault("LOCAL_RANK", found["RANK"])
    rank, size, local_rank = (_read_number(name, found[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    local_size = _read_number("LOCAL_WORLD_SIZE", environment["LOCAL_WORLD_SIZE"])
    if rank >= size or local_rank >= local_size:
        raise InvalidInput(f"RANK {rank} of WORLD_SIZE {size}, LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local_size}: no such process")
    # Its one visible GPU is number 0, whatever its number on the machine.
    return Seat(rank, size, local_rank, local_size, {**found, "LOCAL_RANK": "0"})


@contextmanager
def launched(seat: Seat) -> Iterator[None]:
    """While this lasts, libraries see that this is one of several processes."""
    os.environ.update(seat.environment)
    try:
        yield
    finally:
        for name in _OF_LAUNCHERS:
            os.environ.pop(name, None)
        _forget(os.environ)


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Have torchrun start `count` processes of this command on this machine; returns the exit code."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    words = ["--standalone", "--nproc-per-node", str(count), "--module", "recipes.cli", *arguments]
    try:
        torchrun.run(torchrun.parse_args(words))
    except ChildFailedError as error:  # the process that failed has said why
        code: int = error.failures.get(0, error.get_first_failure()[1]).exitcode
        return code if code > 0 else 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _forget(environment: MutableMapping[str, str]) -> None:
    """What accelerate was told, or told itself in a training that is over."""
    for name in [name for name in environment if name.startswith(_OF_ACCELERATE)]:
        del environment[name]


def _read_number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise InvalidInput(f"{name} is {value!r} in the environment; it must be a number")
    return int(value)


def keep_one_gpu(seat: Seat, environment: MutableMapping[str, str] = os.environ) -> None:
    """Leave one GPU of the machine visible, this process's own. Before torch looks for them.

    A machine with fewer GPUs than processes leaves the last ones with none, which is found out later.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        environment["CUDA_VISIBLE_DEVICES"] = str(seat.local_rank)
    elif visible:
        devices = visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = devices[seat.local_rank] if seat.local_rank < len(devices) else ""
