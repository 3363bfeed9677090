"""Inner loops many at once: a cohort trains on one frozen base and is asked in one batch, and comes out as if each were alone.

How many train at once follows from a budget of tokens per step and from free memory; when memory runs out all the same, half
as many are tried.
"""

import logging
import tempfile
import time
from collections.abc import Sequence

import psutil
import torch

from protocol.errors import InnerLoopFailed
from protocol.processes import processes_on_machine
from student.answers import answer_routed
from student.base import FrozenBase
from student.cohort_trainer import CohortSFTTrainer
from student.inner_loop import Adapted, InnerLoop
from student.self_check import check_gradients
from student.sft import is_out_of_memory, release_memory
from student.stacked import Stack

logger = logging.getLogger(__name__)

LOOPS_PER_SLOT = 2
"""Inner loops in a cohort, at most, for each that trains at once: those that finish early make room for others."""


Trained = torch.Tensor | InnerLoopFailed
"""An adapter, a row of a stack; or why there is none."""


class Cohort:
    """Trains in stacked adapters. The base's own adapter is their template."""

    name = "cohort"

    def __init__(self, base: FrozenBase):
        self._base = base
        self._at_most: int | None = None
        check_gradients(base)

    def cohort_sizes(self, loops: Sequence[InnerLoop]) -> tuple[int, int]:
        slots = slots_by_budget(loops, self._base)
        return slots, LOOPS_PER_SLOT * slots

    def run(self, loops: Sequence[InnerLoop]) -> list[Adapted | InnerLoopFailed]:
        started = time.perf_counter()
        stack, trained = self.train(loops)
        rows = {i: row for i, row in enumerate(trained) if not isinstance(row, InnerLoopFailed)}
        asked = [loops[i] for i in rows]
        given = answer_routed(
            stack,
            [stack.adapter(row) for row in rows.values()],
            [stack.scale(loop.plan.rank) for loop in asked],
            [loop.prompts for loop in asked],
            [loop.answer_tokens for loop in asked],
        )
        answers = dict(zip(rows, given, strict=True))
        seconds = (time.perf_counter() - started) / max(sum(loops[i].trained_tokens for i in rows), 1)
        return [
            row if isinstance(row, InnerLoopFailed) else Adapted(answers[i], loop.trained_tokens, seconds * loop.trained_tokens)
            for i, (loop, row) in enumerate(zip(loops, trained, strict=True))
        ]

    def train(self, loops: Sequence[InnerLoop]) -> tuple[Stack, list[Trained]]:
        """The trained adapter of each loop. Who fails is taken out, and the others train again as if it had never been there."""
        results: dict[int, Trained] = {}
        while True:
            left = [i for i in range(len(loops)) if not isinstance(results.get(i), InnerLoopFailed)]
            stack = Stack(self._base, max((loops[i].plan.rank for i in left), default=1))
            trained = self._train_in_slots(stack, [loops[i] for i in left]) if left else []
            results |= dict(zip(left, trained, strict=True))
            if not any(isinstance(row, InnerLoopFailed) for row in trained):
                return stack, [results[i] for i in range(len(loops))]

    def _train_in_slots(self, stack: Stack, loops: Sequence[InnerLoop]) -> list[Trained]:
        release_memory()  # what the last cohort left would be counted as taken
        slots = self._slots(stack, loops)
        try:
            with tempfile.TemporaryDirectory() as folder:
                trained = CohortSFTTrainer(stack, loops, slots, folder).run()
            return [_check_finite(loop, row) for loop, row in zip(loops, trained, strict=True)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if len(loops) == 1:
            self._at_most = None  # it is this one that is too large
            batch_size = loops[0].plan.batch_size
            return [InnerLoopFailed(f"out of memory with one self-edit at batch size {batch_size}; lower student.batch_size")]
        if slots == 1:
            return [self._train_in_slots(stack, [loop])[0] for loop in loops]
        self._at_most = slots // 2
        logger.warning("out of memory with %d self-edits at once; going on with %d (student.cohort sets it)", slots, self._at_most)
        return self._train_in_slots(stack, loops)

    def _slots(self, stack: Stack, loops: Sequence[InnerLoop]) -> int:
        slots = slots_by_budget(loops, self._base)
        if self._base.settings.cohort is None:
            slots = min(slots, slots_by_memory(stack, self._base))
        return max(1, min(slots, self._at_most or slots, len(loops)))


def slots_by_budget(loops: Sequence[InnerLoop], base: FrozenBase) -> int:
    """How many of these train at once: `student.cohort`, or what `student.cohort_tokens` allows at their mean length."""
    if base.settings.cohort is not None:
        return base.settings.cohort
    tokens = sum(len(row.input_ids) for loop in loops for row in loop.rows)
    batches = sum(loop.steps / loop.plan.epochs for loop in loops)
    return max(1, int(base.settings.cohort_tokens * batches / max(tokens, 1)))


def slots_by_memory(stack: Stack, base: FrozenBase) -> int:
    """How many adapters fit into free memory, by a rough count of bytes: running out is caught anyway."""
    free = free_memory(stack.device)
    config = base.model.config.get_text_config()
    per_token = config.num_hidden_layers * (
        16 * config.hidden_size + 6 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    )
    activations = base.settings.cohort_tokens * (per_token * base.model.dtype.itemsize + 12 * config.vocab_size)
    # Weights, gradients and two moments of a slot, and the results of the loops that pass through it.
    per_slot = (4 + LOOPS_PER_SLOT) * stack.size * stack.dtype.itemsize
    return max(1, int((0.8 * free - activations) // per_slot))


def free_memory(device: torch.device) -> int:
    """In bytes, with what torch holds in reserve; of the machine's memory each of its processes has a part."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available // processes_on_machine()


def _check_finite(loop: InnerLoop, row: torch.Tensor) -> Trained:
    if bool(torch.isfinite(row).all()):
        return row
    return InnerLoopFailed(f"training diverged; lower the learning rate {loop.plan.learning_rate}")
