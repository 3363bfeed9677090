"""Drift: how far an update moves a student on text that has nothing to do with what it learned."""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F

from student.covariance import in_parts
from student.inner_loop import Row
from student.packing import PackedBatch, pack, packed_attention
from student.stacked import Adapter, Stack, stack_adapters

_AT_ONCE: Final = 1024
"""Tokens: the chances of every token of the vocabulary are held for each of them, twice."""


@torch.inference_mode()
def measure_drift(stack: Stack, before: Adapter, after: Adapter, texts: Sequence[Sequence[int]]) -> float:
    """The mean divergence (KL of the student before from the student after, nats per token).

    Args:
        before, after: With their scale in B.
        texts: Token ids, at least two of each.
    """
    total, tokens = 0.0, 0
    with packed_attention(stack.base.model.get_base_model()):
        for part in in_parts(texts, _AT_ONCE):
            batch = pack([[Row(list(text), list(text)) for text in part]], stack.dtype, stack.device)
            old, new = (_log_chances(stack, adapter, batch) for adapter in (before, after))
            total += float(F.kl_div(new, old, reduction="sum", log_target=True))
            tokens += len(batch.targets)
    return total / tokens


def _log_chances(stack: Stack, adapter: Adapter, batch: PackedBatch) -> torch.Tensor:
    """`(tokens, vocabulary)`."""
    with stack.routed(stack_adapters([adapter]), [1.0], batch.counts):
        logits = stack.base.model.get_base_model()(**batch.inputs).logits.squeeze(0)
    return F.log_softmax(logits.to(stack.dtype), dim=-1)
