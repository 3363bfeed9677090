"""A student in one process, a teacher in another: what a user does in two terminals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recipes.cli import main

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-of-twenty-chars"
SMALL = ["rounds=1", "contexts_per_round=3", "candidates=4", "finetune.epochs=1"]


@contextmanager
def serving(runs: Path, *words: str, recipe: str = "recipes/serve.yaml") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Terminal A: yields the process, and what it says teachers are to use."""
    command = [sys.executable, "-m", "recipes.cli", "serve", recipe, f"runs={runs}", "port=0", *words]
    environment = {**os.environ, "TUTELAGE_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if "student.exchange=" in line:
                break
        else:
            raise AssertionError(said)
        yield process, line.partition("student.exchange=")[2].split(" ")[0]
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[str]) -> str:
    """Ask it to stop; returns its last words."""
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(timeout=60) == 0, said
    return said


def train(runs: Path, name: str, *words: str) -> list[dict[str, Any]]:
    """Terminal B: train a teacher; returns the journal, in an order of its own, without times."""
    assert main(["run", "recipes/tiny/train_teacher.yaml", f"runs={runs}", f"name={name}", *SMALL, *words]) == 0
    records = [json.loads(line) for line in (runs / name / "journal.jsonl").read_text().splitlines()]
    for record in records:
        if record["kind"] == "reward":
            del record["result"]["seconds"]
    return sorted(records, key=json.dumps)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The journal of a run with a student of its own."""
    return train(tmp_path_factory.mktemp("here"), "here")


def test_a_student_elsewhere_gives_the_same_journal_as_one_here(tmp_path: Path, here: list[dict[str, Any]]) -> None:
    assert sum(record["kind"] == "reward" for record in here) == 12
    assert len({record["result"]["value"] for record in here if record["kind"] == "reward"}) > 2
    with serving(tmp_path, "name=http") as (process, address):
        assert train(tmp_path, "by-http", f"student.exchange={address}") == here
        # The frozen teacher then adapts the student for good.
        adapted = f"teacher.adapter={tmp_path}/by-http/teacher/round-1"
        words = [f"runs={tmp_path}", "name=adapted", "student.model=''", f"student.exchange={address}", adapted, "contexts.limit=2"]
        assert main(["run", "recipes/tiny/adapt_student.yaml", *words]) == 0
        said = stop(process)
    assert "answered: 12 rewards, 1 versions" in said
    report = json.loads((tmp_path / "adapted" / "report.json").read_text())
    version = Path(report["versions"][0]["path"])
    assert version.parent == tmp_path / "http" / "student"
    assert (version / "adapter_model.safetensors").exists()
    with serving(tmp_path, "name=folder", f"folder={tmp_path}/shared") as (process, address):
        assert address == f"folder:{tmp_path}/shared"
        assert train(tmp_path, "by-folder", f"student.exchange={address}") == here
        stop(process)


def test_a_service_that_is_killed_and_started_again_loses_nothing(tmp_path: Path, here: list[dict[str, Any]]) -> None:
    words = ["student.cohort=1", "gather_seconds=0"]
    with serving(tmp_path, "name=http", *words) as (process, address):
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "recipes.cli", "run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path}", "name=remote"]
        teacher = subprocess.Popen([*command, *SMALL, f"student.exchange={address}"], cwd=ROOT, env=dict(os.environ))
        journal = tmp_path / "http" / "journal.jsonl"
        while journal.read_text().count('"kind":"reward"') < 4:
            time.sleep(0.05)
            assert teacher.poll() is None
        process.kill()
    with serving(tmp_path, "name=http", f"port={port}", *words) as (process, _):
        assert teacher.wait(timeout=120) == 0
        said = stop(process)
    answered = [json.loads(line) for line in journal.read_text().splitlines()]
    keys = [record["result"]["key"] for record in answered if record["kind"] == "reward"]
    assert len(keys) == len(set(keys)) == 12, said
    remote = [json.loads(line) for line in (tmp_path / "remote" / "journal.jsonl").read_text().splitlines()]
    values = {record["result"]["key"]: record["result"]["value"] for record in remote if record["kind"] == "reward"}
    assert values == {record["result"]["key"]: record["result"]["value"] for record in here if record["kind"] == "reward"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["student.exchange=ftp://x"],
            "student.exchange is 'ftp://x'; it is local, an address such as http://127.0.0.1:8400, or folder:PATH",
        ),
        (["student.exchange=http://127.0.0.1:8400", "student.token_env=NOT_SET"], "student.token_env is 'NOT_SET', which is not set"),
    ],
)
def test_an_exchange_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "recipes/tiny/train_teacher.yaml", f"runs={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
