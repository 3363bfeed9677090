"""See at start-up that a cohort trains: a silent failure would look like self-edits that teach nothing."""

import torch
import torch.nn.functional as F

from protocol.errors import TutelageError
from student.base import ADAPTER, FrozenBase
from student.cohort_trainer import packed_loss
from student.inner_loop import Row
from student.packing import pack, packed_attention
from student.sft import is_out_of_memory
from student.stacked import Stack


def check_gradients(base: FrozenBase) -> None:
    """Compare two short sequences' gradients in one cohort with those that PEFT alone gives each.

    Raises:
        NotImplementedError: The model does not take packed sequences at all.
        TutelageError: The gradients differ; nothing that this cohort trained could be trusted.
    """
    tolerance = 1e-2 if base.model.dtype.itemsize >= 4 else 0.25
    vocabulary = base.model.get_input_embeddings().num_embeddings
    tokens = torch.randint(vocabulary, (12,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [Row(tokens[:5], tokens[:5]), Row(tokens[5:], tokens[5:])]
    rank = base.settings.rank
    stack = Stack(base, rank)
    weights = stack.empty(len(rows))
    for slot in range(len(rows)):
        base.reset_adapter(rank, seed=slot)
        for layer in stack.layers:
            torch.nn.init.normal_(layer.lora_B[ADAPTER].weight, std=0.02)
        weights[slot] = stack.read_template(rank)
    weights.requires_grad_()
    try:
        with packed_attention(base.model.get_base_model()):
            batch = pack([[row] for row in rows], stack.dtype, stack.device)
            loss = packed_loss(stack, stack.pairs(weights), [stack.scale(rank)] * len(rows), batch)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise TutelageError(f"out of memory on two short sequences ({error}); take a smaller model or dtype") from error
        raise NotImplementedError(f"the model does not take packed sequences ({error})") from error
    if loss.requires_grad:
        loss.backward()
    for slot, row in enumerate(rows):
        alone = _gradients_alone(stack, weights[slot], row, rank)
        gradient = torch.zeros_like(alone) if weights.grad is None else weights.grad[slot]
        difference = float((gradient - alone).norm() / alone.norm())
        if not difference <= tolerance:  # a NaN is no small difference
            raise TutelageError(
                f"adapters of this model do not train in a cohort as they do alone: their gradients differ by {difference:.2g} "
                f"(at most {tolerance} is rounding); set student.inner_loop=single"
            )


def _gradients_alone(stack: Stack, weights: torch.Tensor, row: Row, rank: int) -> torch.Tensor:
    """By PEFT's own layers."""
    stack.write_template(weights, rank)
    ids = torch.tensor([row.input_ids], device=stack.device)
    logits = stack.base.model(input_ids=ids).logits[0, :-1]
    F.cross_entropy(logits.to(stack.dtype), ids[0, 1:]).backward()
    gradient = stack.read_template(rank, gradients=True)
    stack.base.model.zero_grad()
    return gradient
