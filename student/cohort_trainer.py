"""Train many adapters at once by TRL's `SFTTrainer`: one optimizer step moves every candidate by its own rules.

Each slot of the stack is one parameter group of AdamW, with the learning rate and weight decay of the candidate that trains
in it; gradients are clipped per slot; a resting slot has no gradient, so AdamW passes it by. All that a step needs is known
beforehand: nothing waits for the device until the end.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from trl import SFTTrainer

from protocol.errors import TutelageError
from student.footing import Ground
from student.inner_loop import InnerLoop
from student.packing import PackedBatch, pack, packed_attention
from student.sft import sft_config, training
from student.stacked import Pair, Stack

Turn = tuple[int, int]
"""An inner loop's index, and which of its own steps."""


def timetable(steps: Sequence[int], slots: int) -> list[list[Turn | None]]:
    """Who trains in which slot, step by step: the next loop takes the first slot that falls free.

    Args:
        steps: Of each loop, in order.

    Returns:
        One list of `slots` turns per step; None where the slot rests.
    """
    waiting = iter(range(len(steps)))
    present: list[Turn | None] = [None] * slots
    table: list[list[Turn | None]] = []
    while True:
        for slot, turn in enumerate(present):
            if turn is not None and turn[1] + 1 < steps[turn[0]]:
                present[slot] = (turn[0], turn[1] + 1)
            else:
                loop = next(waiting, None)
                present[slot] = None if loop is None else (loop, 0)
        if not any(present):
            return table
        table.append(list(present))


