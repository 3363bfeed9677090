"""What crosses between teacher and student: the edit schema and the reward exchange's messages.

All are frozen, bounded and versioned; unknown keys are refused. Text crosses, never tokens, so the two sides may have
different tokenizers. Lengths are in characters, costs in seconds and tokens, accuracies in [0, 1].
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from protocol.identity import content_id

PROTOCOL_VERSION: Final = 1
MOST_IN_VIEW: Final = 64
"""Passages that may be looked up for a question."""

Text = Annotated[str, StringConstraints(max_length=200_000)]
ShortText = Annotated[str, StringConstraints(max_length=10_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Accuracy = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _shorten(reason: object) -> object:
    """Whoever gives a reason may quote what was asked, which may be long."""
    return reason[:1999] + "…" if isinstance(reason, str) and len(reason) > 2000 else reason


Reason = Annotated[ShortText, BeforeValidator(_shorten)]


class Message(BaseModel):
    """Base of every message: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def id(self) -> str:
        """Equal content, equal id."""
        return content_id(type(self).__name__, self.model_dump(mode="json"))


class Passage(Message):
    """A text under its own title, as it is kept to be looked up."""

    title: ShortText = ""
    text: Text


class Question(Message):
    """One test of a context. Any of `answers` counts as right; no answers means it is asked but cannot be graded.

    Attributes:
        found: Passages that were looked up for it, the best first: they are in view when it is asked. Where there are none, the field is
            left out of what is sent and of identities.
    """

    text: ShortText
    answers: Annotated[tuple[ShortText, ...], Field(max_length=1000)] = ()
    found: Annotated[tuple[Passage, ...], Field(max_length=MOST_IN_VIEW, exclude_if=lambda found: not found)] = ()


class Demonstration(Message):
    """One solved example of a few-shot task, both sides as text (a grid as its rows)."""

    input: Text
    output: Text


class Context(Message):
    """What there is to learn from, with the questions that test it. A passage, or demonstrations, or both.

    Attributes:
        group: Contexts of one group are not independent: intervals resample groups. Empty means a group of its own. It is no part of the
            context's identity, nor of that of a request about it.
    """

    title: ShortText = ""
    passage: Text = ""
    demonstrations: Annotated[tuple[Demonstration, ...], Field(max_length=1000)] = ()
    questions: Annotated[tuple[Question, ...], Field(max_length=10_000)] = ()
    group: ShortText = ""

    @property
    def id(self) -> str:
        return content_id("Context", self.model_dump(mode="json", exclude={"group"}))

    @property
    def label(self) -> str:
        """How messages to a user name it."""
        return self.title or self.passage[:40]

    @property
    def unaided(self) -> "Context":
        """The same with nothing looked up for its questions."""
        return self.model_copy(update={"questions": tuple(question.model_copy(update={"found": ()}) for question in self.questions)})


class Example(Message):
    """One training sequence: `prompt` then `completion`. Where the loss falls is the update's `loss_on`."""

    prompt: Text = ""
    completion: Text


class Update(Message):
    """How the student trains. Whatever is None is the student's own setting; the student's limits apply.

    Attributes:
        tokens: Instead of `epochs`, as many as come nearest to so many trained tokens, and at least one.
    """

    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    loss_on: Literal["all", "completion"] | None = None

    @model_validator(mode="after")
    def _has_one_length(self) -> "Update":
        if self.epochs is not None and self.tokens is not None:
            raise ValueError(f"epochs is {self.epochs} and tokens is {self.tokens}; give one of them")
        return self


class Provenance(Message):
    """Where a self-edit comes from; it is no part of the edit's identity. `teacher` is the stage that it was written in."""

    teacher: ShortText = ""
    style: ShortText = ""
    seed: Seed | None = None


Scalar = bool | int | float | Annotated[str, StringConstraints(max_length=1000)]


class SelfEdit(Message):
    """What a teacher asks a student to learn: training examples, update settings, and directives of the domain.

    Without any examples and directives it means "train on the context alone".
    """

    examples: Annotated[tuple[Example, ...], Field(max_length=1024)] = ()
    update: Update = Update()
    directives: Annotated[dict[Name, Scalar], Field(max_length=64)] = {}
    provenance: Provenance = Provenance()

    @property
    def id(self) -> str:
        return content_id("SelfEdit", self.model_dump(mode="json", exclude={"provenance"}))


