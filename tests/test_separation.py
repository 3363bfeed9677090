"""Teacher and student are apart: different tokenizers, no shared model, and only protocol messages between them."""

import gc
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch

from protocol.exchange import InProcessExchange
from protocol.messages import CommitRequest, Context, Message, Question, Refusal, Reward, RewardRequest, StudentCard, Task, VersionCard
from recipes.candidates import make_request, record_candidate
from recipes.domains import DOMAINS
from recipes.graders import GRADERS
from student.settings import StudentSettings
from student.student import Student
from teacher.policy import Policy
from teacher.settings import TeacherSettings

TASK = Task(domain="knowledge", domain_version=1, grader="contained", grader_version=1)
CONTEXT = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))


class WireExchange:
    """Sends every message through JSON, as a network would, and refuses anything else."""

    def __init__(self, student: Student):
        self._inner = InProcessExchange(student)
        self.crossed: list[str] = []

    def _cross(self, message: Message) -> Message:
        assert isinstance(message, Message)
        text = message.model_dump_json()
        self.crossed.append(type(message).__name__)
        return type(message).model_validate_json(text)

    def describe(self) -> StudentCard:
        card = self._cross(self._inner.describe())
        assert isinstance(card, StudentCard)
        return card

    def submit(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> None:
        self._inner.submit([self._cross(request) for request in requests])  # type: ignore[misc]

    def completed(self) -> Iterator[Sequence[Reward | Refusal]]:
        for results in self._inner.completed():
            yield [self._cross(result) for result in results]  # type: ignore[misc]

    def cancel(self, request_ids: Sequence[str]) -> None:
        self._inner.cancel(request_ids)

    def commit(self, request: CommitRequest) -> VersionCard:
        card = self._cross(self._inner.commit(self._cross(request)))  # type: ignore[arg-type]
        assert isinstance(card, VersionCard)
        return card


def storages(root: object) -> set[int]:
    """The memory of every tensor that can be reached from an object."""
    seen, found, pending = set(), set(), [root]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            found.add(item.untyped_storage().data_ptr())
        elif isinstance(item, torch.nn.Module):
            found |= {t.untyped_storage().data_ptr() for t in [*item.parameters(), *item.buffers()]}
        elif type(item).__module__.split(".")[0] in ("student", "teacher", "protocol", "recipes", "builtins"):
            pending += gc.get_referents(item)
    return found


def test_teacher_and_student_share_text_and_nothing_else(llama: str, olmo: str, tmp_path: Path) -> None:
    policy = Policy(TeacherSettings(model=llama, max_new_tokens=24))
    settings = StudentSettings(model=olmo, rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=4)
    student = Student(settings, DOMAINS, GRADERS, tmp_path)
    domain = DOMAINS["knowledge"]

    tokens = policy.tokenizer(CONTEXT.passage).input_ids
    assert tokens != student._base.tokenizer(CONTEXT.passage).input_ids
    assert type(policy.model) is not type(student._base.model.get_base_model())
    assert storages(policy) and storages(student)
    assert storages(policy).isdisjoint(storages(student))

    texts = policy.sample([domain.prompt(CONTEXT, "implications")] * 3, [1, 2, 3])
    assert all(isinstance(text, str) for text in texts)
    records = [record_candidate(domain, CONTEXT, text, "round-1", i, i, "implications") for i, text in enumerate(texts)]
    edits = [domain.parse("Ada plays the harp.", CONTEXT)] + [domain.parse(r.text, CONTEXT) for r in records if r.malformed is None]
    requests = [make_request(TASK, CONTEXT, edit, seed=0, repeats=range(2)) for edit in edits]

    direct, wire = InProcessExchange(student), WireExchange(student)
    results = []
    for exchange in (direct, wire):
        exchange.submit(requests)
        results.append([result.model_copy(update={"seconds": 0.0}) for some in exchange.completed() for result in some])
    assert results[0] == results[1]
    assert set(wire.crossed) == {"RewardRequest", "Reward"}
