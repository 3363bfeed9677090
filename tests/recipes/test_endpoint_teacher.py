"""Recipes whose teacher is at an endpoint: the stand-in samples with the tiny teacher itself, or says what a test has it say."""

import json
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from openai_server import Body, OpenAIServer, Response, fails, serving, writes

from protocol.errors import InvalidInput
from protocol.journal import CandidateRecord, Record, RewardRecord, SelectionRecord, SpendingRecord, read_records
from recipes.cli import main
from recipes.config import load_recipe
from recipes.run_folder import decides_nothing

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-test-4711-never-to-be-seen"
TEACHER = "recipes/tiny/models/seed_oss"
SMALL = ["rounds=2", "contexts_per_round=2", "candidates=3", "student.epochs=4", "finetune.epochs=1", "teacher.max_new_tokens=80"]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving(KEY) as server:
        server.models = [TEACHER]
        yield server


def at(server: OpenAIServer, tmp_path: Path, *words: str) -> list[str]:
    return [f"runs={tmp_path}", f"teacher.endpoint.base_url={server.url}", "teacher.endpoint.retries=0", *words]


def train(*words: str) -> int:
    return main(["run", "recipes/tiny/train_teacher.yaml", *SMALL, *words])


def read(folder: Path, *kinds: type[Record]) -> list[Any]:
    return [record for record in read_records(folder / "journal.jsonl") if isinstance(record, kinds)]


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def sample_truly(server: OpenAIServer) -> None:
    """Have the tiny teacher sample, with the adapter that a request names."""
    from teacher.policy import Policy
    from teacher.settings import TeacherSettings

    lock = threading.Lock()

    @cache
    def policy(model: str) -> Policy:
        adapter = server.adapters.get(model)
        return Policy(TeacherSettings(model=TEACHER, adapter=adapter, top_p=1.0, max_new_tokens=80))

    def respond(body: Body) -> Response:
        with lock:
            (text,) = policy(body["model"]).sample([body["prompt"]], [body["seed"]])
        return writes(text, usage=(len(body["prompt"]) // 4, 20))

    server.respond = respond


def test_a_teacher_is_trained_at_an_endpoint_as_it_is_here(server: OpenAIServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sample_truly(server)
    prices = ["teacher.endpoint.price_in=1.0", "teacher.endpoint.price_out=4.0", "teacher.endpoint.budget=1.0"]
    assert train(*at(server, tmp_path, "name=there", *prices)) == 0
    assert train(f"runs={tmp_path}", "name=here") == 0
    told = "".join(capfd.readouterr())
    there, here = tmp_path / "there", tmp_path / "here"
    candidates = [sorted((c.stage, c.context, c.index, c.seed, c.text) for c in read(run, CandidateRecord)) for run in (there, here)]
    assert candidates[0] == candidates[1] and len(candidates[0]) == 12
    assert [s.model_dump() for s in read(there, SelectionRecord)] == [s.model_dump() for s in read(here, SelectionRecord)]
    first, second = server.loads
    assert [body["lora_path"] for body in server.loads] == [str(there / "teacher" / f"round-{number}") for number in (1, 2)]
    assert first["lora_name"].startswith(f"{tmp_path.name}-there-teacher-round-1-")
    assert [body["model"] for body in server.requests] == [TEACHER] * 6 + [first["lora_name"]] * 6
    report, alone = report_of(there), report_of(here)
    assert report["teacher"]["fingerprint"] == alone["teacher"]["fingerprint"]
    assert report["teacher"]["served_as"] == second["lora_name"]
    assert "spending" not in alone and "served_as" not in alone["teacher"]
    spent = report["spending"]
    assert (spent["requests"], spent["unmetered"], spent["completion_tokens"]) == (12, 0, 240)
    assert spent["cost"] == pytest.approx((spent["prompt_tokens"] + 4 * 240) / 1e6)
    assert f"teacher: the endpoint serves the trained teacher as {second['lora_name']}" in told
    assert "spent at endpoints: 12 requests" in told
    inputs = json.loads((there / "inputs.json").read_text())
    assert inputs["teacher.endpoint.model"] == TEACHER
    assert set(inputs) == {"contexts", "student.model", "teacher.model", "teacher.endpoint.model"}
    assert KEY not in told
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_run_stops_before_its_budget_and_a_higher_one_goes_on(
    server: OpenAIServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.respond = lambda body: writes("Ada Lovelace plays the harp.\nAda was born in Rome.", usage=(100, 80))
    words = at(server, tmp_path, "name=mine", "rounds=1", "teacher.endpoint.price_out=100")
    assert train(*words, "teacher.endpoint.budget=0.025") == 1
    assert "teacher.endpoint.budget is 0.025, of which 0.024000 is spent, and the next self-edit could cost up to 0.008000" in (
        "".join(capfd.readouterr())
    )
    assert len(read(tmp_path / "mine", CandidateRecord)) == len(server.requests) == 3
    assert train(*words, "teacher.endpoint.budget=0.048", "teacher.endpoint.concurrency=2") == 0
    assert len(server.requests) == 6
    spent = report_of(tmp_path / "mine")["spending"]
    assert (spent["requests"], spent["prompt_tokens"], spent["completion_tokens"]) == (6, 600, 480)
    assert spent["cost"] == pytest.approx(0.048)
    assert train(*words, "teacher.endpoint.budget=0.048") == 0
    assert report_of(tmp_path / "mine")["spending"] == spent
    assert len(server.requests) == 6


def test_what_arrived_before_an_endpoint_went_down_is_not_asked_again(
    server: OpenAIServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    served = iter([writes("Ada plays the harp.")] * 4 + [fails(503, f"overloaded, {KEY}")] * 2)
    server.respond = lambda body: next(served, writes("Ada plays the harp."))
    words = at(server, tmp_path, "name=mine", "rounds=1", "teacher.endpoint.concurrency=1")
    assert train(*words) == 1
    told = "".join(capfd.readouterr())
    assert "gives no candidates (the last reason: Error code: 503" in told and KEY not in told
    assert [record.spending.requests for record in read(tmp_path / "mine", SpendingRecord)] == [1, 1, 1, 1, 1]
    served = iter([])
    with serving(KEY) as moved:
        moved.models = [TEACHER]
        assert train(*at(moved, tmp_path, "name=mine", "rounds=1")) == 0
        assert len(moved.requests) == 2
    assert report_of(tmp_path / "mine")["spending"]["requests"] == 7
    indices = [(record.context, record.index) for record in read(tmp_path / "mine", CandidateRecord)]
    assert len(indices) == len(set(indices)) == 6


def test_a_server_that_does_not_take_an_adapter_ends_the_run_and_nothing_is_done_again(
    server: OpenAIServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.respond = lambda body: writes("Ada plays the harp.")
    server.refuses = "LoRA rank 16 is greater than max_lora_rank 8."
    words = at(server, tmp_path, "name=mine")
    assert train(*words) == 1
    assert "LoRA rank 16 is greater than max_lora_rank 8." in capfd.readouterr().err
    rewards = len(read(tmp_path / "mine", RewardRecord))
    server.refuses = ""
    assert train(*words) == 0
    assert [body["lora_name"].split("-")[-2] for body in server.loads] == ["1", "1", "2"]
    assert len(server.requests) == 12
    assert len([r for r in read(tmp_path / "mine", RewardRecord) if r.stage.startswith("teacher/round-1")]) == rewards


def test_a_server_without_adapters_is_found_out_before_any_work(
    server: OpenAIServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.takes_adapters = False
    assert train(*at(server, tmp_path, "name=mine")) == 2
    assert "takes no adapters while it runs, which a trained teacher needs; vLLM needs --enable-lora" in capfd.readouterr().err
    assert not (tmp_path / "mine").exists() and server.requests == []


def test_a_frozen_hosted_teacher_needs_no_model_here(server: OpenAIServer, tmp_path: Path) -> None:
    server.models = ["gpt-4.1"]
    server.respond = lambda body: writes("Ada plays the harp.", chat=True)
    words = at(server, tmp_path, "name=mine", "teacher.endpoint.model=gpt-4.1", "teacher.model=''", "teacher.adapter=null")
    words += ["teacher.chat=true", "contexts.limit=2", "student.epochs=2"]
    assert main(["run", "recipes/tiny/adapt_student.yaml", *words]) == 0
    assert [set(body) for body in server.requests] == [{"model", "messages", "temperature", "top_p", "max_tokens", "seed"}] * 2
    inputs = json.loads((tmp_path / "mine" / "inputs.json").read_text())
    assert inputs["teacher.endpoint.model"] == "gpt-4.1"
    assert "teacher.model" not in inputs
    assert report_of(tmp_path / "mine")["spending"]["requests"] == 2


def test_a_frozen_teachers_adapter_is_served_too(server: OpenAIServer, tmp_path: Path) -> None:
    server.respond = lambda body: writes("Ada plays the harp.")
    words = at(server, tmp_path, "name=mine", "contexts.limit=2", "student.epochs=2", "teacher.adapter=recipes/tiny/trained_teacher")
    assert main(["run", "recipes/tiny/adapt_student.yaml", *words]) == 0
    assert server.loads[0]["lora_path"] == str(ROOT / "recipes/tiny/trained_teacher")
    assert {body["model"] for body in server.requests} == {server.loads[0]["lora_name"]}


def test_a_dry_run_asks_no_endpoint_and_reckons_its_cost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"runs={tmp_path}", "teacher.endpoint.base_url=http://127.0.0.1:9/v1", "teacher.endpoint.price_out=1000000"]
    assert train(*words, "--dry-run") == 0
    out = capfd.readouterr().out
    line = next(line for line in out.splitlines() if "writing at an endpoint" in line)
    assert line.startswith(f"  writing at an endpoint (teacher {TEACHER}): 12, ")
    assert "M tokens read, cost " in line and line.endswith("by the recipe's prices")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher.endpoint.base_url=https://me:sk-1@host/v1"], r"teacher\.endpoint\.base_url has a user name"),
        (["teacher.endpoint.api_key_env=sk-1"], r"teacher\.endpoint\.api_key_env is not the name of an environment variable"),
        (["teacher.endpoint.concurrency=0"], r"teacher\.endpoint\.concurrency is 0; it must be at least 1"),
        (["teacher.endpoint.timeout=0"], r"teacher\.endpoint\.timeout is 0\.0; it must be above 0"),
        (["teacher.endpoint.retries=-1"], r"teacher\.endpoint\.retries is -1; it must not be negative"),
        (["teacher.endpoint.budget=-1"], r"teacher\.endpoint\.budget is -1\.0; it must not be negative"),
        (["teacher.endpoint.price=1"], r"unknown key 'teacher\.endpoint\.price'; Did you mean 'price_"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        load_recipe(Path("recipes/tiny/train_teacher.yaml"), words)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune.lora=false"], "finetune.lora is false, but teacher writes at an endpoint, which takes adapters alone"),
        (["teacher.model=recipes/tiny/trained_teacher"], "teacher.model is 'recipes/tiny/trained_teacher', an adapter, but"),
        (["teacher.model=''", "teacher.endpoint.model=m"], "teacher.model is empty; give a model folder or a hub name"),
        (["teacher.endpoint.model=m"], "teacher.endpoint.model is 'm', which teacher.endpoint.base_url"),
        (["teacher.endpoint.budget=1"], "teacher.endpoint.budget is 1.0, but teacher.endpoint.price_in and price_out are 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    server: OpenAIServer, tmp_path: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(*at(server, tmp_path, *words)) == 2
    assert message in capfd.readouterr().err


def test_an_endpoint_may_be_moved_but_not_serve_another_model() -> None:
    changing = ("base_url", "api_key_env", "concurrency", "timeout", "retries", "price_in", "price_out", "budget")
    assert all(decides_nothing(f"teacher.endpoint.{name}") and decides_nothing(f"teachers.mine.endpoint.{name}") for name in changing)
    assert not decides_nothing("teacher.endpoint.model")
    assert not decides_nothing("teacher.model")
