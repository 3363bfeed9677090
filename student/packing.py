"""One forward pass over many sequences of different lengths, laid end to end: nothing is padded but inside attention.

A packed batch is one row of tokens. Attention alone must know where a sequence ends; transformers' attention interface hands
it the packing that the model was called with.

Source: sequence packing without cross-contamination, arXiv 2107.02027; variable-length attention, arXiv 2307.08691.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from student.inner_loop import IGNORED, Row

ATTENTION = "tutelage_packed"


@dataclass
class Packing:
    """Where sequences lie in a packed row. Tensors are on the model's device.

    Without a variable-length kernel, sequences of about the same length are padded and attended together.

    Attributes:
        ends: `(sequences + 1,)`, cumulative lengths from 0, as variable-length kernels take them.
        longest: Tokens in the longest sequence.
        groups: Of sequences padded together, the packed positions of their right-padded batch, `(sequences, longest of them)`.
            Beyond its end a sequence repeats its own last token, which causal attention keeps from all real ones.
        back: `(tokens,)`, where each token lies in the groups' flattened places, one group after the other.
    """

    ends: torch.Tensor
    longest: int
    groups: list[torch.Tensor]
    back: torch.Tensor


def make_packing(lengths: Sequence[int], device: torch.device) -> Packing:
    sizes = torch.tensor(lengths)
    ends = F.pad(sizes.cumsum(0), (1, 0))
    doublings = sizes.clamp(min=16).log2().ceil()
    groups, back, filled = [], torch.empty(int(ends[-1]), dtype=torch.int64), 0
    for doubling in doublings.unique():
        members = doublings == doubling
        starts, own = ends[:-1][members, None], sizes[members, None]
        places = torch.arange(int(own.max()))[None]
        group = starts + torch.minimum(places, own - 1)
        real = places < own
        back[group[real]] = filled + real.flatten().nonzero().squeeze(1)
        filled += group.numel()
        groups.append(group.to(device, non_blocking=True))
    return Packing(ends.to(device, torch.int32, non_blocking=True), int(sizes.max()), groups, back.to(device, non_blocking=True))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a packed row.

    Args:
        query: `(1, heads, tokens, dim)`; key and value may have fewer heads.

    Returns:
        `(1, tokens, heads, dim)` and no attention weights.
    """
    window = sliding_window if sliding_window is not None and sliding_window < packing.longest else None
    if query.is_cuda and query.element_size() == 2 and query.shape[-1] == value.shape[-1]:
        q, k, v = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
        back = -1 if window is None else window - 1
        output: Any = varlen_attn(
            q, k, v, packing.ends, packing.ends, packing.longest, packing.longest, scale=scaling, window_size=(back, 0), enable_gqa=True
        )
        return output[None], None
    outputs = []
    for group in packing.groups:
        longest = group.shape[1]
        q, k, v = (part.squeeze(0).transpose(0, 1)[group].transpose(1, 2) for part in (query, key, value))
        mask = None
        if window is not None:
            mask = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril().triu(1 - window)
        output = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[packing.back][None], None


AttentionInterface.register(ATTENTION, attend)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model takes packed batches only."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


@dataclass
class PackedBatch:
    """One step of a cohort.

    Attributes:
        counts: Tokens of each slot, in slot order; 0 for a slot that rests.
        inputs: What the model is called with; its logits are those of `targets` only.
        targets: `(labelled,)` token ids.
        weights: `(labelled,)`, one over the labelled tokens of the same slot: the sum of weighted losses is the sum of each
            slot's mean loss.
    """

    counts: list[int]
    inputs: dict[str, Any]
    targets: torch.Tensor
    weights: torch.Tensor


def pack(
    slots: Sequence[Sequence[Row]], dtype: torch.dtype, device: torch.device, weights_of_slots: Sequence[float] | None = None
) -> PackedBatch:
    """Lay the slots' rows end to end; slots may weigh more or less than 1."""
    rows = [row for slot in slots for row in slot]
    lengths = [len(row.input_ids) for row in rows]
    labels = torch.tensor([label for row in rows for label in [*row.labels[1:], IGNORED]])
    labelled = (labels != IGNORED).nonzero().squeeze(1)
    slot_weights = weights_of_slots or [1.0] * len(slots)
    shares = [weight / max(sum(row.tokens_in_loss for row in slot), 1) for slot, weight in zip(slots, slot_weights, strict=True)]
    weights = [share for slot, share in zip(slots, shares, strict=True) for row in slot for _ in range(row.tokens_in_loss)]
    inputs = {
        "input_ids": torch.tensor([[token for row in rows for token in row.input_ids]]).to(device, non_blocking=True),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device, non_blocking=True),
        "logits_to_keep": labelled.to(device, non_blocking=True),
        "packing": make_packing(lengths, device),
        "use_cache": False,
    }
    return PackedBatch(
        counts=[sum(len(row.input_ids) for row in slot) for slot in slots],
        inputs=inputs,
        targets=labels[labelled].to(device, non_blocking=True),
        weights=torch.tensor(weights, dtype=dtype).to(device, non_blocking=True),
    )