class Task(Message):
    """Which domain and which grader read a request, by name and version."""

    domain: Name
    domain_version: Annotated[int, Field(ge=1)]
    grader: Name
    grader_version: Annotated[int, Field(ge=1)]


class RewardRequest(Message):
    """Train on `edit`, answer the context's questions without the context in view (but with what was looked up for them), report, forget.

    Attributes:
        seeds: One inner loop per seed. All candidates of a context get the same seeds (common random numbers).
        probes: Contexts whose questions are asked as well, before and after, to see what else the update changed.
    """

    version: Literal[1] = PROTOCOL_VERSION
    task: Task
    context: Context
    edit: SelfEdit
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=64)]
    probes: Annotated[tuple[Context, ...], Field(max_length=64)] = ()

    @property
    def id(self) -> str:
        told = self.model_dump(mode="json", exclude={"edit": True, "context": {"group"}, "probes": {"__all__": {"group"}}})
        return content_id("RewardRequest", told, self.edit.id)


class Outcome(Message):
    """One answer, as given and as graded. `correct` is None where there is nothing to grade it against, or the grader failed: the
    verdict is missing, which is not the same as wrong.
    """

    answer: Text
    correct: bool | None
    score: Accuracy | None = None


Outcomes = tuple[Outcome, ...]


def accuracy(outcomes: Outcomes) -> float:
    """Share of graded answers that are correct; 0 where none was graded."""
    graded = [outcome.correct for outcome in outcomes if outcome.correct is not None]
    return sum(graded) / len(graded) if graded else 0.0


def graded_twice(base: Outcomes, adapted: Outcomes) -> tuple[Outcomes, Outcomes]:
    """The answers to questions that were graded both before and after."""
    pairs = [(old, new) for old, new in zip(base, adapted, strict=True) if old.correct is not None and new.correct is not None]
    return tuple(old for old, _ in pairs), tuple(new for _, new in pairs)


class Change(Message):
    """Answers to the same questions before and after an update: `adapted[repeat][question]`."""

    base: Outcomes
    adapted: tuple[Outcomes, ...]

    @property
    def is_graded(self) -> bool:
        """Whether there is a verdict before, and in every repeat after. If not, accuracies mean nothing."""
        return all(any(outcome.correct is not None for outcome in outcomes) for outcomes in (self.base, *self.adapted))

    @property
    def base_accuracy(self) -> float:
        return accuracy(self.base)

    @property
    def accuracies(self) -> list[float]:
        """After the update, one per repeat."""
        return [accuracy(outcomes) for outcomes in self.adapted]

    @property
    def adapted_accuracy(self) -> float:
        """Mean over repeats."""
        return sum(self.accuracies) / len(self.adapted)

    @property
    def gained(self) -> int:
        """Answers wrong before and right after, over all repeats."""
        return self._count(before=False)

    @property
    def lost(self) -> int:
        """Answers right before and wrong after, over all repeats."""
        return self._count(before=True)

    def _count(self, before: bool) -> int:
        pairs = [(old, new) for repeat in self.adapted for old, new in zip(self.base, repeat, strict=True)]
        return sum(old.correct is before and new.correct is (not before) for old, new in pairs)


class Reward(Message):
    """What one self-edit did to one student.

    Attributes:
        key: Identity of the measurement: student, request, and everything else that could change it.
        context, edit: Ids of what the request was about.
        value: What the teacher is paid, in [-1, 1]; the domain defines it.
        gained, lost: Answers that turned right, and that turned wrong, summed over seeds.
        seconds: Wall time of the inner loops and their answers; that of a cohort is shared out by trained tokens.
        trained_tokens: Tokens in the loss, summed over steps and seeds.
        truncated_examples: Examples that were cut to the longest length the student takes, or left out, summed over seeds.
    """

    version: Literal[1] = PROTOCOL_VERSION
    key: Id
    request: Id
    context: Id
    edit: Id
    student: Id
    value: Annotated[float, Field(ge=-1, le=1)]
    change: Change
    probes: tuple[Change, ...] = ()
    gained: Annotated[int, Field(ge=0)]
    lost: Annotated[int, Field(ge=0)]
    seeds: tuple[Seed, ...]
    seconds: Annotated[float, Field(ge=0)]
    trained_tokens: Annotated[int, Field(ge=0)]
    truncated_examples: Annotated[int, Field(ge=0)] = 0


