import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import JSON, Body, OpenAIServer, Response, fails, serving, writes

from protocol.errors import InvalidInput, TutelageError
from protocol.spending import Account, Spending, describe_spending
from teacher.endpoint import EndpointPolicy, Written, check_settings
from teacher.serving import check_served, name_adapter, serve_adapter
from teacher.settings import EndpointSettings, TeacherSettings

KEY = "sk-test-4711-never-to-be-seen"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving(KEY) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A key, and the seconds between retries, which pass at once."""
    waited: list[float] = []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("protocol.endpoint.time", SimpleNamespace(sleep=waited.append, time=time.time))
    return waited


def teacher(server: OpenAIServer, adapter: str | None = None, chat: bool = False, **changes: Any) -> TeacherSettings:
    endpoint = EndpointSettings(**{"base_url": server.url, "model": "tiny", "retries": 2, "timeout": 5.0, "concurrency": 4, **changes})
    return TeacherSettings(adapter=adapter, chat=chat, temperature=0.7, top_p=0.9, max_new_tokens=100, endpoint=endpoint)


def sample(settings: TeacherSettings, *prompts: str, spent: float = 0.0) -> list[Written]:
    return sorted(EndpointPolicy(settings, spent).sample(prompts, range(len(prompts))), key=lambda written: written.index)


def echo(body: Body) -> Response:
    return writes(f"{body['prompt']} by {body['seed']}")


def only(word: str, response: Response) -> Any:
    """Prompts with the word in them get this response, others a candidate."""
    return lambda body: response if word in body["prompt"] else writes("fine")


def adapter_folder(folder: Path, content: str = "weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(content)
    return folder


def test_a_prompt_goes_as_it_stands_with_its_own_seed(server: OpenAIServer) -> None:
    server.respond = echo
    assert [written.text for written in sample(teacher(server), "Ada\n", "Bob\n")] == ["Ada\n by 0", "Bob\n by 1"]
    asked = sorted(server.requests, key=lambda body: body["seed"])
    assert server.paths == ["/v1/completions"] * 2
    assert asked[1] == {"model": "tiny", "prompt": "Bob\n", "temperature": 0.7, "top_p": 0.9, "max_tokens": 100, "seed": 1}


def test_with_chat_a_prompt_is_a_users_message(server: OpenAIServer) -> None:
    assert [written.text for written in sample(teacher(server, chat=True), "Ada")] == ["Ada plays the harp."]
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Ada"}]
    assert "prompt" not in server.requests[0]


def test_every_candidate_is_known_by_its_prompts_place_whatever_arrives_first(server: OpenAIServer) -> None:
    def respond(body: Body) -> Response:
        time.sleep(0.05 * (3 - body["seed"] % 4))
        return echo(body)

    server.respond = respond
    prompts = [f"p{number}" for number in range(8)]
    arrived = list(EndpointPolicy(teacher(server)).sample(prompts, range(8)))
    assert [written.index for written in arrived] != list(range(8))
    assert {written.index: written.text for written in arrived} == {number: f"p{number} by {number}" for number in range(8)}


def test_no_more_requests_are_under_way_than_concurrency_allows(server: OpenAIServer) -> None:
    together = threading.Barrier(3, timeout=5)

    def respond(body: Body) -> Response:
        together.wait()
        return echo(body)

    server.respond = respond
    assert len(sample(teacher(server, concurrency=3), *"abcdef")) == 6
    assert server.most_under_way == 3


@pytest.mark.parametrize(
    ("response", "text"), [(writes("Ada pl", finish="length"), "Ada pl"), (writes("", finish="length"), ""), (writes(None), "")]
)
def test_a_cut_or_empty_candidate_is_a_candidate(server: OpenAIServer, response: Response, text: str) -> None:
    server.respond = lambda body: response
    assert [written.text for written in sample(teacher(server), "Ada")] == [text]
    assert len(server.requests) == 1


def test_a_refusal_without_content_is_an_empty_candidate(server: OpenAIServer) -> None:
    server.respond = lambda body: writes(None, chat=True)
    assert [written.text for written in sample(teacher(server, chat=True), "Ada")] == [""]


def test_an_endpoint_is_waited_for_as_it_asks(server: OpenAIServer, waits: list[float]) -> None:
    responses = iter([fails(429, **{"Retry-After": "7"}), fails(503, **{"Retry-After": "0.5"}), writes("fine")])
    server.respond = lambda body: next(responses)
    assert sample(teacher(server), "Ada") == [Written(0, "fine", Spending(requests=3, prompt_tokens=10, completion_tokens=5))]
    assert waits == [7.0, 0.5]


@pytest.mark.parametrize(("status", "requests"), [(429, 3), (500, 3), (502, 3), (400, 1), (422, 1)])
def test_retries_are_bounded_and_only_where_they_may_help(server: OpenAIServer, status: int, requests: int) -> None:
    server.respond = lambda body: fails(status, "overloaded")
    with pytest.raises(TutelageError, match=r"teacher\.endpoint\.base_url http://127.* \(.*overloaded.*\)"):
        sample(teacher(server), "Ada")
    assert len(server.requests) == requests


def test_what_is_under_way_still_comes_after_a_failure_and_nothing_more_is_sent(server: OpenAIServer) -> None:
    failing = threading.Event()

    def respond(body: Body) -> Response:
        if body["prompt"] == "bad":
            failing.set()
            return fails(500)
        failing.wait(5)
        time.sleep(0.2)
        return echo(body)

    server.respond = respond
    arrived = []
    with pytest.raises(TutelageError, match="gives no candidates"):
        for written in EndpointPolicy(teacher(server, retries=0, concurrency=2)).sample(["Ada", "bad", "Bob", "Eve"], range(4)):
            arrived.append(written)
    assert [(written.index, written.text) for written in arrived] == [(1, None), (0, "Ada by 0")]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "response",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"),
        (200, JSON, b"[" * 100_000),
        (200, JSON, b'{"choices": []}'),
        (200, JSON, b'{"error": "overloaded"}'),
        (200, JSON, b'{"choices": [{"text": 5}]}'),
        (200, JSON, b'{"choices": [{"text": "Ada'),
        (200, JSON, b""),
    ],
)
def test_garbage_is_asked_once_more_and_then_ends_the_run(server: OpenAIServer, response: Response) -> None:
    responses = iter([response, writes("fine")])
    server.respond = lambda body: next(responses)
    assert [written.text for written in sample(teacher(server), "Ada")] == ["fine"]
    server.respond = lambda body: response
    with pytest.raises(TutelageError, match=r"gives no candidates \(the last reason: a response that is no completion"):
        sample(teacher(server), "Ada")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (fails(401, KEY), r"refuses the key in the variable 'OPENAI_API_KEY' \(teacher\.endpoint\.api_key_env\) with HTTP 401"),
        (fails(404, "no tiny"), r"teacher\.endpoint\.model 'tiny' is not known to teacher\.endpoint\.base_url .*no tiny.*give a model"),
        (fails(302, Location="http://127.0.0.1:1/"), r"teacher\.endpoint\.base_url .* redirects to another address"),
        (
            fails(400, "maximum context length is 8"),
            r"takes no such request \(.*context length is 8.*see to teacher\.max_new_tokens",
        ),
    ],
)
def test_what_no_other_request_would_change_stops_at_once(server: OpenAIServer, response: Response, message: str) -> None:
    server.respond = lambda body: response
    with pytest.raises(InvalidInput, match=message) as caught:
        sample(teacher(server, concurrency=1), *"abcdefgh")
    assert len(server.requests) == 1
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_that_is_down_ends_the_run(server: OpenAIServer) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(TutelageError, match=r"gives no candidates .*refused.*see that it is up. The same command goes on"):
        sample(teacher(server), "Ada")


def test_cost_is_counted_by_usage_and_prices(server: OpenAIServer) -> None:
    server.respond = lambda body: writes("fine", usage=(1000, 200))
    (written,) = sample(teacher(server, price_in=2.0, price_out=8.0), "Ada")
    assert written.spending.model_dump() == pytest.approx(
        {"requests": 1, "unmetered": 0, "prompt_tokens": 1000, "completion_tokens": 200, "cost": 0.0036}
    )
    total = written.spending + Spending(requests=1, unmetered=1, cost=1.0)
    assert describe_spending(total) == (
        "spent at endpoints: 2 requests, 1,000 tokens read, 200 written, cost 1.0036 "
        "(1 of the requests told no tokens, and count with the most they can have cost)"
    )


def test_a_request_that_tells_no_usage_counts_with_the_most_it_can_have_cost(server: OpenAIServer) -> None:
    server.respond = lambda body: writes("fine", usage=None)
    (written,) = sample(teacher(server, price_in=1.0, price_out=10.0), "x" * 744)
    assert (written.spending.unmetered, written.spending.prompt_tokens) == (1, 0)
    assert written.spending.cost == pytest.approx((744 + 256 + 100 * 10) / 1e6)


def test_a_request_that_was_sent_and_never_answered_counts_so_too(server: OpenAIServer) -> None:
    slow = iter([0.6, 0.0])

    def respond(body: Body) -> Response:
        time.sleep(next(slow))
        return writes("fine")

    server.respond = respond
    (written,) = sample(teacher(server, price_out=10.0, timeout=0.3), "Ada")
    assert (written.text, written.spending.requests, written.spending.unmetered) == ("fine", 2, 1)
    assert written.spending.cost == pytest.approx((100 + 5) * 10 / 1e6)


def test_a_response_that_breaks_off_is_asked_again_and_may_have_been_charged(server: OpenAIServer) -> None:
    whole = writes("Ada plays the harp.")
    responses = iter([(200, {**JSON, "Content-Length": str(len(whole[2]))}, whole[2][:20]), whole])
    server.respond = lambda body: next(responses)
    (written,) = sample(teacher(server), "Ada")
    assert (written.text, written.spending.requests, written.spending.unmetered) == ("Ada plays the harp.", 2, 1)


@pytest.mark.parametrize(("status", "unmetered", "cost"), [(429, 0, 5e-5), (500, 0, 5e-5), (504, 1, 1.05e-3)])
def test_a_request_that_was_turned_away_costs_nothing_unless_a_gateway_lost_patience(
    server: OpenAIServer, status: int, unmetered: int, cost: float
) -> None:
    responses = iter([fails(status), writes("fine")])
    server.respond = lambda body: next(responses)
    (written,) = sample(teacher(server, price_out=10.0), "Ada")
    assert (written.spending.requests, written.spending.unmetered, written.spending.completion_tokens) == (2, unmetered, 5)
    assert written.spending.cost == pytest.approx(cost)


def test_no_request_is_sent_that_could_pass_the_budget(server: OpenAIServer) -> None:
    """Each may cost 0.001 and costs 0.0005: of 0.0031 five are paid, since with a sixth it could come to 0.0035."""
    server.respond = lambda body: writes("fine", usage=(0, 50))
    settings = teacher(server, price_out=10.0, budget=0.0031)
    arrived = []
    with pytest.raises(TutelageError, match=r"teacher\.endpoint\.budget is 0\.0031, of which 0\.002500 is spent, .* up to 0\.001000;"):
        for written in EndpointPolicy(settings).sample(["Ada"] * 20, range(20)):
            arrived.append(written.text)
    assert arrived == ["fine"] * 5
    assert len(server.requests) == 5


def test_what_was_spent_before_counts_against_the_budget(server: OpenAIServer) -> None:
    with pytest.raises(TutelageError, match=r"budget is 0\.5, of which 0\.499900 is spent"):
        sample(teacher(server, price_out=10.0, budget=0.5), "Ada", spent=0.4999)
    assert server.requests == []


def test_many_threads_never_set_aside_more_than_the_budget() -> None:
    account, sent = Account(1.0, 0.0), []

    def ask() -> None:
        while account.reserve(0.1):
            sent.append(account.spent)
            account.settle(0.1, 0.05)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert 18 <= len(sent) <= 19
    assert account.spent == pytest.approx(0.05 * len(sent))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "localhost:8000/v1"}, r"teachers\.mine\.endpoint\.base_url is no address"),
        ({"base_url": f"https://me:{KEY}@api.openai.com/v1"}, r"teachers\.mine\.endpoint\.base_url has a user name"),
        ({"api_key_env": KEY}, r"teachers\.mine\.endpoint\.api_key_env is not the name of an environment variable"),
        ({"base_url": "https://api.openai.com/v1", "api_key_env": "NOT_SET"}, r"api_key_env is 'NOT_SET', a variable that is not set"),
        ({"model": None}, r"teachers\.mine\.endpoint\.model is empty; give the name"),
        ({"budget": 1.0}, r"teachers\.mine\.endpoint\.budget is 1\.0, but .*price_in and price_out are 0"),
    ],
)
def test_wrong_settings_are_refused_without_naming_a_secret(server: OpenAIServer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        check_settings(teacher(server, **changes), "teachers.mine.endpoint")
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_adapters_name_tells_where_it_is_from_and_what_it_is(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "my run" / "seed-0" / "trained_teacher" / "round-1")
    name = name_adapter(folder)
    assert name[:-12] == "my-run-seed-0-trained_teacher-round-1-"
    assert name_adapter(folder) == name
    adapter_folder(folder, "other weights")
    assert name_adapter(folder)[:-12] == name[:-12] and name_adapter(folder) != name


def test_an_adapter_is_loaded_once_and_seen(server: OpenAIServer, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "round-1")
    settings = teacher(server, adapter=str(folder))
    name = serve_adapter(settings)
    assert server.loads == [{"lora_name": name, "lora_path": str(folder)}]
    assert serve_adapter(settings) == name == name_adapter(folder)
    assert len(server.loads) == 1
    assert [w.text for w in EndpointPolicy(settings, served=name).sample(["Ada"], [1])] == ["Ada plays the harp."]
    assert server.requests[0]["model"] == name


def test_an_adapter_that_another_has_loaded_meanwhile_is_fine(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter_folder(tmp_path / "round-1")
    load = server.load

    def load_twice(body: Body) -> Response:
        load(body)
        return load(body)

    monkeypatch.setattr(server, "load", load_twice)
    assert serve_adapter(teacher(server, adapter=str(folder))) == name_adapter(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"refuses": "LoRA rank 64 is greater than max_lora_rank 16."}, "LoRA rank 64 is greater than max_lora_rank 16"),
        ({"takes_adapters": False}, "Not Found"),
        ({"forgets": True}, "it said yes, but does not list it"),
    ],
)
def test_an_adapter_that_the_server_does_not_serve_ends_the_run(
    server: OpenAIServer, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    vars(server).update(change)
    folder = adapter_folder(tmp_path / "round-1")
    with pytest.raises(TutelageError, match=rf"does not serve the adapter {folder} as .*{said}.*--enable-lora.*VLLM_ALLOW_RUNTIME_LORA"):
        serve_adapter(teacher(server, adapter=str(folder)))


def test_an_adapter_whose_folder_the_server_does_not_see_ends_the_run(server: OpenAIServer, tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match=r"no adapter found for .*must see that folder by the same path"):
        serve_adapter(teacher(server, adapter=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("change", "is_trained", "message"),
    [
        ({"models": ["a", "b"]}, False, r"endpoint\.model is 'tiny', which .* does not serve; it has a, b"),
        ({"key": "another"}, False, r"refuses the key in the variable 'OPENAI_API_KEY' .* HTTP 401"),
        ({"takes_adapters": False}, True, r"takes no adapters while it runs, which a trained teacher needs; vLLM needs --enable-lora"),
        ({"lists": False}, True, r"takes no adapters while it runs"),
    ],
)
def test_an_endpoint_that_cannot_do_is_found_out_before_any_work(
    server: OpenAIServer, change: dict[str, Any], is_trained: bool, message: str
) -> None:
    vars(server).update(change)
    with pytest.raises(InvalidInput, match=message):
        check_served(teacher(server), "teacher.endpoint", is_trained)
    assert (server.requests, server.adapters) == ([], {})


def test_an_endpoint_that_can_do_passes(server: OpenAIServer) -> None:
    check_served(teacher(server), "teacher.endpoint", is_trained=True)
    server.lists = server.takes_adapters = False
    check_served(teacher(server), "teacher.endpoint", is_trained=False)
