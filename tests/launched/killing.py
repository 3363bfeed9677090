"""Kill a run at a moment, let it go on, and compare what comes of it with a run that nobody killed.

`python tests/launched/killing.py` tries every named point and as many random moments as `--random` says, with one process and
with two, each time killing one of the processes or all; it takes about half an hour.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from faults import FIRST_ALONE, POINTS  # noqa: E402

from protocol.journal import AnswersRecord, CandidateRecord, RewardRecord, read_records  # noqa: E402

RECIPE = (
    "recipes/quickstart.yaml name=killed seeds=[3] rounds=2 contexts_per_round=2 candidates=2 held_out.limit=2 retention.limit=2 lasting=2 "
    "lasting_epochs=4 teacher.batch_size=2 teacher.max_new_tokens=80 finetune.epochs=2 finetune.batch_size=2 finetune.save_every=1 "
    "student.cohort=1 student.epochs=4 new_student.cohort=1 new_student.epochs=4 new_student.save_every=1 new_student.batch_size=4"
).split()
"""Two rounds, two students, a lasting update; more than one piece of everything, and a checkpoint at every step."""

TIMES = ("wall_seconds", "seconds", "path")
"""What may differ in a report: times, and where the run folder is."""


@dataclass(frozen=True)
class Moment:
    """When a run is killed: the `count`th time that rank `rank` comes to a named point, or after so many seconds."""

    point: str
    count: int = 1
    rank: int = 0
    all_of_them: bool = False
    after_seconds: float = 0.0

    def __str__(self) -> str:
        whom = "all" if self.all_of_them else f"rank {self.rank}"
        return f"{self.after_seconds:.1f} s, {whom}" if self.point == "none" else f"{self.point} {self.count}, {whom}"


def start(processes: int, folder: Path, moment: Moment, words: list[str] = RECIPE) -> subprocess.Popen[bytes]:
    """Start the run in `folder/runs`; `moment` is where it stops by itself."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    fault = [str(ROOT / "tests" / "launched" / "faults.py"), str(folder), moment.point, str(moment.count), str(moment.rank)]
    command = [sys.executable, *launcher, *fault, "run", *words, f"runs={folder}/runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True)


def kill(launcher: subprocess.Popen[bytes], processes: int, folder: Path, moment: Moment) -> float | None:
    """Wait for the moment and kill; returns how many seconds the rest took to end by itself, or None if the run was over before."""
    deadline = time.monotonic() + (moment.after_seconds or 200)
    while not (folder / "stopped").exists() and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if launcher.poll() is not None:
        return None
    family = psutil.Process(launcher.pid).children(recursive=True) if processes > 1 else []
    ranks = [child for child in family if "faults.py" in " ".join(child.cmdline())]
    if processes == 1:
        victims = [psutil.Process(launcher.pid)]
    elif moment.all_of_them:
        victims = [psutil.Process(launcher.pid), *family]
    elif moment.point == "none":
        victims = ranks[moment.rank : moment.rank + 1]
    else:
        victims = [psutil.Process(int((folder / "stopped").read_text()))]
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    launcher.wait(timeout=60)
    psutil.wait_procs(family, timeout=60)
    (folder / "stopped").unlink(missing_ok=True)
    return time.monotonic() - killed


def finish(processes: int, folder: Path, words: list[str] = RECIPE) -> None:
    if start(processes, folder, Moment("none"), words).wait(timeout=300):
        raise AssertionError(f"the run did not end well:\n{(folder / 'output.txt').read_text()[-3000:]}")


def count_journaled(folder: Path) -> tuple[int, int]:
    """Different candidates, rewards and answers in the journal, and how many of them stand there twice."""
    path = folder / "runs" / "killed" / "journal.jsonl"
    keys: list[Any] = []
    if path.exists():
        lines = path.read_bytes()
        (folder / "whole.jsonl").write_bytes(lines[: lines.rfind(b"\n") + 1])
        for record in read_records(folder / "whole.jsonl"):
            if isinstance(record, CandidateRecord):
                keys.append((record.stage, record.context, record.index))
            elif isinstance(record, RewardRecord | AnswersRecord):
                keys.append(record.result.key)
    return len(set(keys)), len(keys) - len(set(keys))


def count_computed(folder: Path) -> int:
    """Candidates, rewards and answers that were computed since the last count."""
    files = list(folder.glob("computed-*"))
    count = sum(len(file.read_text().splitlines()) for file in files)
    for file in files:
        file.unlink()
    return count


def figures(content: Any, without: Sequence[str] = TIMES) -> Any:
    """A report without what may differ."""
    if isinstance(content, dict):
        return {key: figures(value, without) for key, value in content.items() if key not in without}
    return [figures(item, without) for item in content] if isinstance(content, list) else content


def report(folder: Path) -> Any:
    return figures(json.loads((folder / "runs" / "killed" / "report.json").read_text()))


def check_moment(
    processes: int, folder: Path, moment: Moment, expected: Any, words: list[str] = RECIPE, go_on_with: int | None = None
) -> str:
    """Kill at a moment, go on, and compare; returns what happened, or raises AssertionError.

    Args:
        expected: The report of a run that nobody killed.
        go_on_with: Another number of processes; then the last bits of trained weights may differ, and with them their fingerprints.
    """
    folder.mkdir(parents=True)
    ended = kill(start(processes, folder, moment, words), processes, folder, moment)
    before, _ = count_journaled(folder)
    count_computed(folder)
    finish(go_on_with or processes, folder, words)
    after, twice = count_journaled(folder)
    computed = count_computed(folder)
    without = (*TIMES, "fingerprint", "controls", "key", "request") if go_on_with else TIMES
    same = figures(report(folder), without) == figures(expected, without)
    told = f"{processes} processes, killed at {moment}: {'was over' if ended is None else f'ended in {ended:.1f} s'}, "
    told += f"{before} of {after} journaled, {computed} computed then, {twice} twice; report {'equal' if same else 'DIFFERS'}"
    # What a line of was torn is computed whole again, so that it comes out the same: a cohort or a batch has two at most here.
    again = computed - (after - before)
    missed = ended is None and moment.point != "none"
    if missed or not same or twice or again not in ((0, 1) if moment.point == "journaling" else (0,)) or (ended or 0) > 20:
        raise AssertionError(told)
    shutil.rmtree(folder)
    return told


def whole_run(processes: int, folder: Path, words: list[str] = RECIPE) -> tuple[Any, float]:
    """The report of a run that nobody kills, and how long it took."""
    folder.mkdir(parents=True)
    started = time.monotonic()
    finish(processes, folder, words)
    return report(folder), time.monotonic() - started


def choose_moments(processes: int, count_random: int, seed: int, seconds: float) -> list[Moment]:
    """One at every named point, then random ones over the whole length of a run."""
    rng = random.Random(seed)
    named = [
        Moment(point, rng.randint(1, 2), 0 if point in FIRST_ALONE else rng.randrange(processes), rng.random() < 0.5) for point in POINTS
    ]
    named = [Moment(m.point, 1 if m.point == "reporting" or m.point == "keeping" else m.count, m.rank, m.all_of_them) for m in named]
    at_random = [Moment("none", 1, rng.randrange(processes), rng.random() < 0.5, rng.uniform(2, seconds)) for _ in range(count_random)]
    return named + at_random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--random", type=int, default=10, help="random moments beside the named ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--deepspeed", default="zero2")
    options = parser.parse_args()
    words = [*RECIPE, f"distributed.deepspeed={options.deepspeed}"]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for processes in options.processes:
            expected, seconds = whole_run(processes, Path(scratch) / f"whole-{processes}", words)
            print(f"{processes} processes, not killed: {seconds:.1f} s", flush=True)
            for number, moment in enumerate(choose_moments(processes, options.random, options.seed, seconds)):
                try:
                    print(check_moment(processes, Path(scratch) / f"{processes}-{number}", moment, expected, words), flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED: {error}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    main()
