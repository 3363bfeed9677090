"""A run of many rounds resumes fast, and in little memory: of candidates and rewards only their places are kept."""

import os
import subprocess
import sys
import time
from pathlib import Path

from protocol.files import publish_folder
from protocol.journal import CandidateRecord, CheckpointRecord, JournalRecord, Record, RewardRecord, RoundRecord, SelectionRecord
from protocol.messages import Change, Outcome, Reward

ROOT = Path(__file__).parents[2]
ROUNDS, CANDIDATES = int(os.environ.get("TUTELAGE_ROUNDS", "100")), 500
"""400 rounds are 200,000 candidates and as many rewards."""
ID = "0123456789abcdef" * 2


def line(record: Record) -> str:
    return record.model_dump_json() + "\n"


def write_journal(path: Path) -> None:
    """Candidates of 500 characters and as many rewards, each with ten answers."""
    outcomes = tuple(Outcome(answer="a short answer", correct=True, score=1.0) for _ in range(5))
    change = Change(base=outcomes, adapted=(outcomes,))
    content = {"value": 0.5, "change": change, "gained": 1, "lost": 0, "seeds": (1,), "seconds": 0.5, "trained_tokens": 100}
    reward = Reward(key=ID, request=ID, context=ID, edit=ID, student=ID, **content)  # type: ignore[arg-type]
    scored = line(RewardRecord(stage="STAGE", result=reward))
    written = line(CandidateRecord(stage="STAGE", context=ID, index=0, seed=1, text="x" * 500)).replace('"index":0', '"index":INDEX')
    with path.open("w") as file:
        file.write(line(JournalRecord()))
        for number in range(1, ROUNDS + 1):
            stage = f"teacher/round-{number}"
            file.write(line(RoundRecord(stage=stage, contexts=(ID,))))
            for index in range(CANDIDATES):
                file.write(written.replace("STAGE", stage).replace("INDEX", str(index)))
                file.write(scored.replace("STAGE", stage).replace(ID, f"{number * CANDIDATES + index:032x}", 1))
            file.write(line(SelectionRecord(stage=stage, rule="best", kept=(ID,), rewards=(0.5,) * 50)))
            file.write(line(CheckpointRecord(stage=stage, path=stage, fingerprint=ID)))


def test_a_run_of_many_rounds_resumes_in_seconds_and_little_memory(tmp_path: Path) -> None:
    words = [
        "recipes/tiny/train_teacher.yaml",
        "name=long",
        f"runs={tmp_path}",
        f"rounds={ROUNDS}",
        "contexts_per_round=50",
        "candidates=10",
    ]
    command = [sys.executable, "-m", "recipes.cli", "run", *words]
    run = tmp_path / "long"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (run / "journal.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    write_journal(run / "journal.jsonl")
    for number in range(1, ROUNDS + 1):
        folder = run / "teacher" / f"round-{number}.tmp"
        folder.mkdir(parents=True)
        publish_folder(folder, folder.with_name(f"round-{number}"))
    started = time.perf_counter()
    with (tmp_path / "output.txt").open("w") as output:
        resumed = subprocess.Popen(command, cwd=ROOT, stdout=output)
        _, status, used = os.wait4(resumed.pid, 0)
    seconds, megabytes = time.perf_counter() - started, used.ru_maxrss / 1024
    assert status == 0
    assert f"round {ROUNDS}: mean reward +0.500" in (tmp_path / "output.txt").read_text()
    print(f"resumed in {seconds:.1f} s and {megabytes:.0f} MB")
    assert seconds < 30
    assert megabytes < 1200  # of which libraries take 700 to 800, as much of them as the system maps
