"""The inner loop: train one adapter on one set of examples, by TRL's `SFTTrainer`.

Source: SEAL, arXiv 2506.10943, section 3.1; settings in `StudentSettings`.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from protocol.errors import InnerLoopFailed
from protocol.messages import Example, Update
from student.base import FrozenBase
from student.settings import StudentSettings

IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """The update an edit asked for, completed by the student's settings and held to its limits."""

    learning_rate: float
    epochs: int
    rank: int
    batch_size: int
    loss_on: str


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
    )


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, loss_on: str) -> list[dict[str, list[int]]]:
    """Token ids and labels of each example; the end-of-text token is learned, padding never is."""
    rows = []
    for example in examples:
        prompt = tokenizer(example.prompt).input_ids
        if prompt and prompt[-1] == tokenizer.eos_token_id:  # tokenizers that close every text
            prompt = prompt[:-1]
        completion = [*tokenizer(example.completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        labels = [IGNORED] * len(prompt) + completion if loss_on == "completion" else prompt + completion
        rows.append({"input_ids": prompt + completion, "labels": labels})
    return rows


def train_adapter(base: FrozenBase, examples: Sequence[Example], plan: Plan, seed: int, lessons: int = 1) -> int:
    """Reset the base's adapter and train it.

    Args:
        lessons: How many self-edits the examples come from; the limits are per self-edit.
        seed: Decides the initial weights and the order of the examples.

    Returns:
        How many tokens were in the loss, summed over steps.

    Raises:
        InnerLoopFailed: Nothing to train on, a limit is exceeded, or the loss is not finite.
    """
    settings = base.settings
    rows = encode(examples, base.tokenizer, plan.loss_on)
    _check_limits(rows, plan, base, lessons)
    base.reset_adapter(plan.rank, seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=plan.batch_size,
            num_train_epochs=plan.epochs,
            learning_rate=plan.learning_rate,
            lr_scheduler_type=settings.schedule,
            max_grad_norm=settings.max_grad_norm,
            weight_decay=settings.weight_decay,
            seed=seed,
            use_cpu=base.device.type == "cpu",
            bf16=False,
            activation_checkpointing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(model=base.model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=base.tokenizer)
        trainer.remove_callback(PrinterCallback)
        try:
            result: Any = trainer.train()
        except torch.OutOfMemoryError as error:
            raise InnerLoopFailed(f"out of memory at batch size {plan.batch_size}; lower student.batch_size") from error
        finally:
            # SFTTrainer wraps the base model's `forward` anew each time; unwrapped, a thousand inner loops nest.
            base.model.get_base_model().__dict__.pop("forward", None)
            base.model.eval()
    if not math.isfinite(result.training_loss) or not _is_finite(base.model):
        raise InnerLoopFailed(f"training diverged (loss {result.training_loss}); lower the learning rate {plan.learning_rate}")
    return plan.epochs * sum(label != IGNORED for row in rows for label in row["labels"][1:])


def _check_limits(rows: Sequence[dict[str, list[int]]], plan: Plan, base: FrozenBase, lessons: int) -> None:
    settings = base.settings
    positions = getattr(base.model.config, "max_position_embeddings", None) or settings.max_example_tokens
    steps = plan.epochs * math.ceil(len(rows) / plan.batch_size)
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    for what, value, limit, remedy in (
        ("examples", len(rows), settings.max_examples * lessons, "raise student.max_examples"),
        ("training steps", steps, settings.max_steps * lessons, "raise student.max_steps"),
        ("tokens in the longest example", longest, settings.max_example_tokens, "raise student.max_example_tokens"),
        ("tokens in the longest example", longest, positions, "its model has no more positions"),
    ):
        if value > limit:
            raise InnerLoopFailed(f"{value} {what}, but this student allows {limit}; {remedy}")
    if not rows:
        raise InnerLoopFailed("nothing to train on: the edit has no examples and the context no passage")


def _is_finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)
