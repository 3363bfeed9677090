"""The same recipe in one process and in several, under every launcher."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from openai_server import serving, writes
from safetensors.torch import load_file

from protocol.journal import CandidateRecord, Record, RewardRecord, SelectionRecord, read_records

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMAND = ["--module", "recipes.cli"]
LAUNCHERS = {
    "tutelage": [str(BIN / "tutelage")],
    "torchrun": [str(BIN / "torchrun"), "--standalone", "--nproc_per_node", "2", *COMMAND],
    "deepspeed": [str(BIN / "deepspeed"), "--num_gpus", "2", *COMMAND],
    "accelerate": [str(BIN / "accelerate"), "launch", "--use_deepspeed", "--num_processes", "2", *COMMAND],
}
TRAIN = (
    "recipes/tiny/train_teacher.yaml name=train rounds=1 contexts_per_round=2 candidates=4 student.cohort=1 student.epochs=4 "
    "teacher.batch_size=2 teacher.max_new_tokens=60 finetune.learning_rate=3e-4"
).split()


def run(launcher: str, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        [*LAUNCHERS[launcher], "run", *words],
        cwd=ROOT,
        env={**os.environ, "PATH": path, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def timeless(record: Record) -> str:
    """A record without what may differ: times, and the last bits of a finetuning."""
    return re.sub(r'"(seconds|fingerprint)":[^,}]*', "", record.model_dump_json())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("alone")
    done = run("tutelage", *TRAIN, f"runs={runs}")
    assert done.returncode == 0, done.stderr
    return runs / "train"


@pytest.mark.parametrize(("launcher", "zero"), [("deepspeed", 2), ("accelerate", 3)])
def test_two_processes_do_what_one_does(tmp_path: Path, alone: Path, launcher: str, zero: int) -> None:
    done = run(launcher, *TRAIN, f"distributed.deepspeed=zero{zero}", f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "\n2 processes\n" in f"\n{done.stdout}"
    both = tmp_path / "train"
    expected, records = (list(read_records(folder / "journal.jsonl")) for folder in (alone, both))
    assert {CandidateRecord, RewardRecord, SelectionRecord} <= {type(record) for record in expected}
    assert sorted(map(timeless, records)) == sorted(map(timeless, expected))
    first, second = (load_file(folder / "teacher" / "round-1" / "adapter_model.safetensors") for folder in (alone, both))
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) <= 1e-5
    # That ZeRO was on: each process held half of AdamW's two moments.
    (row,) = map(json.loads, (both / "metrics.jsonl").read_text().splitlines())
    assert row["zero_stage"] == zero
    shares = [elements / (2 * row["trained_elements"]) for elements in row["optimizer_elements"]]
    assert shares == pytest.approx([0.5, 0.5], abs=0.01)
    logs = [(both / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert all("Student.score_cohort" in log and "finetuned by 2 processes" in log for log in logs)


def test_a_teacher_at_an_endpoint_is_asked_once_and_no_process_loads_a_model_for_it(tmp_path: Path) -> None:
    with serving() as server:
        server.respond = lambda body: writes(f"Ada plays the harp, {body['seed']}.")
        words = f"runs={tmp_path} name=mine use=best candidates=2 contexts.limit=2 student.epochs=2 student.cohort=1 teacher.model=''"
        endpoint = f"teacher.endpoint.base_url={server.url} teacher.endpoint.model=tiny"
        done = run("torchrun", "recipes/tiny/adapt_student.yaml", *words.split(), *endpoint.split())
    assert done.returncode == 0, done.stderr
    assert "\n2 processes\n" in f"\n{done.stdout}"
    assert len({body["seed"] for body in server.requests}) == len(server.requests) == 4
    assert json.loads((tmp_path / "mine" / "report.json").read_text())["spending"]["requests"] == 4
    logs = [(tmp_path / "mine" / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert all("Student.score_cohort" in log and "Policy" not in log for log in logs)


def test_a_student_too_large_for_one_device_is_spread_and_learns_the_same(tmp_path: Path) -> None:
    words = (
        "recipes/tiny/adapt_student.yaml name=adapt contexts.limit=1 candidates=2 use=best student.epochs=2 student.max_example_tokens=64 "
        "teacher.max_new_tokens=60"
    ).split()
    zero = json.loads((ROOT / "recipes" / "zero" / "zero3.json").read_text())
    zero["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (tmp_path / "zero3.json").write_text(json.dumps(zero))
    alone = run("tutelage", *words, f"runs={tmp_path}/alone", "student.inner_loop=single")
    assert alone.returncode == 0, alone.stderr
    spread = run("tutelage", *words, f"runs={tmp_path}/spread", f"student.deepspeed={tmp_path}/zero3.json", "--processes", "2")
    assert spread.returncode == 0, spread.stderr
    reports = [json.loads((tmp_path / name / "adapt" / "report.json").read_text()) for name in ("alone", "spread")]
    assert reports[0]["inner_loops"] > 0
    for key in ("answers", "scores", "gain", "malformed"):
        assert reports[0][key] == reports[1][key]
    assert reports[0]["base"]["fingerprint"] == reports[1]["base"]["fingerprint"]
    first, second = (load_file(Path(report["versions"][0]["path"]) / "adapter_model.safetensors") for report in reports)
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) <= 1e-3  # a tenth of one step


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TRAIN, "finetune.batch_size=5", "--processes", "2"], "finetune.batch_size 5 x finetune.accumulation 1 does not divide by 2"),
        ([*TRAIN, "--processes", "0"], "--processes is 0; it must be at least 1"),
        (["recipes/bench.yaml", "--processes", "2"], "recipe bench runs in one process, but 2 were started"),
    ],
)
def test_a_run_that_cannot_be_shared_is_refused_before_any_work(tmp_path: Path, words: Sequence[str], message: str) -> None:
    done = run("tutelage", *words, f"runs={tmp_path}/runs")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def launch_by_hand(tmp_path: Path, rank: int, port: int, *words: str) -> subprocess.Popen[str]:
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [*LAUNCHERS["tutelage"], "run", *TRAIN, f"runs={tmp_path}/runs", "distributed.join_seconds=5", *words]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


def test_a_process_that_never_comes_is_named(tmp_path: Path) -> None:
    first = launch_by_hand(tmp_path, 0, 29613)
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 2
    assert "within 5 s" in errors and "distributed.join_seconds" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


def test_processes_with_different_recipes_are_refused(tmp_path: Path) -> None:
    first, second = launch_by_hand(tmp_path, 0, 29614), launch_by_hand(tmp_path, 1, 29614, "candidates=5")
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 2
    assert "give every process the same recipe file and overrides" in errors
    _, silent = second.communicate(timeout=100)
    assert second.returncode == 2
    assert "Traceback" not in silent
    assert not (tmp_path / "runs").exists()


FAIL_IN_ONE = """
import torch.distributed as dist
import recipes.team
from protocol.errors import TutelageError
from recipes.assembly import assemble
from recipes.base_settings import RecipeSettings
from recipes.launching import take_seat
recipes.team._FAILING_SECONDS = 2.0
def fail(alone):
    if dist.get_rank() == 1 or not alone:
        raise TutelageError("no luck")
    dist.barrier()
recipes.team.fail = fail  # functions cross by name
fail.__module__ = "recipes.team"
with assemble(take_seat(), RecipeSettings(), deepspeed=False) as team:
    if team.seat.rank:
        team.serve()
    else:
        try:
            team.together(fail, False)
        except TutelageError as error:
            print(f"all: {error}", flush=True)
        team.together(fail, True)
"""


def test_an_error_of_all_is_raised_and_an_error_of_one_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "fail.py").write_text(FAIL_IN_ONE)
    command = [*LAUNCHERS["torchrun"][:-2], str(tmp_path / "fail.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "all: no luck" in done.stdout
    assert "TutelageError: no luck" in done.stderr
