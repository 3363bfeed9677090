"""Many LoRA adapters side by side on one frozen base, every token routed through its own.

Adapters are rows of one `(adapters, size)` tensor. PEFT's own adapter of the base is the template: it supplies the targets,
the initial weights, the scaling and the saved format.

Source: LoRA, arXiv 2106.09685; routing after the grouped kernels of Punica (arXiv 2310.18547) and S-LoRA (arXiv 2311.03285).
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear

from student.base import ADAPTER, FrozenBase

Pair = tuple[torch.Tensor, torch.Tensor]
"""One layer's matrices, A `(rank, inputs)` and B `(outputs, rank)`; stacked, `(adapters, rank, inputs)` and `(adapters, outputs, rank)`."""
Adapter = Sequence[Pair]
"""An adapter by itself, layer by layer."""


class Stack:
    """Where each layer's matrices lie in an adapter's row.

    Adapters of a lower rank are filled up with zeros, which stay zero: neither matrix passes them a gradient.

    Attributes:
        layers: The base's LoRA layers, in the model's order.
        rank: The highest rank that fits, rounded up so that grouped products are aligned.
        size: Length of a row.
    """

    def __init__(self, base: FrozenBase, rank: int):
        self.base = base
        self.layers: list[Linear] = base.lora_layers()
        self.rank = align(rank)
        self.shapes = [(layer.in_features, layer.out_features) for layer in self.layers]
        self.size = sum(self.rank * (inputs + outputs) for inputs, outputs in self.shapes)
        weight = self.layers[0].lora_A[ADAPTER].weight
        self.dtype, self.device = torch.promote_types(weight.dtype, torch.float32), weight.device

    def empty(self, adapters: int) -> torch.Tensor:
        return torch.zeros(adapters, self.size, dtype=self.dtype, device=self.device)

    def pairs(self, rows: torch.Tensor) -> list[Pair]:
        """Each layer's A and B as views of `(adapters, size)` rows."""
        pairs, start = [], 0
        for inputs, outputs in self.shapes:
            middle, end = start + self.rank * inputs, start + self.rank * (inputs + outputs)
            a = rows[:, start:middle].view(-1, self.rank, inputs)
            pairs.append((a, rows[:, middle:end].view(-1, outputs, self.rank)))
            start = end
        return pairs

    def adapter(self, row: torch.Tensor) -> Adapter:
        """A row `(size,)` as views."""
        return [(a[0], b[0]) for a, b in self.pairs(row[None])]

    @torch.no_grad()
    def read_template(self, rank: int, gradients: bool = False) -> torch.Tensor:
        """The template's present weights, or their gradients, as a row `(size,)`."""
        row = self.empty(1)
        for layer, (a, b) in zip(self.layers, self.pairs(row), strict=True):
            weights = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            first, second = (weight.grad if gradients else weight for weight in weights)
            a[0, :rank], b[0, :, :rank] = first, second
        return row[0]

    @torch.no_grad()
    def write_template(self, row: torch.Tensor, rank: int) -> None:
        """Put a row into the template, which can then answer, and be saved as a PEFT folder."""
        self.base.reset_adapter(rank, seed=0)
        for layer, (a, b) in zip(self.layers, self.pairs(row[None]), strict=True):
            layer.lora_A[ADAPTER].weight.copy_(a[0, :rank])
            layer.lora_B[ADAPTER].weight.copy_(b[0, :, :rank])

    def scale(self, rank: int) -> float:
        """What PEFT multiplies an adapter of this rank by."""
        return self.base.settings.alpha / rank

    @contextmanager
    def routed(self, pairs: Sequence[Pair], scales: Sequence[float], counts: Sequence[int]) -> Iterator[None]:
        """Within, the base's LoRA layers take their weights from `pairs`.

        Args:
            scales: What each adapter is multiplied by.
            counts: How many consecutive batch rows go to each adapter, in order; tokens, if the batch has one row.
        """
        route = _Route(counts, scales, self.device, self.dtype)
        for layer, (a, b) in zip(self.layers, pairs, strict=True):
            layer.forward = functools.partial(_forward, layer.base_layer, a, b, route)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward


def align(rank: int) -> int:
    """The next rank at which grouped products are aligned."""
    return -(-rank // 8) * 8


def stack_adapters(adapters: Sequence[Adapter]) -> list[Pair]:
    """Adapters of any rank, filled up with zeros to the highest."""
    rank = align(max(1, *(adapter[0][0].shape[0] for adapter in adapters)))
    stacked = []
    for layer in zip(*adapters, strict=True):
        a = torch.stack([torch.nn.functional.pad(a, (0, 0, 0, rank - a.shape[0])) for a, _ in layer])
        stacked.append((a, torch.stack([torch.nn.functional.pad(b, (0, rank - b.shape[1])) for _, b in layer])))
    return stacked


class _Route:
    """Which of the flattened tokens belong to which adapter."""

    def __init__(self, counts: Sequence[int], scales: Sequence[float], device: torch.device, dtype: torch.dtype):
        self._counts, self._scales, self._device, self._dtype = counts, scales, device, dtype
        self._layouts: dict[int, tuple[list[int], torch.Tensor, torch.Tensor]] = {}

    def layout(self, tokens: int) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        """Tokens per adapter, their cumulative sum `(adapters,)`, and each token's scale `(tokens, 1)`."""
        if tokens not in self._layouts:
            per_row = tokens // sum(self._counts)
            lengths = [count * per_row for count in self._counts]
            ends = torch.tensor(lengths).cumsum(0, dtype=torch.int32)
            scales = torch.tensor(self._scales, dtype=self._dtype).repeat_interleave(torch.tensor(lengths))[:, None]
            self._layouts[tokens] = lengths, ends.to(self._device, non_blocking=True), scales.to(self._device, non_blocking=True)
        return self._layouts[tokens]


def _forward(base_layer: torch.nn.Module, a: torch.Tensor, b: torch.Tensor, route: _Route, x: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The base layer's output plus every token's own `B A x`, scaled."""
    output: torch.Tensor = base_layer(x, *rest)
    # As PEFT does, adapters compute in their own precision; on a GPU in the base's, where its grouped kernels are.
    dtype = x.dtype if x.is_cuda else a.dtype
    tokens = x.reshape(-1, x.shape[-1]).to(dtype)
    lengths, ends, scales = route.layout(len(tokens))
    hidden = _grouped(tokens, a.to(dtype).transpose(1, 2), lengths, ends) * scales.to(dtype)
    delta = _grouped(hidden, b.to(dtype).transpose(1, 2), lengths, ends)
    if output.dtype == delta.dtype:
        return output.add_(delta.view(output.shape))
    return output.to(delta.dtype).add_(delta.view(output.shape)).to(output.dtype)  # three quick passes; a mixed sum is slow


def _grouped(tokens: torch.Tensor, weights: torch.Tensor, lengths: list[int], ends: torch.Tensor) -> torch.Tensor:
    """Multiply `(tokens, inputs)` group by group with `(groups, inputs, outputs)`."""
    aligned = all(size * tokens.element_size() % 16 == 0 for size in weights.shape[1:])
    if aligned and _has_grouped_product(tokens.device.type, tokens.dtype):
        return torch.nn.functional.grouped_mm(tokens, weights, offs=ends)
    return torch.cat([part @ weight for part, weight in zip(tokens.split(lengths), weights, strict=True)])


@functools.cache
def _has_grouped_product(device: str, dtype: torch.dtype) -> bool:
    """Whether this torch multiplies groups of this type here, forward and backward; on a GPU only where it has a kernel for it."""
    if device == "cuda" and (dtype != torch.bfloat16 or torch.cuda.get_device_capability() < (9, 0)):
        return False
    with torch.inference_mode(False), torch.enable_grad():  # whoever asks first
        tokens = torch.ones(4, 16, device=device, dtype=dtype, requires_grad=True)
        weights = torch.ones(2, 16, 16, device=device, dtype=dtype, requires_grad=True)
        try:
            product = torch.nn.functional.grouped_mm(tokens, weights, offs=torch.tensor([1, 4], device=device, dtype=torch.int32))
            product.backward(torch.ones_like(product))
        except (RuntimeError, NotImplementedError):
            return False
    return True
