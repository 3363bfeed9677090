import itertools
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cable import Cable
from pydantic import ValidationError
from scripted import CARD, TASK, ScriptedStudent
from versioned import add, attempt

from protocol.errors import InnerLoopFailed, InvalidInput, TutelageError
from protocol.feedback import FeedbackBatch, read_feedback
from protocol.http_transport import HttpTransport
from protocol.journal import Journal
from protocol.messages import AskRequest, CommitRequest, Context, Lesson, Reward, RewardRequest, SelfEdit, measurement_key
from protocol.remote import RemoteExchange
from protocol.schema import MESSAGES, json_schema
from protocol.wire import Submission, Wanted
from recipes.feedback import Taught, UsedVersion, UseReward, reward_use
from recipes.feedback_rules import FeedbackRules
from student.deaths import Deaths
from student.feedback_desk import FeedbackDesk
from student.queue import Queue
from student.service import create_app, listening
from student.serving import serve
from student.version_records import VersionRecord
from student.versions import Line

TOKEN = "a-token-of-twenty-chars"
LARGEST = 100_000


def request(title: str) -> RewardRequest:
    return RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,))


class Service:
    """A scripted student that serves; it answers from `go` on."""

    def __init__(self, folder: Path, most: int = 1000, line: Path | None = None):
        self.student = ScriptedStudent(lambda request: 0.5)
        self.queue = Queue(CARD, Journal(folder / "journal.jsonl"), most, gather=0.0)
        desk = FeedbackDesk(folder / "feedback.jsonl", line) if line else None
        self._listening = listening(create_app(self.queue, TOKEN, LARGEST, desk), "127.0.0.1", 0)
        self.url = self._listening.__enter__()
        self._work = threading.Thread(target=serve, args=(self.student, self.queue, Deaths(folder / "deaths")))

    def go(self) -> None:
        self._work.start()

    def close(self) -> None:
        self.queue.stop()
        if self._work.is_alive():
            self._work.join()
        self._listening.__exit__(None, None, None)

    def exchange(self, patience: float = 5.0, token: str = TOKEN) -> RemoteExchange:
        return RemoteExchange(HttpTransport(self.url, token, patience))

    def call(self, method: str, path: str, content: Any = None, **headers: str) -> httpx2.Response:
        body = content if isinstance(content, bytes) else None if content is None else json.dumps(content).encode()
        told = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
        return httpx2.request(method, self.url + path, content=body, headers=told)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.close()


def test_an_exchange_over_http_is_as_one_in_process(service: Service) -> None:
    service.go()
    exchange = service.exchange()
    assert exchange.describe() == CARD
    requests = [request(title) for title in "bac"]
    exchange.submit(requests, known=[requests[1].id])
    answered = [result for results in exchange.completed() for result in results]
    assert [result.request for result in answered] == [requests[0].id, requests[2].id]
    assert all(isinstance(result, Reward) and result.value == 0.5 for result in answered)
    assert [([r.context.title for r in asked], known) for asked, known in service.student.asked] == [(["b", "a", "c"], {requests[1].id})]
    ask = AskRequest(task=TASK, context=Context(title="Ada"))
    assert [result.request for results in exchange.ask([ask]) for result in results] == [ask.id]


def test_a_lasting_update_crosses_and_so_does_why_there_is_none(service: Service, tmp_path: Path) -> None:
    service.go()
    from protocol.files import write_manifest

    (tmp_path / "version").mkdir()
    write_manifest(tmp_path / "version")
    commit = service.student.commit
    service.student.commit = lambda request: commit(request).model_copy(update={"path": str(tmp_path / "version")})  # type: ignore[method-assign]
    good, bad = (
        CommitRequest(task=TASK, lessons=(Lesson(context=Context(title=title), edit=SelfEdit()),), seed=0) for title in ("yes", "no")
    )
    assert service.exchange().commit(good).request == good.id
    with pytest.raises(InnerLoopFailed, match="no"):
        service.exchange().commit(bad)


def test_a_cancelled_request_yields_nothing(service: Service) -> None:
    exchange, requests = service.exchange(), [request("a"), request("b")]
    exchange.submit(requests)
    answers = exchange.completed()
    threading.Timer(0.2, service.go).start()
    first = next(answers)
    exchange.cancel([r.id for r in requests])
    assert list(answers) == []
    assert {result.request for result in first} <= {r.id for r in requests}


