"""What goes into a model's linear layers on some texts: the uncentred covariance of each layer's inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from student.inner_loop import IGNORED, Row
from student.packing import pack, packed_attention
from student.stacked import Pair, Stack


@torch.no_grad()
def measure_inputs(stack: Stack, pairs: Sequence[Pair], rank: int, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The uncentred covariance of each layer's inputs, per token, under one adapter: `(inputs, inputs)` each.

    Args:
        pairs: The adapter, one row of a stack.
        texts: Token ids.
    """
    rows = [Row(list(text), [IGNORED] * (len(text) - 1) + [text[-1]]) for text in texts]
    batch = pack([rows], stack.dtype, stack.device)
    sums = [torch.zeros(inputs, inputs, dtype=stack.dtype, device=stack.device) for inputs, _ in stack.shapes]
    model = stack.base.model.get_base_model()
    with packed_attention(model), stack.routed(pairs, [rank], batch.counts), _listening(stack, sums):
        model(**batch.inputs)
    return [total / sum(batch.counts) for total in sums]


@contextmanager
def _listening(stack: Stack, sums: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within, what goes into each layer is added up."""

    def listen(total: torch.Tensor) -> Any:
        def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).to(total.dtype)
            total.addmm_(x.T, x)

        return add

    handles = [layer.register_forward_pre_hook(listen(total)) for layer, total in zip(stack.layers, sums, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