class CohortSFTTrainer(SFTTrainer):
    """One training of all `loops` in `slots` slots: `run()` gives a row per loop, `(loops, size)`."""

    def __init__(self, stack: Stack, loops: Sequence[InnerLoop], slots: int, folder: str):
        self.stack, self.loops = stack, loops
        self.trained = stack.empty(len(loops))
        self._had_gradient = torch.zeros(len(loops), dtype=torch.bool, device=stack.device)
        self._slot_had_gradient = torch.zeros(slots, dtype=torch.bool, device=stack.device)
        self._table = timetable([loop.steps for loop in loops], slots)
        self._weights, self._gradients = stack.empty(slots), stack.empty(slots)
        # The same storage twice: as slots for the optimizer, as each layer's matrices for autograd.
        self._slots = [torch.nn.Parameter(row) for row in self._weights]
        self._pairs = [
            (_leaf(a, a_gradient), _leaf(b, b_gradient))
            for (a, b), (a_gradient, b_gradient) in zip(stack.pairs(self._weights), stack.pairs(self._gradients), strict=True)
        ]
        self._present: list[Turn | None] = [None] * slots
        self._ground: Ground | None = None
        # Candidates of one context follow each other and share their seeds.
        self._initial_weights = functools.lru_cache(maxsize=8)(self._draw_initial_weights)
        config = sft_config(
            stack.device,
            folder,
            per_device_train_batch_size=1,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,  # any but 0: `_clip_grad_norm` is called
        )
        super().__init__(
            model=stack.base.model,
            args=config,
            train_dataset=Dataset.from_dict({"step": range(len(self._table))}),
            data_collator=self._collate,
            processing_class=stack.base.tokenizer,
        )

    def run(self) -> torch.Tensor:
        """Train every loop's adapter.

        Raises:
            TutelageError: No gradient arrived, or the optimizer did not move the weights that the model used.
        """
        with warnings.catch_warnings(), training(self), packed_attention(self.stack.base.model.get_base_model()):
            # Each layer's matrices lie apart, one in every slot; autograd finds that unusual.
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
            self.train()
        for slot, turn in enumerate(self._present):
            self._take_out(slot, turn)
        self._check_touched()
        return self.trained

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        groups = [{"params": [slot]} for slot in self._slots]
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, fused=True)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._seat(self._table[inputs["step"]])
        self._gradients.zero_()
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The sum of each candidate's mean loss, so that each gets the gradient that it would get alone."""
        scales = [self.stack.scale(self.loops[turn[0]].plan.rank) if turn else 1.0 for turn in self._present]
        pairs = self._ground.lay(self._pairs) if self._ground else self._pairs
        loss = packed_loss(self.stack, pairs, scales, inputs["batch"])
        if inputs["kept"] is not None:
            loss = loss + packed_divergence(self.stack, pairs, scales, inputs["kept"])
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip each slot's gradient by its own norm, as `torch.nn.utils.clip_grad_norm_` does for one model."""
        limits = [self.loops[turn[0]].plan.max_grad_norm if turn else 0.0 for turn in self._present]
        norms: torch.Tensor = torch.linalg.vector_norm(self._gradients, dim=1)
        allowed = torch.tensor(limits, dtype=norms.dtype).to(norms.device, non_blocking=True)
        factors = torch.where(allowed > 0, (allowed / (norms + 1e-6)).clamp(max=1.0), 1.0)
        self._gradients.mul_(factors[:, None])
        self._slot_had_gradient |= norms > 1e-12
        return norms.max()

    def _collate(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        (row,) = rows
        turns = self._table[row["step"]]
        slots = [self.loops[turn[0]].batches[turn[1]] if turn else [] for turn in turns]
        kept = [self.loops[turn[0]].kept[turn[1]] if turn and self.loops[turn[0]].kept else () for turn in turns]
        stack = self.stack
        return {
            "step": row["step"],
            "batch": pack(slots, stack.dtype, stack.device),
            "kept": pack(kept, stack.dtype, stack.device, [self.loops[turn[0]].kept_weight if turn else 0.0 for turn in turns])
            if any(kept)
            else None,
        }

    def _seat(self, turns: Sequence[Turn | None]) -> None:
        """Before a step: who has finished leaves, who begins gets its initial weights and ground, and everybody their learning rate."""
        seated = [turn[0] if turn else None for turn in turns]
        if seated != [turn[0] if turn else None for turn in self._present]:
            self._lay_ground([self.loops[loop] if loop is not None else None for loop in seated])
        for slot, turn in enumerate(turns):
            parameter, group = self._slots[slot], self.optimizer.param_groups[slot]
            before, self._present[slot] = self._present[slot], turn
            if turn is None or turn[1] == 0:
                self._take_out(slot, before)
                self.optimizer.state.pop(parameter, None)
            if turn is None:
                parameter.grad = None
                continue
            loop, step = self.loops[turn[0]], turn[1]
            if step == 0:
                self._weights[slot] = self._initial_weights(loop.plan.rank, loop.seed)
                self._slot_had_gradient[slot] = False
            group["lr"], group["weight_decay"] = loop.learning_rate(step), loop.plan.weight_decay
            parameter.grad = self._gradients[slot]

    def _lay_ground(self, loops: Sequence[InnerLoop | None]) -> None:
        footings = [loop.footing if loop else None for loop in loops]
        scales = [self.stack.scale(loop.plan.rank) if loop else 1.0 for loop in loops]
        self._ground = Ground(self.stack, footings, scales) if any(footings) else None

    def _take_out(self, slot: int, turn: Turn | None) -> None:
        if turn is not None:
            self.trained[turn[0]] = self._weights[slot]
            self._had_gradient[turn[0]] = self._slot_had_gradient[slot]

    def _check_touched(self) -> None:
        storages = {tensor.untyped_storage().data_ptr() for pair in self._pairs for tensor in pair}
        moved = torch.stack([b.flatten(1).any(1) for _, b in self.stack.pairs(self.trained)]).any(0)
        # An edit may ask for a learning rate that moves nothing, or end where its warm-up begins; that is its own affair.
        moving = [any(loop.learning_rate(step) > 1e-20 for step in range(loop.steps)) for loop in self.loops]
        should = self._had_gradient & torch.tensor(moving, device=moved.device)
        if storages != {self._weights.untyped_storage().data_ptr()} or not bool(self._had_gradient.any()) or bool((should & ~moved).any()):
            raise TutelageError("a cohort came out of its training untouched; set student.inner_loop=single and report the model")

    def _draw_initial_weights(self, rank: int, seed: int) -> torch.Tensor:
        self.stack.base.reset_adapter(rank, seed)
        return self.stack.read_template(rank)


def packed_loss(stack: Stack, pairs: Sequence[Pair], scales: Sequence[float], batch: PackedBatch) -> torch.Tensor:
    """The sum over slots of the mean loss (nats per token) on each slot's rows, through each slot's own adapter."""
    with stack.routed(pairs, scales, batch.counts):
        logits = stack.base.model.get_base_model()(**batch.inputs).logits.squeeze(0)
    losses = F.cross_entropy(logits.to(batch.weights.dtype), batch.targets, reduction="none")
    return (losses * batch.weights).sum()


def packed_divergence(stack: Stack, pairs: Sequence[Pair], scales: Sequence[float], batch: PackedBatch) -> torch.Tensor:
    """The sum over slots of the mean divergence (KL of the untouched base from the adapter, nats per token) on each slot's rows."""
    with torch.no_grad(), stack.base.without_adapter() as model:
        before = F.log_softmax(model.get_base_model()(**batch.inputs).logits.squeeze(0).to(batch.weights.dtype), dim=-1)
    with stack.routed(pairs, scales, batch.counts):
        after = F.log_softmax(stack.base.model.get_base_model()(**batch.inputs).logits.squeeze(0).to(batch.weights.dtype), dim=-1)
    return (F.kl_div(after, before, reduction="none", log_target=True).sum(-1) * batch.weights).sum()


def _leaf(values: torch.Tensor, gradient: torch.Tensor) -> torch.nn.Parameter:
    leaf = torch.nn.Parameter(values)
    leaf.grad = gradient
    return leaf
