"""Gather the processes that a launcher started into a team, or say why they cannot work together, before any work."""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from protocol.errors import InvalidInput
from protocol.identity import content_id
from recipes.base_settings import RecipeSettings
from recipes.config import to_yaml
from recipes.launching import Seat, launched
from recipes.lifeline import Lifeline, Listener, join
from recipes.team import FOREVER, Team


def assemble(seat: Seat, settings: RecipeSettings, *, deepspeed: bool) -> Team:
    """Find the other processes, compare set-ups, and watch each other from here on.

    Args:
        deepspeed: Whether DeepSpeed is to train, which needs a process group even for one process.

    Raises:
        InvalidInput: They do not find each other, or differ in what they must have in common.
        SystemExit: The first process found so, and says it.
    """
    if seat.size == 1 and not deepspeed:
        return Team(seat)
    seconds = settings.distributed.join_seconds
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    store: Store
    lifeline: Lifeline | None = None
    if seat.size == 1:
        seat, store = _alone(seat), HashStore()
    else:
        store = PrefixStore("tutelage", _find_store(seat, seconds))
        _compare(seat, store, settings, seconds)
        lifeline = _tie(seat, store, seconds)
        store.set_timeout(FOREVER)
    dist.init_process_group(backend, store=store, rank=seat.rank, world_size=seat.size, timeout=FOREVER)
    if deepspeed:
        _start_deepspeed(seat)
    return Team(seat, store if seat.size > 1 else None, lifeline)


def _alone(seat: Seat) -> Seat:
    """A launch of one process, as DeepSpeed wants it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return replace(seat, environment=environment)


def _start_deepspeed(seat: Seat) -> None:
    """Tell DeepSpeed of the process group."""
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # optional, and would be compiled at first use
    with launched(seat):
        deepspeed.init_distributed(auto_mpi_discovery=False)


def _find_store(seat: Seat, seconds: float) -> Store:
    address = f"{seat.environment['MASTER_ADDR']}:{seat.environment['MASTER_PORT']}"
    try:
        with launched(seat):
            store: Store = next(iter(rendezvous("env://", seat.rank, seat.size, timeout=timedelta(seconds=seconds))))[0]
    except (dist.DistError, ValueError, OSError, RuntimeError) as error:
        raise InvalidInput(
            f"process {seat.rank} of {seat.size} on {socket.gethostname()} does not reach {address} within {seconds:.0f} s "
            f"({str(error).splitlines()[0]}); check MASTER_ADDR, MASTER_PORT and the firewall, or raise distributed.join_seconds"
        ) from error
    return store


def _compare(seat: Seat, store: Store, settings: RecipeSettings, seconds: float) -> None:
    """All must run the same recipe, on the same kind of device, with the same torch."""
    mine = {
        "recipe": content_id(to_yaml(settings)),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__.split("+")[0],
        "host": socket.gethostname(),
    }
    store.set(f"hello-{seat.rank}", json.dumps(mine))
    if seat.rank > 0:
        store.set_timeout(timedelta(seconds=2 * seconds))
        verdict = store.get("verdict")
        store.set(f"heard-{seat.rank}", "")
        if verdict:
            sys.exit(InvalidInput.exit_code)
        return
    problem = _find_problem(seat, store, mine, seconds)
    store.set("verdict", problem)
    if problem:
        _wait_until_heard(seat, store)
        raise InvalidInput(problem)


def _wait_until_heard(seat: Seat, store: Store) -> None:
    """The store ends with this process, so those who came must have read the verdict before."""
    here = [rank for rank in range(1, seat.size) if store.check([f"hello-{rank}"])]
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and not all(store.check([f"heard-{rank}"]) for rank in here):
        time.sleep(0.05)


def _find_problem(seat: Seat, store: Store, mine: Mapping[str, Any], seconds: float) -> str:
    deadline = time.monotonic() + seconds
    for rank in range(1, seat.size):
        while not store.check([f"hello-{rank}"]):
            if time.monotonic() > deadline:
                return (
                    f"process {rank} of {seat.size} did not come within {seconds:.0f} s; see that it was started, with the same "
                    "MASTER_ADDR and MASTER_PORT, or raise distributed.join_seconds"
                )
            time.sleep(0.05)
        theirs = json.loads(store.get(f"hello-{rank}"))
        for what, remedy in (
            ("recipe", "give every process the same recipe file and overrides"),
            ("device", "start as many processes on a machine as it has GPUs, or set CUDA_VISIBLE_DEVICES= for all to use CPUs"),
            ("torch", "install the same version everywhere"),
        ):
            if theirs[what] != mine[what]:
                return (
                    f"process {rank} on {theirs['host']} has {what} {theirs[what]}, process 0 on {mine['host']} has {mine[what]}; {remedy}"
                )
    return ""


def _tie(seat: Seat, store: Store, seconds: float) -> Lifeline:
    """Have every process notice when the first dies, and the first when any does."""
    one_machine = seat.local_size == seat.size
    host, port = "127.0.0.1" if one_machine else seat.environment["MASTER_ADDR"], 0
    try:
        if seat.rank == 0:
            listener = Listener("127.0.0.1" if one_machine else "")
            port = listener.port
            store.set("lifeline", json.dumps([port, listener.token.hex()]))
            return listener.accept(seat.size - 1, lambda rank: _give_up(seat, rank), seconds)
        port, token = json.loads(store.get("lifeline"))
        return join(host, port, bytes.fromhex(token), seat.rank, lambda rank: _give_up(seat, rank), seconds)
    except OSError as error:
        raise InvalidInput(
            f"process {seat.rank} of {seat.size} on {socket.gethostname()}: no connection by {host}, port {port} ({error}); open all ports "
            "between these machines, or raise distributed.join_seconds"
        ) from error


def _give_up(seat: Seat, rank: int) -> None:
    """End this process at once, wherever it waits. What is journaled is on disk."""
    if seat.rank == 0:
        print(
            f"\ntutelage: process {rank} of {seat.size} has ended or is out of reach, so the run ends; what it said last is in the run "
            f"folder's logs/rank-{rank}.log. The same command goes on from what is journaled",
            file=sys.stderr,
            flush=True,
        )
    os._exit(1)
