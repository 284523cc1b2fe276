"""Dropout of whole fields."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.layout import require_channels


class FieldDropout(nn.Module):
    """Zero whole fields at random in training: one draw per sample and irrep copy, shared by components and space.

    Parameters
    ----------
    irreps
        Channel layout.
    probability
        Chance of a field to be dropped, in [0, 1); the others are divided by ``1 - probability``.
    generator
        Source of the draws; default: torch's own.

    Raises
    ------
    ConfigError
        If the probability is outside [0, 1).
    """

    def __init__(self, irreps: IrrepsLike, probability: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ConfigError(f"dropout probability {probability} is outside [0, 1).")
        self.irreps = Irreps(irreps)
        self.probability = probability
        self.generator = generator

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Drop fields in training; the identity in evaluation or at probability 0."""
        require_channels(field, self.irreps, "FieldDropout", spatial=None)
        if not self.training or self.probability == 0.0:
            return field
        keep = field.new_empty(field.shape[0], self.irreps.multiplicity)
        keep.bernoulli_(1.0 - self.probability, generator=self.generator).div_(1.0 - self.probability)
        pieces, read = [], 0
        for multiplicity, irrep in self.irreps:
            pieces.append(keep[:, read : read + multiplicity].repeat_interleave(irrep.dimension, dim=1))
            read += multiplicity
        factor = torch.cat(pieces, dim=1)
        return field * factor.view(*factor.shape, *[1] * (field.ndim - 2))

    def extra_repr(self) -> str:
        """Layout and probability."""
        return f"{self.irreps}, probability={self.probability}"
