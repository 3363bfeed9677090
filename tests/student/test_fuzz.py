"""Anything at all, thrown at the service and at what reads candidates: an answer, at once, and never a crash.

`TUTELAGE_FUZZ=20000` throws that many at each.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from scripted import CARD, TASK, ScriptedStudent

from protocol.errors import MalformedEdit
from protocol.journal import Journal
from protocol.messages import Context, RewardRequest, SelfEdit
from recipes.domains import DOMAINS
from student.queue import Queue
from student.service import create_app, listening
from student.serving import serve

COUNT: Final = int(os.environ.get("TUTELAGE_FUZZ", "40"))
TOKEN: Final = "a-token-of-twenty-chars"
FUZZ = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
GOOD = json.loads(RewardRequest(task=TASK, context=Context(title="a"), edit=SelfEdit(), seeds=(1,)).model_dump_json())
KEYS = st.sampled_from(["task", "context", "edit", "seeds", "probes", "version", "magic"])
NEARLY = st.dictionaries(KEYS, JSON, max_size=3).map(lambda changes: json.dumps({"rewards": [{**GOOD, **changes}]}).encode())
BODIES = st.binary(max_size=2000) | JSON.map(lambda value: json.dumps(value).encode(errors="replace")) | NEARLY


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx2.Client, Any]]:
    queue = Queue(CARD, Journal(tmp_path_factory.mktemp("service") / "journal.jsonl"), most=100_000, gather=0.0)
    app = create_app(queue, TOKEN, 1_000_000)
    work = threading.Thread(target=serve, args=(ScriptedStudent(lambda request: 0.5), queue))
    work.start()
    with listening(app, "127.0.0.1", 0) as url, httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client, app
        assert work.is_alive()
        queue.stop()
        work.join()


def test_any_body_is_answered_at_once_and_never_by_a_crash(service: tuple[httpx2.Client, Any]) -> None:
    client, _ = service

    @FUZZ
    @given(path=st.sampled_from(["submissions", "results", "cancel"]), body=BODIES)
    def throw(path: str, body: bytes) -> None:
        started = time.perf_counter()
        answer = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 202, 204, 400, 413, 422), answer.text
        assert time.perf_counter() - started < 5

    throw()
    assert client.get("/readyz").status_code == 200


def test_what_is_in_the_document_is_answered_as_it_says(service: tuple[httpx2.Client, Any]) -> None:
    """Not all that it allows is accepted: epochs and tokens at once are not, and a schema does not say so."""
    client, app = service
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.config.base_url = str(client.base_url)
    for operation in schema.get_all_operations():

        @settings(FUZZ, max_examples=max(10, COUNT // 8))
        @given(case=operation.ok().as_strategy())
        def call(case: Any) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("wait"), int | float):
                case.body["wait"] = 0
            case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[ignored_auth, positive_data_acceptance])

        call()


@pytest.mark.parametrize("name", list(DOMAINS))
def test_any_candidate_is_a_self_edit_or_refused_with_a_reason(name: str) -> None:
    domain, context = DOMAINS[name], Context(title="a")
    published = '{"data_generation": {"use_basic_augmentations": true}, "training": {"learning_rate": 1e-4}}'

    @FUZZ
    @given(text=st.text(max_size=3000) | JSON.map(json.dumps) | st.text(max_size=20).map(lambda noise: published.replace("true", noise)))
    def read(text: str) -> None:
        started = time.perf_counter()
        try:
            assert isinstance(domain.parse(text.encode(errors="replace").decode(), context), SelfEdit)
        except MalformedEdit as error:
            assert 0 < len(str(error)) < 10_000
        assert time.perf_counter() - started < 1

    read()
