import os
import socket
import threading
import time
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from recipes.cli import main
from recipes.launching import Seat, keep_one_gpu, launched, take_seat
from recipes.lifeline import Lifeline, Listener, join

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29500",
}


def test_a_launcher_gives_a_seat_and_its_words_are_put_away() -> None:
    environment = {**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "true", "HOME": "/root"}
    seat = take_seat(environment)
    assert (seat.rank, seat.size, seat.local_rank, seat.local_size) == (3, 4, 1, 2)
    assert environment == {"HOME": "/root", "LOCAL_WORLD_SIZE": "2"}


def test_without_a_launcher_there_is_one_process() -> None:
    assert take_seat({}) == Seat()


@pytest.mark.parametrize(("visible", "kept"), [(None, "1"), ("4,5", "5"), ("4", ""), ("", "")])
def test_each_process_sees_its_own_gpu(visible: str | None, kept: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    keep_one_gpu(take_seat(dict(TORCHRUN)), environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": None}, "MASTER_ADDR missing in the environment, but RANK, WORLD_SIZE"),
        ({"RANK": "4"}, "RANK 4 of WORLD_SIZE 4, LOCAL_RANK 1 of LOCAL_WORLD_SIZE 2: no such process"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment; it must be a number"),
    ],
)
def test_a_launch_that_contradicts_itself_is_refused(changes: dict[str, str | None], message: str) -> None:
    environment = {name: value for name, value in {**TORCHRUN, **changes}.items() if value is not None}
    with pytest.raises(InvalidInput, match=message):
        take_seat(environment)


def test_libraries_see_the_launch_only_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    seat = take_seat(dict(TORCHRUN))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with launched(seat):
        assert os.environ["WORLD_SIZE"] == "4"
        assert os.environ["LOCAL_RANK"] == "0"  # among the GPUs that it sees
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"  # as accelerate leaves it behind
    assert not {"WORLD_SIZE", "LOCAL_RANK", "RANK", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ)


def tie(died: list[tuple[int, int]]) -> tuple[Lifeline, Lifeline]:
    listener = Listener()
    with socket.create_connection(("127.0.0.1", listener.port)) as stranger:
        stranger.sendall(b"x" * 36)
        ends: list[Lifeline] = []
        accepting = threading.Thread(target=lambda: ends.append(listener.accept(1, lambda rank: died.append((0, rank)), 10)))
        accepting.start()
        other = join("127.0.0.1", listener.port, listener.token, 1, lambda rank: died.append((1, rank)), 10)
        accepting.join()
    return ends[0], other


def hang_up(lifeline: Lifeline) -> None:
    for connection in lifeline._connections.values():
        connection.shutdown(socket.SHUT_RDWR)


def test_the_death_of_a_process_is_noticed_at_both_ends() -> None:
    died: list[tuple[int, int]] = []
    first, other = tie(died)
    time.sleep(0.1)
    assert died == []
    hang_up(other)
    time.sleep(0.2)
    assert (0, 1) in died
    died.clear()
    first, other = tie(died)
    hang_up(first)
    time.sleep(0.2)
    assert (1, 0) in died


def test_an_end_that_was_announced_is_no_death() -> None:
    died: list[tuple[int, int]] = []
    both = tie(died)
    for lifeline in both:
        lifeline.close()
    for lifeline in both:
        hang_up(lifeline)
    time.sleep(0.2)
    assert died == []


def test_a_process_that_never_comes_is_an_error_in_time(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        Listener().accept(1, lambda rank: None, 0.2)


def test_a_stranger_that_says_nothing_does_not_hold_up_the_others() -> None:
    listener = Listener("127.0.0.1")
    with socket.create_connection(("127.0.0.1", listener.port)):
        accepting = threading.Thread(target=lambda: listener.accept(1, lambda rank: None, 10))
        accepting.start()
        join("127.0.0.1", listener.port, listener.token, 1, lambda rank: None, 10)
        accepting.join(timeout=5)
    assert not accepting.is_alive()


def test_the_processes_that_are_started_see_all_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str | None] = []

    def start(count: int, arguments: list[str]) -> int:
        seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return 0

    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("recipes.cli.start_processes", start)
    assert main(["run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path}", "--processes", "2"]) == 0
    assert seen == ["0,1"]
