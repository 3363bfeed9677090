"""What an adapter stands on while it is trained: what the student has learned before, and a shield over what it must keep.

Both are frozen. A cohort lays them under its trainable matrices: an adapter becomes `[learned; A P]` and `[learned, B]`, of a higher rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from student.shield import Shield
from student.stacked import Adapter, Pair, Stack, align


@dataclass(frozen=True)
class Footing:
    """Of one inner loop.

    Attributes:
        learned: What was learned before, with its scale in B; of rank 0 for a student that has learned nothing yet.
        shields: One of each layer; empty for none.
    """

    learned: Adapter
    shields: tuple[Shield, ...] = ()

    @property
    def rank(self) -> int:
        return self.learned[0][0].shape[0]

    def add(self, a: torch.Tensor, b: torch.Tensor, layer: int) -> Pair:
        """What is learned once a layer's trained matrices, with their scale in B, are added."""
        old_a, old_b = self.learned[layer]
        new_a = self.shields[layer](a) if self.shields else a
        return torch.cat([old_a, new_a]), torch.cat([old_b, b], dim=1)


class Ground:
    """The footings of those that train in a cohort's slots, stacked."""

    def __init__(self, stack: Stack, footings: Sequence[Footing | None], scales: Sequence[float]):
        """One for each slot; None where a slot rests, or its inner loop stands on the untouched base.

        Args:
            scales: Of each slot's adapter, by which its B is multiplied later on.
        """
        self._shields, self._learned = [], []
        rank = max((align(footing.rank) for footing in footings if footing), default=0)
        for layer, (inputs, outputs) in enumerate(stack.shapes):
            shields = [footing.shields[layer] if footing and footing.shields else None for footing in footings]
            kept = max((len(shield.lifted) for shield in shields if shield), default=0)
            directions = torch.zeros(len(footings), inputs, kept, dtype=stack.dtype, device=stack.device)
            lifted = torch.zeros(len(footings), 1, kept, dtype=stack.dtype, device=stack.device)
            rest = torch.ones(len(footings), 1, 1, dtype=stack.dtype, device=stack.device)
            a = torch.zeros(len(footings), rank, inputs, dtype=stack.dtype, device=stack.device)
            b = torch.zeros(len(footings), outputs, rank, dtype=stack.dtype, device=stack.device)
            for slot, (footing, shield, scale) in enumerate(zip(footings, shields, scales, strict=True)):
                if shield:
                    directions[slot, :, : len(shield.lifted)], lifted[slot, 0, : len(shield.lifted)] = shield.directions, shield.lifted
                    rest[slot] = shield.rest
                if footing:
                    a[slot, : footing.rank], b[slot, :, : footing.rank] = footing.learned[layer][0], footing.learned[layer][1] / scale
            self._shields.append((directions, lifted, rest) if kept else None)
            self._learned.append((a, b))

    def lay(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Trainable matrices on their ground; gradients pass."""
        laid = []
        for (a, b), shield, (old_a, old_b) in zip(pairs, self._shields, self._learned, strict=True):
            if shield is not None:
                directions, lifted, rest = shield
                a = rest * a + (a @ directions * lifted) @ directions.transpose(1, 2)
            laid.append((torch.cat([old_a, a], dim=1), torch.cat([old_b, b], dim=2)))
        return laid
