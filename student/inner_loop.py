"""An inner loop: what a student trains on for one self-edit and one seed, in which order, and what it is asked afterwards.

Both engines run it: `student.single` one at a time, `student.cohort` many at once. What is decided here is the same for both.

Source: SEAL, arXiv 2506.10943, section 3.1; settings in `StudentSettings`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from protocol.errors import InnerLoopFailed
from protocol.messages import Example, Update
from protocol.prompts import tokenize
from student.base import FrozenBase
from student.footing import Footing
from student.settings import StudentSettings

IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """The update an edit asked for, completed by the student's settings and held to its limits.

    Attributes:
        learning_rate: At its highest: it rises from 0 over `warmup_steps`, and `schedule` says how it goes on.
        max_grad_norm: Gradients are clipped to this norm; 0 leaves them alone.
        tokens: If the edit asks for so many, `epochs` is settled once the rows are known.
    """

    learning_rate: float
    epochs: int
    rank: int
    batch_size: int
    loss_on: str
    schedule: str
    max_grad_norm: float
    weight_decay: float
    warmup_steps: int = 0
    tokens: int | None = None


def make_plan(update: Update, settings: StudentSettings) -> Plan:
    """Complete an edit's update.

    Raises:
        InnerLoopFailed: The edit asks for a rank above the student's limit.
    """
    rank = update.rank or settings.rank
    if rank > settings.max_rank:
        raise InnerLoopFailed(f"update.rank is {rank}, but this student allows 1 to {settings.max_rank}; raise student.max_rank")
    return Plan(
        learning_rate=update.learning_rate or settings.learning_rate,
        epochs=update.epochs or settings.epochs,
        rank=rank,
        batch_size=update.batch_size or settings.batch_size,
        loss_on=update.loss_on or settings.loss_on,
        schedule=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        tokens=update.tokens,
    )


@dataclass(frozen=True)
class Row:
    """One training sequence: token ids and labels, both `(time,)`; a label is its token's id or `IGNORED`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def tokens_in_loss(self) -> int:
        """Labelled tokens but the first, which nothing predicts."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class InnerLoop:
    """One adapter's training and questions.

    Attributes:
        seed: Decides the adapter's initial weights and the order of the rows.
        prompts: What is asked once the adapter is trained.
        answer_tokens: The longest answer.
        truncated: How many rows were cut to the longest length that the student takes, or left out.
        footing: What the adapter stands on; None for the untouched base.
        replayed: Rows of earlier lessons that are learned in each step beside its own.
        kept: Sequences on which the student should go on as the untouched base does, drawn anew for each step.
        kept_weight: Of the divergence there, in nats per token, beside the loss.
    """

    rows: tuple[Row, ...]
    plan: Plan
    seed: int
    prompts: tuple[str, ...] = ()
    answer_tokens: int = 1
    truncated: int = 0
    footing: Footing | None = None
    replayed: tuple[tuple[Row, ...], ...] = ()
    kept: tuple[tuple[Row, ...], ...] = ()
    kept_weight: float = 0.0

    @property
    def steps(self) -> int:
        return self.plan.epochs * math.ceil(len(self.rows) / self.plan.batch_size)

    @property
    def trained_tokens(self) -> int:
        """Tokens in the loss, summed over steps."""
        again = sum(row.tokens_in_loss for rows in self.replayed for row in rows)
        return self.plan.epochs * sum(row.tokens_in_loss for row in self.rows) + again

    @cached_property
    def batches(self) -> list[list[Row]]:
        """The rows of each step. Epoch `e` goes in the order that accelerate's seedable sampler draws from `seed + e`."""
        batches = []
        for epoch in range(self.plan.epochs):
            order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
            size = self.plan.batch_size
            batches += [[self.rows[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
        return [[*batch, *again] for batch, again in zip(batches, self.replayed, strict=True)] if self.replayed else batches

    def learning_rate(self, step: int) -> float:
        """At a step counted from 0, as transformers' schedulers with warm-up have it."""
        warmup = self.plan.warmup_steps
        if step < warmup:
            return self.plan.learning_rate * (step / warmup)
        done = (step - warmup) / (self.steps - warmup)
        factor = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[self.plan.schedule]
        return self.plan.learning_rate * factor


@dataclass(frozen=True)
class Adapted:
    """What came of an inner loop.

    Attributes:
        answers: One per prompt.
        trained_tokens: Tokens in the loss, summed over steps.
        seconds: Wall time; a cohort's is shared out by trained tokens.
    """

    answers: list[str]
    trained_tokens: int
    seconds: float


class Engine(Protocol):
    """How inner loops are run."""

    @property
    def name(self) -> str: ...

    def cohort_sizes(self, loops: Sequence[InnerLoop]) -> tuple[int, int]:
        """How many inner loops should be handed to `run` at once, at least and at most. It depends on loops and settings alone."""
        ...

    def run(self, loops: Sequence[InnerLoop]) -> list[Adapted | InnerLoopFailed]:
        """Train an adapter for each, ask it, forget it. One that fails does not touch the others."""
        ...


def prepare(base: FrozenBase, examples: Sequence[Example], plan: Plan, seed: int, lessons: int = 1) -> InnerLoop:
    """Encode the examples of one inner loop and hold it to the student's limits.

    Args:
        lessons: How many self-edits the examples come from; the limits are per self-edit.

    Raises:
        InnerLoopFailed: Nothing to train on, or a limit is exceeded.
    """
    longest, what_to_do = base.longest_example, base.settings.long_examples
    rows = encode(examples, base.tokenizer, plan.loss_on, base.settings.chat)
    truncated = sum(len(row.input_ids) > longest for row in rows) if what_to_do != "refuse" else 0
    if what_to_do == "truncate":
        rows = [Row(row.input_ids[:longest], row.labels[:longest]) for row in rows]
    elif what_to_do == "drop":
        rows = [row for row in rows if len(row.input_ids) <= longest]
    rows = [row for row in rows if row.tokens_in_loss]
    if plan.tokens and rows:
        plan = replace(plan, epochs=max(1, round(plan.tokens / sum(row.tokens_in_loss for row in rows))))
    loop = InnerLoop(tuple(rows), plan, seed, truncated=truncated)
    _check_limits(loop, base, lessons)
    return loop


def check_prompts(base: FrozenBase, prompts: Sequence[str], answer_tokens: int) -> None:
    """See that the model has positions for every prompt and its answer.

    Raises:
        InnerLoopFailed: One is too long.
    """
    for prompt in prompts:
        if not base.settings.chat and len(prompt.encode(errors="replace")) + answer_tokens < base.positions:
            continue  # no token is shorter than a byte
        tokens = len(tokenize(base.tokenizer, [prompt], base.settings.chat).input_ids[0]) + answer_tokens
        if tokens > base.positions:
            raise InnerLoopFailed(f"a question and its answer take {tokens} tokens, but the student has {base.positions} positions")


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, loss_on: str, chat: bool = False) -> list[Row]:
    """Token ids and labels of each example; the end-of-text token is learned, padding never is.

    Args:
        chat: Put prompts in chat. An example without one stays as it stands: nobody asks.
    """
    rows = []
    for example in examples:
        asked = chat and bool(example.prompt)
        prompt = tokenize(tokenizer, [example.prompt], asked).input_ids[0]
        if prompt and prompt[-1] == tokenizer.eos_token_id and not asked:  # tokenizers that close every text
            prompt = prompt[:-1]
        completion = [*tokenizer(example.completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        labels = [IGNORED] * len(prompt) + completion if loss_on == "completion" else prompt + completion
        rows.append(Row(prompt + completion, labels))
    return rows


def _check_limits(loop: InnerLoop, base: FrozenBase, lessons: int) -> None:
    settings, longest = base.settings, base.longest_example
    at_most = "raise student.max_example_tokens" if longest == settings.max_example_tokens else "its model has no more positions"
    if not loop.rows and loop.truncated and settings.long_examples == "drop":
        raise InnerLoopFailed(
            f"nothing to train on: examples over {longest} tokens are left out ({loop.truncated} of them), and no other has a token to "
            f"learn; {at_most}, or set student.long_examples=truncate"
        )
    if not loop.rows:
        raise InnerLoopFailed("nothing to train on: no example has a token to learn, and the context has no passage")
    tokens = max(len(row.input_ids) for row in loop.rows)
    batch = sum(sorted((len(row.input_ids) for row in loop.rows), reverse=True)[: loop.plan.batch_size])
    for what, value, limit, remedy in (
        ("examples", len(loop.rows), settings.max_examples * lessons, "raise student.max_examples"),
        ("training steps", loop.steps, settings.max_steps * lessons, "raise student.max_steps"),
        ("tokens in the largest step", batch, settings.max_step_tokens, "lower the batch size or raise student.max_step_tokens"),
        ("tokens in the longest example", tokens, longest, f"{at_most}, or set student.long_examples to truncate or drop"),
    ):
        if value > limit:
            raise InnerLoopFailed(f"{value} {what}, but this student allows {limit}; {remedy}")