def test_requests_that_a_service_forgot_are_submitted_again(service: Service) -> None:
    exchange, requests = service.exchange(), [request("a"), request("b")]
    exchange.submit(requests)
    answers = exchange.completed()

    def forget() -> None:
        service.queue.cancel([r.id for r in requests])
        service.go()

    threading.Timer(0.3, forget).start()
    assert len([result for results in answers for result in results]) == 2


CALLS = (
    ("GET", "/v1/student"),
    ("POST", "/v1/submissions"),
    ("POST", "/v1/results"),
    ("POST", "/v1/cancel"),
    ("POST", "/v1/feedback"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
)


def test_health_and_readiness_need_no_token_and_everything_else_does(service: Service) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx2.get(service.url + path).status_code == 200
    for method, path in CALLS:
        assert httpx2.request(method, service.url + path).status_code == 401
        for wrong in ("Bearer", f"Bearer {TOKEN}x", f"bearer {TOKEN}", f"Basic {TOKEN}", TOKEN, "Bearer é"):
            assert httpx2.request(method, service.url + path, headers={"Authorization": wrong.encode()}).status_code == 403
    service.queue.stop()
    assert httpx2.get(service.url + "/readyz").status_code == 503


def test_tokens_are_compared_in_constant_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("student.guard.hmac.compare_digest", lambda a, b: compared.append((a, b)) or True)
    assert service.call("GET", "/v1/student", Authorization="Bearer x").status_code == 200
    assert compared == [(b"Bearer x", f"Bearer {TOKEN}".encode())]


def test_a_wrong_token_ends_a_run_at_once_with_the_remedy(service: Service) -> None:
    with pytest.raises(InvalidInput, match=r"answers 403: the token is not this service's; set \$TUTELAGE_TOKEN"):
        service.exchange(token="wrong").describe()


GOOD = request("a").model_dump(mode="json")
STRANGE_KEYS = b"{" + b",".join(b'"%x":1' % number for number in range(10_000)) + b"}"


STRANGE = {"rewards": [{**GOOD, "task": {**GOOD["task"], "domain": "x"}}]}


def with_update(**update: float) -> dict[str, Any]:
    return {"rewards": [{**GOOD, "edit": {"update": update}}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/v1/submissions", b"", 422, "the body: "),
        ("/v1/submissions", b"{", 422, "JSON"),
        ("/v1/submissions", STRANGE, 422, "domain x v1 is asked for, but this student has knowledge v1; ask for that"),
        ("/v1/submissions", b"[]", 422, "the body: "),
        ("/v1/submissions", b"\xff", 422, "the body: "),
        ("/v1/submissions", b"[" * 50_000, 422, "the body: "),
        ("/v1/submissions", b'{"rewards":' * 9_000, 422, "the body: "),
        ("/v1/submissions", b"1" * 5_000, 422, "the body: "),
        ("/v1/submissions", {"rewards": [GOOD], "magic": 1}, 422, "magic: Extra inputs are not permitted"),
        ("/v1/submissions", {"rewards": [{**GOOD, "seeds": [-1]}]}, 422, "rewards.0.seeds.0: Input should be greater than or equal to 0"),
        (
            "/v1/submissions",
            {"rewards": [{**GOOD, "edit": {"update": {"epochs": 10**9}}}]},
            422,
            "rewards.0.edit.update.epochs: Input should be less",
        ),
        ("/v1/submissions", with_update(learning_rate=float("nan")), 422, "rewards.0.edit.update.learning_rate"),
        ("/v1/submissions", {"rewards": [{**GOOD, "context": {"title": "\ud800"}}]}, 422, "Invalid JSON: unexpected end of hex escape"),
        ("/v1/submissions", {"rewards": [GOOD], "known": ["../../etc/passwd"]}, 422, "known.0: String should match pattern"),
        (
            "/v1/submissions",
            b'{"rewards": [' + b" " * LARGEST,
            413,
            "the body is larger than 100000 bytes; send less at once, or raise max_body_mb",
        ),
        ("/v1/results", {"ids": ["../" * 10]}, 422, "ids.0: String should match pattern"),
        ("/v1/results", {"ids": []}, 422, "ids: "),
        ("/v1/results", {"ids": ["0" * 32], "wait": 1e9}, 422, "wait: Input should be less than or equal to 30"),
        ("/v1/results", {"ids": ["0" * 32], "wait": float("inf")}, 422, "wait"),
        ("/v1/cancel", {"ids": [3]}, 422, "ids.0: "),
        ("/v1/cancel", b"[" * 50_000, 422, "the body: Invalid JSON: recursion limit exceeded"),
        ("/v1/cancel", STRANGE_KEYS, 422, "the body: 10001 keys and values are wrong"),
        (
            "/v1/submissions",
            {"rewards": [{**GOOD, "context": {"questions": [{"text": "?"}] * 200}, "seeds": list(range(64))}]},
            422,
            "a request asks for 12800 answers, and this service gives 10000; ask fewer questions, or raise max_answers",
        ),
        ("/v2/submissions", {}, 404, "Not Found"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_message_is_refused_with_the_reason(service: Service, path: str, body: Any, status: int, detail: str) -> None:
    started = time.perf_counter()
    answer = service.call("POST", path, body)
    assert time.perf_counter() - started < 1
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]
    assert len(answer.content) < 2_000
    assert service.queue.size == 0


def test_a_full_queue_answers_429_and_a_client_comes_back(tmp_path: Path) -> None:
    service = Service(tmp_path, most=1)
    try:
        service.exchange()._transport.post(Submission(rewards=(request("a"),)))
        answer = service.call("POST", "/v1/submissions", {"rewards": [request("b").model_dump(mode="json")]})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        threading.Timer(0.3, service.go).start()
        exchange = service.exchange()
        exchange.submit([request("b")])
        assert len(list(exchange.completed())) == 1
        huge = {"rewards": [request(title).model_dump(mode="json") for title in "cd"]}
        assert service.call("POST", "/v1/submissions", huge).status_code == 413
    finally:
        service.close()


def test_slow_and_half_open_clients_hold_nobody_up(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(50)]
    for number, client in enumerate(slow):
        head = f"POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
        client.sendall(head.encode()[: None if number % 2 else 40])
    service.go()
    exchange = service.exchange()
    exchange.submit([request("a")])
    assert len(list(exchange.completed())) == 1
    for client in slow:
        client.close()
    assert service.call("GET", "/v1/student").status_code == 200


def test_a_body_that_never_comes_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student.guard._SLOWEST_BODY", 0.2)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST /v1/cancel HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_of_ones_own_is_trusted_once_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    made = ["-subj", "/CN=student", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    queue = Queue(CARD, Journal(tmp_path / "journal.jsonl"), most=10)
    with listening(create_app(queue, TOKEN, LARGEST), "127.0.0.1", 0, certificate, key) as url:
        assert url.startswith("https://")
        with pytest.raises(InvalidInput, match=r"is not to be trusted .* if it is your own, export SSL_CERT_FILE=its file"):
            HttpTransport(url, TOKEN).describe()
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert HttpTransport(url, TOKEN).describe() == CARD


def test_who_does_not_come_to_the_end_of_a_head_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student.guard._SLOWEST_HEAD", 1.0)
    monkeypatch.setattr("student.service._MOST_CONNECTIONS", 8)
    service = Service(tmp_path)
    host, port = service.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(8)]
    for number, client in enumerate(slow):
        client.sendall(b"GET /v1/st" if number % 2 else b"")
    assert httpx2.get(service.url + "/healthz").status_code == 503
    assert [client.recv(100) for client in slow] == [b""] * 8
    assert httpx2.get(service.url + "/healthz").status_code == 200
    service.close()


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(service: Service) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    told = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    try:
        assert httpx2.post(service.url + "/v1/cancel", content=endless(), headers=told).status_code == 413
    except httpx2.TransportError:
        pass  # the service hung up while we were talking


def test_metrics_count_what_was_done(service: Service) -> None:
    service.go()
    exchange = service.exchange()
    exchange.submit([request("a"), request("b")])
    list(exchange.completed())
    exchange.submit([request("a")])
    list(exchange.completed())
    told = service.call("GET", "/metrics").text
    assert 'tutelage_requests_answered_total{answer="rewards"} 2.0' in told
    assert 'tutelage_requests_answered_total{answer="repeated"} 1.0' in told
    assert "tutelage_trained_tokens_total 2.0" in told
    assert "tutelage_requests_waiting 0.0" in told


def test_the_document_has_the_protocols_schemas(service: Service) -> None:
    document = service.call("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {path for path in document["paths"]} == {path for _, path in CALLS[:6]} | {"/healthz", "/readyz"}
    for name, message in MESSAGES.items():
        if name != "journal_record":
            ours = json.loads(json.dumps(json_schema(name)).replace("#/$defs/", "#/components/schemas/"))
            parts = {message.__name__: ours, **ours.pop("$defs", {})}
            del ours["$schema"]
            assert {part: schemas[part] for part in parts} == parts


@pytest.fixture
def used(tmp_path: Path) -> Iterator[tuple[Service, VersionRecord]]:
    """A service that takes feedback about a line of one version."""
    with Line(tmp_path / "line") as line:
        version = add(line, attempt(1))
    made = Service(tmp_path, line=tmp_path / "line")
    yield made, version
    made.close()


def rated(about: VersionRecord, value: object, **changes: object) -> dict[str, object]:
    row = {"version": about.fingerprint, "context": about.lessons[0].context, "question": "What?", "kind": "rating", "value": value}
    return {**row, "time": "2030-01-01T00:00:00Z", **changes}


def test_what_users_say_becomes_the_reward_of_what_was_learned(used: tuple[Service, VersionRecord], tmp_path: Path) -> None:
    service, version = used
    sent = {"rows": [rated(version, 5, id="visit-1"), rated(version, 4, id="visit-2"), rated(version, 1, version="f" * 32)]}
    answer = service.call("POST", "/v1/feedback", sent)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["taken"], [refused["row"] for refused in told["refused"]]) == (2, [2])
    assert "tutelage versions LINE --json" in told["refused"][0]["reason"]
    assert service.call("POST", "/v1/feedback", sent).json() == told
    (lesson,) = version.lessons
    learned = UsedVersion(version.fingerprint, 1.0, [Taught(lesson.context, lesson.edit.id, ["What?"])])
    use = reward_use(read_feedback(tmp_path / "feedback.jsonl"), [learned], FeedbackRules(shrink=0), now=time.time())
    assert use.rewards[lesson.context, lesson.edit.id] == UseReward(value=0.75, questions=1, pieces=2)
    assert (use.counted, use.repeated) == (2, 2)


def test_one_malformed_row_refuses_all_feedback_that_came_with_it(used: tuple[Service, VersionRecord], tmp_path: Path) -> None:
    service, version = used
    for row, detail in (
        (rated(version, 6), "rows.1.value: Value error, it is 6; a rating is a number from 1 to 5"),
        (rated(version, 5, time="yesterday"), "rows.1.time: Value error, it is 'yesterday'; give UTC"),
        (rated(version, 5, user="Ada"), "rows.1.user: Extra inputs are not permitted"),
        (rated(version, 5, version="../.."), "rows.1.version: String should match pattern"),
    ):
        answer = service.call("POST", "/v1/feedback", {"rows": [rated(version, 5), row]})
        assert (answer.status_code, answer.json()["detail"].startswith(detail)) == (422, True), answer.text
    assert service.call("POST", "/v1/feedback", b'{"rows":[' + b"{}," * 20_000 + b"{}]}").status_code == 422
    assert not (tmp_path / "feedback.jsonl").exists()


def test_more_feedback_than_goes_in_one_batch_is_refused(used: tuple[Service, VersionRecord]) -> None:
    service, version = used
    answer = service.call("POST", "/v1/feedback", {"rows": [rated(version, 5)] * 600})
    assert (answer.status_code, "the body is larger than 100000 bytes" in answer.text) == (413, True)
    with pytest.raises(ValidationError, match="at most 10000 items"):
        FeedbackBatch.model_validate({"rows": [rated(version, 5)] * 10_001})


def test_a_service_without_a_line_takes_no_feedback_and_says_how_it_would(service: Service) -> None:
    answer = service.call("POST", "/v1/feedback", {"rows": []})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "this service takes no feedback, since it was started without line; set line to a line of versions"


def test_feedback_that_cannot_be_kept_is_to_be_sent_again(used: tuple[Service, VersionRecord], tmp_path: Path) -> None:
    service, version = used
    (tmp_path / "feedback.jsonl").mkdir()
    answer = service.call("POST", "/v1/feedback", {"rows": [rated(version, 5)]})
    assert (answer.status_code, "feedback.jsonl cannot be written (Is a directory)" in answer.json()["detail"]) == (503, True)
    (tmp_path / "feedback.jsonl").rmdir()
    assert service.call("POST", "/v1/feedback", {"rows": [rated(version, 5)]}).json()["taken"] == 1


def test_feedback_from_many_clients_tears_no_line(used: tuple[Service, VersionRecord], tmp_path: Path) -> None:
    service, version = used
    with ThreadPoolExecutor(16) as clients:
        sent = [{"rows": [rated(version, 5, id=f"{client}-{row}") for row in range(20)]} for client in range(16)]
        answers = clients.map(lambda body: service.call("POST", "/v1/feedback", body), sent)
        assert [answer.json()["taken"] for answer in answers] == [20] * 16
    assert len({row.feedback.id for row in read_feedback(tmp_path / "feedback.jsonl")}) == 320


def test_an_address_that_is_taken_is_refused_with_the_remedy(service: Service) -> None:
    port = int(service.url.rpartition(":")[2])
    with (
        pytest.raises(InvalidInput, match=f"host '127.0.0.1', port {port} cannot be listened on"),
        listening(create_app(service.queue, TOKEN, 1), "127.0.0.1", port),
    ):
        pass


def test_results_are_waited_for(service: Service) -> None:
    transport = service.exchange()._transport
    transport.post(Submission(rewards=(request("a"),)))
    started = time.monotonic()
    assert transport.fetch(Wanted(ids=(request("a").id,), wait=0.5)).done == ()
    assert 0.4 < time.monotonic() - started < 2
    threading.Timer(0.3, service.go).start()
    started = time.monotonic()
    (found,) = transport.fetch(Wanted(ids=(request("a").id,), wait=20)).done
    assert found.key == measurement_key(CARD, request("a"))
    assert time.monotonic() - started < 5


def test_a_service_out_of_reach_is_given_up_with_the_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TutelageError, match=r"is out of reach: .*; tried for 1 s\. Start it again, and the same command goes on"):
        HttpTransport(url, TOKEN, patience=1.0).describe()


def test_the_user_hears_that_a_service_is_away_and_that_it_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("protocol.http_transport._SILENT", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = Queue(CARD, Journal(tmp_path / "journal.jsonl"), most=10)
    transport = HttpTransport(f"http://127.0.0.1:{port}", TOKEN, patience=60.0)
    answers = list[object]()
    asking = threading.Thread(target=lambda: answers.append(transport.describe()))
    asking.start()
    time.sleep(0.5)
    with listening(create_app(queue, TOKEN, LARGEST), "127.0.0.1", port):
        asking.join()
    assert answers == [CARD]
    away, back = [record.getMessage() for record in caplog.records if record.name == "protocol.http_transport"]
    assert "is out of reach: " in away and "; trying for " in away
    assert back == f"the student's service http://127.0.0.1:{port} answers again"


def test_an_address_with_the_wrong_scheme_is_told_at_once(service: Service) -> None:
    with pytest.raises(InvalidInput, match="does not speak HTTPS; give the address with http://"):
        HttpTransport(service.url.replace("http:", "https:"), TOKEN).describe()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    for path in ("none.pem", "missing.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / path))
        with pytest.raises(InvalidInput, match=r"certificates cannot be read .* set SSL_CERT_FILE"):
            HttpTransport("https://127.0.0.1:1", TOKEN)


def test_a_cut_network_costs_nothing_but_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.http_transport._TIMEOUT", 0.5)
    monkeypatch.setattr("protocol.remote.LONGEST_WAIT", 0.5)
    cable = Cable(int(service.url.rpartition(":")[2]))
    exchange = RemoteExchange(HttpTransport(f"http://127.0.0.1:{cable.port}", TOKEN, patience=120.0))
    exchange.submit([request(str(number)) for number in range(20)])
    answers = exchange.completed()
    threading.Timer(0.2, service.go).start()
    answered = list(next(answers))
    cable.is_cut = True
    threading.Timer(float(os.environ.get("TUTELAGE_CUT", "2")), setattr, (cable, "is_cut", False)).start()
    answered += [result for results in answers for result in results]
    assert len({result.request for result in answered}) == len(answered) == 20
    assert service.queue.counts.rewards == 20
    cable.close()


def test_what_a_client_that_died_had_asked_for_is_there_for_the_next(service: Service) -> None:
    service.exchange()._transport.post(Submission(rewards=(request("a"), request("b"))))
    service.go()
    while service.queue.size:
        time.sleep(0.01)
    exchange = service.exchange()
    exchange.submit([request("a"), request("b")])
    assert len([result for results in exchange.completed() for result in results]) == 2
    assert len(service.student.asked) == 1
    assert service.queue.counts.repeated == 2


def test_the_clock_may_jump(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and pauses go by a clock that nobody sets."""
    service.go()
    jumps = itertools.cycle([0.0, 4e9, 1e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    exchange = service.exchange()
    exchange.submit([request("a")])
    assert len(list(exchange.completed())) == 1
