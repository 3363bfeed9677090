"""Anything at all, thrown at the service and at what reads candidates: an answer, at once, and never a crash.

`TUTELAGE_FUZZ=20000` throws that many at each.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from scripted import CARD, TASK, ScriptedStudent
from versioned import add, attempt

from protocol.errors import MalformedEdit
from protocol.feedback import read_feedback
from protocol.identity import content_id
from protocol.journal import Journal
from protocol.messages import Context, Demonstration, Example, Question, RewardRequest, SelfEdit, Update
from recipes.domains import DOMAINS
from recipes.graders import GRADERS
from student.deaths import Deaths
from student.feedback_desk import FeedbackDesk
from student.queue import Queue
from student.service import create_app, listening
from student.serving import serve
from student.settings import StudentSettings
from student.student import Student
from student.versions import Line

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
LEARNED = attempt(1)
FINGERPRINT = content_id("fingerprint", LEARNED.request)
USED = {"version": FINGERPRINT, "context": "c" * 32, "question": "What?", "kind": "rating", "value": 4, "time": 1_900_000_000}
ROWS = st.lists(st.dictionaries(st.sampled_from([*USED, "answered", "id", "protocol"]), JSON, max_size=2), max_size=3)
NEARLY_USED = ROWS.map(lambda rows: json.dumps({"rows": [{**USED, **changes} for changes in rows]}).encode())
BODIES = st.binary(max_size=2000) | JSON.map(lambda value: json.dumps(value).encode(errors="replace")) | NEARLY | NEARLY_USED


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx2.Client, Any]]:
    folder = tmp_path_factory.mktemp("service")
    queue = Queue(CARD, Journal(folder / "journal.jsonl"), most=100_000, gather=0.0)
    with Line(folder / "line") as line:
        assert add(line, LEARNED).fingerprint == FINGERPRINT
    app = create_app(queue, TOKEN, 1_000_000, FeedbackDesk(folder / "feedback.jsonl", folder / "line"))
    work = threading.Thread(target=serve, args=(ScriptedStudent(lambda request: 0.5), queue, Deaths(folder / "deaths")))
    work.start()
    with listening(app, "127.0.0.1", 0) as url, httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.post("/v1/feedback", json={"rows": [USED]}).json()["taken"] == 1
        yield client, app
        assert work.is_alive()
        queue.stop()
        work.join()
    assert {row.feedback.version for row in read_feedback(folder / "feedback.jsonl")} == {FINGERPRINT}


def test_any_body_is_answered_at_once_and_never_by_a_crash(service: tuple[httpx2.Client, Any]) -> None:
    client, _ = service

    @FUZZ
    @given(path=st.sampled_from(["submissions", "results", "cancel", "feedback"]), body=BODIES)
    def throw(path: str, body: bytes) -> None:
        started = time.perf_counter()
        answer = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 202, 204, 413, 422), answer.text
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


TEXT = st.text(max_size=40) | st.sampled_from(["12\n30", "<s></s>", "\x00\x1b[2J", "Ada plays the harp."])
DIRECTIVES = st.dictionaries(
    st.sampled_from(["use_basic_augmentations", "learning_rate", "num_train_epochs", "strategy"]) | st.text(min_size=1, max_size=9),
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    max_size=4,
)
UPDATES = st.builds(
    Update,
    learning_rate=st.none() | st.floats(0, 1, exclude_min=True),
    epochs=st.none() | st.integers(1, 3) | st.just(10_000),
    rank=st.none() | st.integers(1, 8) | st.just(4096),
    batch_size=st.none() | st.integers(1, 4096),
    loss_on=st.sampled_from([None, "all", "completion"]),
)
CONTEXTS = st.builds(
    Context,
    title=TEXT,
    passage=TEXT,
    demonstrations=st.lists(st.builds(Demonstration, input=TEXT, output=TEXT), max_size=3),
    questions=st.lists(st.builds(Question, text=TEXT, answers=st.lists(TEXT, max_size=2)), max_size=2),
)
REQUESTS = st.builds(
    RewardRequest,
    task=st.sampled_from([TASK.model_copy(update={"domain": d.name, "domain_version": d.version}) for d in DOMAINS.values()]),
    context=CONTEXTS,
    edit=st.builds(
        SelfEdit, examples=st.lists(st.builds(Example, prompt=TEXT, completion=TEXT), max_size=3), update=UPDATES, directives=DIRECTIVES
    ),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=2),
    probes=st.lists(CONTEXTS, max_size=1),
)


def test_a_student_trains_on_any_request_or_refuses_it_with_a_reason(llama: str, tmp_path: Path) -> None:
    limits = {"max_steps": 20, "max_examples": 8, "max_example_tokens": 64, "max_step_tokens": 512, "max_rank": 8}
    values = {"rank": 4, "alpha": 8, "learning_rate": 1e-2, "epochs": 1, "batch_size": 4, **limits}
    student = Student(StudentSettings(model=llama, **values), DOMAINS, GRADERS, tmp_path)  # type: ignore[arg-type]
    answered = Counter[str]()

    @settings(FUZZ, max_examples=max(10, COUNT // 20))
    @given(requests=st.lists(REQUESTS, min_size=1, max_size=4, unique_by=lambda request: request.id))
    def ask(requests: list[RewardRequest]) -> None:
        results = [result for results in student.score(requests) for result in results]
        assert {result.request for result in results} == {request.id for request in requests}
        answered.update(type(result).__name__ for result in results)

    ask()
    assert answered["Reward"] and answered["Refusal"], answered
