"""A shield: it keeps an adapter from changing what a model does with inputs that it has seen before.

The adapter of a linear layer sees its input only through `P = λ(C + λI)⁻¹`, where `C` is the uncentred covariance of the layer's inputs on
text that must go on as it does: what `C` is full of hardly passes, everything else passes whole. The product `A P` is an ordinary LoRA
matrix, so nothing is left of a shield once an adapter is trained.

Source: a soft form of null-space projection (OWM, arXiv 1810.01256; Adam-NSCL, 2103.07113; AlphaEdit, 2410.02355), on an adapter's input.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Shield:
    """`P = rest I + U diag(lifted) Uᵀ` of one layer.

    Attributes:
        directions: `U`, `(inputs, kept)`, orthonormal columns.
        lifted: `(kept,)`, how much more than `rest` passes along each.
        rest: How much passes in all other directions, in [0, 1].
    """

    directions: torch.Tensor
    lifted: torch.Tensor
    rest: float

    def __call__(self, a: torch.Tensor) -> torch.Tensor:
        """`A P`, for `A` of shape `(..., inputs)`."""
        return self.rest * a + (a @ self.directions * self.lifted) @ self.directions.T


def make_shield(covariance: torch.Tensor, left: float, kept: int | None = None) -> Shield:
    """The shield that leaves a given share of the energy of the inputs that `covariance` describes.

    Args:
        covariance: `(inputs, inputs)`.
        left: The share of `tr C` that remains of `tr PCP`, in (0, 1).
        kept: How many of the strongest directions are treated one by one; the others share their mean. None keeps all. A shield holds
            `kept * (inputs + 1)` numbers.
    """
    energies, directions = torch.linalg.eigh(covariance.double())
    energies, directions = energies.clamp(min=0).flip(0), directions.flip(1)
    if kept is not None and kept < len(energies):
        energies = torch.cat([energies[:kept], energies[kept:].mean().expand(len(energies) - kept)])
        directions = directions[:, :kept]
    if not float(energies.sum()) > 0:
        return Shield(covariance.new_zeros(len(energies), 0), covariance.new_zeros(0), 1.0)
    passing = _damp(energies, left)
    own = directions.shape[1]
    rest = float(passing[own]) if own < len(passing) else 0.0
    return Shield(directions.to(covariance.dtype), (passing[:own] - rest).to(covariance.dtype), rest)


def _damp(energies: torch.Tensor, left: float) -> torch.Tensor:
    """`λ / (energy + λ)` for the `λ` that leaves the share `left`, found by bisection."""
    low, high = -40.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        damping = torch.exp(torch.tensor(middle, dtype=energies.dtype)) * energies.mean()
        share = float(((damping / (energies + damping)) ** 2 * energies).sum() / energies.sum())
        low, high = (low, middle) if share > left else (middle, high)
    damping = torch.exp(torch.tensor(low, dtype=energies.dtype)) * energies.mean()
    return damping / (energies + damping)
