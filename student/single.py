"""Inner loops one at a time, each by a stock TRL `SFTTrainer`: for what a cohort cannot hold or route, and to check it by."""

import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from protocol.errors import InnerLoopFailed
from protocol.files import confirm_checkpoint, last_whole_checkpoint
from protocol.processes import check_company, is_first_process, launched_processes
from student.answers import answer
from student.base import FrozenBase
from student.inner_loop import IGNORED, Adapted, InnerLoop, Row
from student.sft import is_out_of_memory, sft_config, training


class Single:
    """Trains in the base's own adapter."""

    name = "single"

    def __init__(self, base: FrozenBase):
        self._base = base

    def cohort_sizes(self, loops: Sequence[InnerLoop]) -> tuple[int, int]:
        return 1, 1

    def run(self, loops: Sequence[InnerLoop]) -> list[Adapted | InnerLoopFailed]:
        return [self._run(loop) for loop in loops]

    def _run(self, loop: InnerLoop) -> Adapted | InnerLoopFailed:
        started = time.perf_counter()
        try:
            trained_tokens = self.learn(loop)
        except InnerLoopFailed as failure:
            return failure
        base = self._base
        with base.ready():
            answers = answer(base.model, base.tokenizer, loop.prompts, loop.answer_tokens, base.settings.answer_batch, base.settings.chat)
        return Adapted(answers, trained_tokens, time.perf_counter() - started)

    def learn(self, loop: InnerLoop, checkpoints: Path | None = None) -> int:
        """Train one adapter and leave it in the base; returns its trained tokens. All launched processes train it together.

        Args:
            checkpoints: Where checkpoints go, from which a training that was killed goes on.

        Raises:
            InnerLoopFailed: It diverged or did not fit into memory.
        """
        base, plan, compat, processes = self._base, loop.plan, self._base.settings.seal_compat, launched_processes()
        base.reset_adapter(plan.rank, loop.seed)
        part = math.ceil(plan.batch_size / processes)
        # Rows that teach nothing fill a step up: the loss is a mean over its labelled tokens.
        empty = Row(loop.rows[0].input_ids[:1], [IGNORED])
        rows = [row for batch in loop.batches for row in (*batch, *[empty] * (part * processes - len(batch)))]
        with tempfile.TemporaryDirectory() as scratch:
            config = sft_config(
                base.device,
                str(checkpoints or scratch),
                per_device_train_batch_size=part,
                learning_rate=plan.learning_rate,
                lr_scheduler_type="constant_with_warmup" if plan.schedule == "constant" else plan.schedule,
                warmup_steps=plan.warmup_steps,
                max_grad_norm=plan.max_grad_norm,
                weight_decay=plan.weight_decay,
                seed=loop.seed % 2**32,
                deepspeed=base.settings.deepspeed,
                bf16=base.settings.deepspeed is not None and base.settings.dtype == "bfloat16",
                save_strategy="steps" if checkpoints else "no",
                save_steps=base.settings.save_every,
                save_total_limit=2,
            )
            trainer = SFTTrainer(
                model=base.model,
                args=config,
                train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
                processing_class=base.tokenizer,
                data_collator=PaddedAsPublished(base) if compat else None,
                callbacks=[ConfirmCheckpoints()],
            )
            check_company(trainer.accelerator.num_processes)
            resumed = None
            if checkpoints:  # the first process chooses where to go on, so that all go on from there
                (resumed,) = broadcast_object_list([last_whole_checkpoint(checkpoints) if is_first_process() else None])
            try:
                with training(trainer):
                    result: Any = trainer.train(resume_from_checkpoint=resumed and str(resumed))
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error) and processes == 1:
                    raise InnerLoopFailed(f"out of memory at batch size {plan.batch_size}; lower student.batch_size") from error
                raise
        if not _is_finite(result.training_loss, base.model):
            if checkpoints and is_first_process():
                shutil.rmtree(checkpoints, ignore_errors=True)
            raise InnerLoopFailed(f"training diverged (loss {result.training_loss}); lower the learning rate {plan.learning_rate}")
        return plan.epochs * len(loop.rows) * (base.settings.max_example_tokens - 1) if compat else loop.trained_tokens


class ConfirmCheckpoints(TrainerCallback):
    """A checkpoint counts once all processes have written their part of it."""

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        confirm_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}", args.distributed_state.wait_for_everyone)


class PaddedAsPublished:
    """Collates as SEAL's released code does: every sequence is padded to one length, and the padding is learned too."""

    def __init__(self, base: FrozenBase):
        self._length, self._pad = base.settings.max_example_tokens, base.tokenizer.pad_token_id

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        ids = torch.tensor([row["input_ids"] + [self._pad] * (self._length - len(row["input_ids"])) for row in rows])
        learned = torch.tensor([row["labels"] != [IGNORED] for row in rows])
        labels = torch.where(learned[:, None], ids, IGNORED)
        return {"input_ids": ids, "attention_mask": (torch.arange(self._length) < lengths[:, None]).long(), "labels": labels}


def _is_finite(loss: float, model: torch.nn.Module) -> bool:
    """Whether the loss and every trained weight are, in all processes."""
    held = [getattr(p, "ds_tensor", p) for p in model.parameters() if p.requires_grad]
    finite = torch.tensor([math.isfinite(loss) and all(bool(torch.isfinite(tensor).all()) for tensor in held)], dtype=torch.int)
    if launched_processes() > 1:
        dist.all_reduce(finite, op=dist.ReduceOp.MIN)
    return bool(finite)
