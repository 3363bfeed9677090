"""What may be set of the recipes that are about the machine and its models. Torch-free."""

from dataclasses import dataclass, field
from typing import Any, Literal

from recipes.base_settings import DataSettings, RecipeSettings
from student.settings import StudentSettings


@dataclass
class Pretrain(RecipeSettings):
    """Pretrain a tiny model from scratch, into the folder `output`.

    Attributes:
        by_heart: Whom a model of the tiny people knows by heart: the `population`, or as many `others`.
    """

    seed: int = 0
    by_heart: Literal["population", "others"] = "population"
    output: str = ""
    curriculum: Literal["people", "grids", "directives"] = "people"
    split_names: Literal["stem", "vowel"] = "stem"
    architecture: dict[str, Any] = field(default_factory=dict)
    steps: int = 6000
    documents_per_step: int = 16
    closed_book_per_step: int = 64
    closed_book_weight: float = 0.5
    learning_rate: float = 2e-3
    evaluate_every: int = 500
    bfloat16: bool = True
    """Autocast. A processor without instructions of its own for it is faster in float32."""


@dataclass
class BenchSubject:
    """A student to time, and its work.

    Attributes:
        student: Its model, or, with an `architecture`, the model that lends its tokenizer.
        architecture: A transformers configuration with its `model_type`; the weights are random.
        contexts: Whose good self-edits it learns; without a source, random tokens.
        candidates, alone: Inner loops timed as a cohort, and one at a time.
        rows, row_tokens, questions, answer_tokens: Of random work.
        timed_steps: Time so many steps and reckon the rest; null times all.
        sustained_flops: What the machine can do in a second, for the floor under its times; null leaves the floor out.
        growth, growth_lengths: Cohort sizes and sequence lengths to draw; empty draws nothing.
    """

    student: StudentSettings = field(default_factory=StudentSettings)
    architecture: dict[str, Any] = field(default_factory=dict)
    contexts: DataSettings = field(default_factory=DataSettings)
    candidates: int = 64
    alone: int = 2
    rows: int = 15
    row_tokens: int = 60
    questions: int = 5
    answer_tokens: int = 16
    timed_steps: int | None = 6
    sustained_flops: float | None = None
    growth: list[int] = field(default_factory=list)
    growth_lengths: list[int] = field(default_factory=lambda: [16, 64, 256])


@dataclass
class Bench(RecipeSettings):
    """Time the inner loop: a cohort against one candidate at a time.

    Attributes:
        turns: How often every method is timed; the median counts.
        padded_to: Tokens to which the published code pads.
    """

    turns: int = 3
    padded_to: int = 2048
    subjects: dict[str, BenchSubject] = field(default_factory=dict)


@dataclass
class Serve(RecipeSettings):
    """Serve a student to teachers elsewhere, over HTTP or through a shared folder.

    Attributes:
        folder: Serve requests that teachers put there, in place of HTTP; several students may serve one.
        lease_seconds: Work in a folder that a student has taken and not renewed for so long is taken over by another.
        host, port: Where to listen; port 0 takes any that is free.
        token_env: The variable that holds the token which teachers must bring. Unset, a token is made and kept in the run folder.
        tls_certificate, tls_key: Files, to listen by HTTPS.
        max_body_mb: A larger submission is refused.
        max_answers: A request that asks for more of them, questions times seeds, is refused.
        max_waiting: Requests that may wait; more are told to come back later.
        gather_seconds: For so long a request that comes alone waits for others to be trained with.
        line: A line of versions whose answers are in use: feedback about them is taken too.
    """

    student: StudentSettings = field(default_factory=StudentSettings)
    folder: str = ""
    lease_seconds: float = 60.0
    host: str = "127.0.0.1"
    port: int = 8400
    token_env: str = "TUTELAGE_TOKEN"
    tls_certificate: str | None = None
    tls_key: str | None = None
    max_body_mb: int = 16
    max_answers: int = 10_000
    max_waiting: int = 10_000
    gather_seconds: float = 0.05
    line: str = ""
