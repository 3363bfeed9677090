"""How a student's service bears many teachers at once: `python recipes/launch/load.py`, on this machine alone.

Many clients ask one after the other for inner loops of the tiny world, half of them for what another has asked for too. Compared with the
same inner loops scored in one go in one process: what is lost, what is trained twice, how long clients wait, how memory grows.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from protocol.http_transport import HttpTransport
from protocol.messages import Reward, RewardRequest
from protocol.wire import Result, Submission, Wanted
from recipes.base_settings import DataSettings
from recipes.candidates import make_request
from recipes.config import load_recipe
from recipes.domains import DOMAINS
from recipes.inputs import choose_task, load_data
from recipes.machine_settings import Serve

TOKEN = "a-token-for-this-load-alone"
RECIPE = Path("recipes/serve.yaml")


def make_requests(count: int) -> list[RewardRequest]:
    """So many different requests: good self-edits about people of the training split, each with several seeds."""
    domain, task = choose_task(load_recipe(RECIPE, []))
    contexts, references = load_data(domain, DataSettings(source="tiny", split="train", limit=512), "contexts", questions=True)
    edits = {context.id: DOMAINS["knowledge"].parse(references[context.id], context) for context in contexts}
    made = [make_request(task, context, edits[context.id], seed, [0]) for seed in range(-(-count // len(contexts))) for context in contexts]
    return made[:count]


def score_in_process(requests: Sequence[RewardRequest]) -> float:
    """Seconds for all of them, in this process."""
    import torch

    from recipes.graders import GRADERS
    from student.student import Student

    settings = load_recipe(RECIPE, [])
    assert isinstance(settings, Serve)
    torch.set_num_threads(settings.threads or 1)
    with TemporaryDirectory() as folder:
        student = Student(settings.student, {"knowledge": DOMAINS["knowledge"]}, {settings.grader: GRADERS[settings.grader]}, Path(folder))
        started = time.perf_counter()
        for results in student.score(requests):
            print(f"\rin process: {len(results)} more", end="", flush=True)
        return time.perf_counter() - started


@contextmanager
def serving(runs: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The service in a process of its own, and its address."""
    command = [sys.executable, "-m", "recipes.cli", "serve", str(RECIPE), f"runs={runs}", "port=0"]
    environment = {**os.environ, "TUTELAGE_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = next(line for line in process.stdout if "student.exchange=" in line)
    try:
        yield psutil.Process(process.pid), line.partition("student.exchange=")[2].split(" ")[0]
    finally:
        process.terminate()
        process.wait()


def ask_one_by_one(address: str, requests: Sequence[RewardRequest], waits: list[float], answers: list[Reward]) -> None:
    """One client."""
    transport = HttpTransport(address, TOKEN)
    for request in requests:
        started, done = time.perf_counter(), tuple[Result, ...]()
        transport.post(Submission(rewards=(request,)))
        while not done:
            done = transport.fetch(Wanted(ids=(request.id,), wait=30)).done
        waits.append(time.perf_counter() - started)
        answers += [result for result in done if isinstance(result, Reward)]


def watch_memory(process: psutil.Process, megabytes: list[float], over: threading.Event) -> None:
    while not over.wait(1.0):
        megabytes.append(process.memory_info().rss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=5000, help="half of them are different")
    options = parser.parse_args()
    different = make_requests(options.requests // 2)
    asked = different * 2
    random.Random(0).shuffle(asked)
    alone = score_in_process(different)
    print(f"\rin process: {len(different)} inner loops in {alone:.0f} s, {60 * len(different) / alone:.0f} a minute")
    waits: list[float] = []
    answers: list[Reward] = []
    megabytes: list[float] = []
    over = threading.Event()
    with TemporaryDirectory() as folder, serving(Path(folder)) as (process, address):
        clients = [
            threading.Thread(target=ask_one_by_one, args=(address, asked[number :: options.clients], waits, answers))
            for number in range(options.clients)
        ]
        watcher = threading.Thread(target=watch_memory, args=(process, megabytes, over))
        started = time.perf_counter()
        for thread in (watcher, *clients):
            thread.start()
        for client in clients:
            client.join()
        seconds = time.perf_counter() - started
        over.set()
        watcher.join()
        lines = (Path(folder) / "serve" / "journal.jsonl").read_text().splitlines()
    keys = [record["result"]["key"] for record in map(json.loads, lines) if record["kind"] == "reward"]
    fifth = max(1, len(megabytes) // 5)
    told = {
        "clients": options.clients,
        "requests": len(asked),
        "answered": len(answers),
        "different": len(different),
        "trained": len(keys),
        "trained_twice": len(keys) - len(set(keys)),
        "seconds": round(seconds, 1),
        "throughput_of_in_process": round(alone / seconds, 3),
        "wait_median": round(statistics.median(waits), 2),
        "wait_99th": round(statistics.quantiles(waits, n=100)[98], 2),
        "megabytes_second_fifth": round(statistics.fmean(megabytes[fifth : 2 * fifth])),
        "megabytes_last_fifth": round(statistics.fmean(megabytes[-fifth:])),
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
