"""Inner loops one at a time, each by a stock TRL `SFTTrainer`: for what a cohort cannot hold or route, and to check it by."""

import math
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTTrainer

from protocol.errors import InnerLoopFailed
from student.answers import answer
from student.base import FrozenBase
from student.inner_loop import Adapted, InnerLoop
from student.sft import is_out_of_memory, sft_config, training


class Single:
    """Trains in the base's own adapter."""

    name = "single"

    def __init__(self, base: FrozenBase):
        self._base = base

    def cohort_size(self, loops: Sequence[InnerLoop]) -> int:
        return 1

    def run(self, loops: Sequence[InnerLoop]) -> list[Adapted | InnerLoopFailed]:
        return [self._run(loop) for loop in loops]

    def _run(self, loop: InnerLoop) -> Adapted | InnerLoopFailed:
        started = time.perf_counter()
        try:
            trained_tokens = self.learn(loop)
        except InnerLoopFailed as failure:
            return failure
        base = self._base
        answers = answer(base.model, base.tokenizer, loop.prompts, loop.answer_tokens, base.settings.answer_batch)
        return Adapted(answers, trained_tokens, time.perf_counter() - started)

    def learn(self, loop: InnerLoop) -> int:
        base, plan, compat = self._base, loop.plan, self._base.settings.seal_compat
        base.reset_adapter(plan.rank, loop.seed)
        rows = [{"input_ids": row.input_ids, "labels": row.labels} for row in loop.rows]
        with tempfile.TemporaryDirectory() as scratch:
            config = sft_config(
                base.device,
                scratch,
                per_device_train_batch_size=plan.batch_size,
                num_train_epochs=plan.epochs,
                learning_rate=plan.learning_rate,
                lr_scheduler_type=plan.schedule,
                max_grad_norm=plan.max_grad_norm,
                weight_decay=plan.weight_decay,
                seed=loop.seed % 2**32,
                data_seed=loop.seed,
                deepspeed=base.settings.deepspeed,
            )
            trainer = SFTTrainer(
                model=base.model,
                args=config,
                train_dataset=Dataset.from_list(rows),
                processing_class=base.tokenizer,
                data_collator=PaddedAsPublished(base) if compat else None,
            )
            try:
                with training(trainer):
                    result: Any = trainer.train()
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise InnerLoopFailed(f"out of memory at batch size {plan.batch_size}; lower student.batch_size") from error
                raise
        if not math.isfinite(result.training_loss) or not _is_finite(base.model):
            raise InnerLoopFailed(f"training diverged (loss {result.training_loss}); lower the learning rate {plan.learning_rate}")
        return plan.epochs * len(rows) * (base.settings.max_example_tokens - 1) if compat else loop.trained_tokens


class PaddedAsPublished:
    """Collates as SEAL's released code does: every sequence is padded to one length, and the padding is learned too."""

    def __init__(self, base: FrozenBase):
        self._length, self._pad = base.settings.max_example_tokens, base.tokenizer.pad_token_id

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        ids = torch.tensor([row["input_ids"] + [self._pad] * (self._length - len(row["input_ids"])) for row in rows])
        return {"input_ids": ids, "attention_mask": (torch.arange(self._length) < lengths[:, None]).long(), "labels": ids.clone()}


def _is_finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)