class AskRequest(Message):
    """Answer a context's questions as the untouched base, with the passage in view or without."""

    version: Literal[1] = PROTOCOL_VERSION
    task: Task
    context: Context
    in_view: bool = False

    @property
    def id(self) -> str:
        return content_id("AskRequest", self.model_dump(mode="json", exclude={"context": {"group"}}))


class Answers(Message):
    """What the untouched base answered, one outcome per question.

    Attributes:
        read_tokens: Of all that it was asked, with what was in view; None where it was not counted.
    """

    version: Literal[1] = PROTOCOL_VERSION
    key: Id
    request: Id
    student: Id
    outcomes: Outcomes
    read_tokens: Annotated[int, Field(ge=0)] | None = None


class Refusal(Message):
    """Why there is no reward or answer for a request. `ungraded` if the self-edit is not to blame, but the grader or the student is."""

    version: Literal[1] = PROTOCOL_VERSION
    key: Id
    request: Id
    reason: Reason
    ungraded: bool = False


class Lesson(Message):
    """A context and the self-edit to learn it from, for a lasting update."""

    context: Context
    edit: SelfEdit


class CommitRequest(Message):
    """Train one lasting adapter on all lessons together."""

    version: Literal[1] = PROTOCOL_VERSION
    task: Task
    lessons: Annotated[tuple[Lesson, ...], Field(min_length=1, max_length=10_000)]
    seed: Seed

    @property
    def id(self) -> str:
        edits = [(lesson.context.id, lesson.edit.id) for lesson in self.lessons]
        return content_id("CommitRequest", self.task.model_dump(), edits, self.seed)


class VersionCard(Message):
    """A student after a lasting update.

    Attributes:
        path: Folder of the PEFT adapter or merged model, as the student sees it.
        changes: Per lesson, the answers before and after; empty answers where a context has no questions.
    """

    version: Literal[1] = PROTOCOL_VERSION
    key: Id
    request: Id
    parent: Id
    fingerprint: Id
    path: ShortText
    changes: tuple[Change, ...]
    seconds: Annotated[float, Field(ge=0)]
    trained_tokens: Annotated[int, Field(ge=0)]


class Limits(Message):
    """What a student accepts. An edit beyond them is refused, with the limit in the reason."""

    max_examples: Annotated[int, Field(ge=1)] = 256
    max_example_tokens: Annotated[int, Field(ge=1)] = 2048
    max_step_tokens: Annotated[int, Field(ge=1)] = 32768
    max_steps: Annotated[int, Field(ge=1)] = 2000
    max_rank: Annotated[int, Field(ge=1)] = 256


class StudentCard(Message):
    """Who the student is. `settings` holds everything else that decides a reward: inner loop, engine, dtype.

    `inner_loop` says in words which engine runs inner loops, and why; `domains` and `graders` are those it has, with their versions.
    """

    version: Literal[1] = PROTOCOL_VERSION
    fingerprint: Id
    model: ShortText
    limits: Limits
    settings: dict[Name, Scalar | None]
    inner_loop: ShortText = ""
    domains: dict[Name, int]
    graders: dict[Name, int] = {}

    @model_validator(mode="after")
    def _has_a_domain(self) -> "StudentCard":
        if not self.domains:
            raise ValueError("domains is empty; a student answers at least one domain")
        return self


def measurement_key(card: StudentCard, request: RewardRequest | AskRequest | CommitRequest | str) -> str:
    """The identity of a measurement, from a request or its id. The first answer under a key is the answer; it is never computed again."""
    request_id = request if isinstance(request, str) else request.id
    return content_id("measurement", card.fingerprint, card.settings, card.limits.model_dump(), request_id)
