"""What goes into a model's linear layers on some texts: the uncentred covariance of each layer's inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from student.inner_loop import IGNORED, Row
from student.packing import pack, packed_attention
from student.stacked import Adapter, Stack, stack_adapters


@torch.no_grad()
def measure_inputs(stack: Stack, adapter: Adapter, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The uncentred covariance of each layer's inputs, per token, under an adapter: `(inputs, inputs)` each.

    Args:
        adapter: With its scale in B.
        texts: Token ids. As many at once as a cohort's step has tokens.
    """
    sums = [torch.zeros(inputs, inputs, dtype=stack.dtype, device=stack.device) for inputs, _ in stack.shapes]
    model, pairs = stack.base.model.get_base_model(), stack_adapters([adapter])
    with packed_attention(model), _listening(stack, sums):
        for part in in_parts(texts, stack.base.settings.cohort_tokens):
            rows = [Row(list(text), [IGNORED] * (len(text) - 1) + [text[-1]]) for text in part]
            batch = pack([rows], stack.dtype, stack.device)
            with stack.routed(pairs, [1.0], batch.counts):
                model(**batch.inputs)
    tokens = sum(map(len, texts))
    return [total / tokens for total in sums]


def in_parts(texts: Sequence[Sequence[int]], tokens: int) -> Iterator[list[Sequence[int]]]:
    """Texts in their order, so many at once as have about so many tokens together."""
    part: list[Sequence[int]] = []
    for text in texts:
        if part and sum(map(len, part)) + len(text) > tokens:
            yield part
            part = []
        part.append(text)
    yield part


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
