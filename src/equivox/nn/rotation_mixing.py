"""Rotations exchange what they found: a convolution over SO(3) whose kernel depends on the distance only.

``y_i = sum_j k(d(R_i, R_j)) x_j`` with rows normalised to 1. Distances are the same between any two members and between
what a symmetry makes of them, so mixing commutes exactly with every permutation of the grid (projection2d.md 2.3).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import rotation_angle
from equivox.geometry.so3_grids import RotationGrid

LARGEST_GRID = 576
"""The cost per pixel grows with the square of the number of rotations."""


class RotationMixing(nn.Module):
    """Mix the rotations of a feature map, all channels alike.

    Parameters
    ----------
    grid
        The rotations.
    bins
        Distances at which the kernel is learned, evenly from 0 to 180 degrees; linear between them.
    dtype, device
        Of the parameters.

    Attributes
    ----------
    log_kernel
        Logarithm of the kernel at every bin. At the start a rotation listens to itself almost only.

    Raises
    ------
    ConfigError
        If the grid has more than 576 rotations.
    """

    log_kernel: nn.Parameter
    _nodes: Tensor
    _share: Tensor

    def __init__(
        self,
        grid: RotationGrid,
        bins: int = 8,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.bins = bins
        start = torch.full((bins,), -6.0, dtype=dtype, device=device)
        start[0] = 0.0
        self.log_kernel = nn.Parameter(start)
        self.register_buffer("_nodes", torch.empty(0), persistent=False)
        self.register_buffer("_share", torch.empty(0), persistent=False)
        self.set_grid(grid)

    def set_grid(self, grid: RotationGrid) -> None:
        """Take other rotations; the kernel is a function of the angle and stays."""
        if len(grid) > LARGEST_GRID:
            raise ConfigError(
                f"mixing='kernel' compares every pair of rotations: {grid.name} has {len(grid)}, more than "
                f"{LARGEST_GRID}; take a smaller grid or mixing='none'."
            )
        self.grid = grid
        relative = grid.matrices[:, None].mT @ grid.matrices[None]
        place = rotation_angle(relative) / math.pi * (self.bins - 1)
        self._nodes = place.to(self.log_kernel)
        self._share = grid.weights.to(self.log_kernel)

    def matrix(self) -> Float[Tensor, "rotation rotation"]:
        """Rows say how much each rotation takes from every other; they add up to 1."""
        bins = torch.arange(self.bins, dtype=self._nodes.dtype, device=self._nodes.device)
        hats = (1.0 - (self._nodes[..., None] - bins).abs()).clamp(min=0.0)
        kernel = (hats @ self.log_kernel.to(hats)).exp() * self._share
        return kernel / kernel.sum(dim=1, keepdim=True)

    def forward(self, field: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Mix a map with channels ``r * C + c``."""
        by_rotation = field.unflatten(1, (len(self.grid), -1))
        return torch.einsum("rs,bscyx->brcyx", self.matrix().to(field.dtype), by_rotation).flatten(1, 2)

    def extra_repr(self) -> str:
        """Grid and bins."""
        return f"{self.grid.name}, bins={self.bins}"
