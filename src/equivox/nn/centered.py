"""Coarser and finer grids that share their centre, for sides of any length (steerable 1.9, 4.3).

A side of ``n`` voxels becomes ``ceil(n / stride)``. Where the steps do not fill the side, the coarse voxels lie between
fine ones: odd sides keep every second voxel, even sides the midpoints of pairs. Either way the grid's symmetries stay,
nothing is padded and nothing is shifted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.nn.grids import Triple, triple
from equivox.nn.lowpass import VoxelSize, apply_bands, relative_steps


class CenteredPool3d(nn.Module):
    """Gaussian low-pass, then every ``stride``-th point of a lattice that is centred in the grid.

    On odd sides (stride 2) this is :class:`equivox.nn.BlurPool3d`. A constant stays constant up to the border.

    Parameters
    ----------
    stride
        One number or (x, y, z); an axis with 1 keeps its voxels, and is filtered if another one is pooled.
    voxel_size_mm
        Edge of a voxel, one number or (x, y, z): the filter is isotropic in mm.
    """

    def __init__(self, stride: int | Sequence[int] = 2, *, voxel_size_mm: VoxelSize = 1.0) -> None:
        super().__init__()
        self.stride: Triple = triple(stride, "stride")
        self.steps = relative_steps(voxel_size_mm)

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Filter and subsample every channel."""
        scale = max(self.stride)
        bands = [
            _weights(field, side, stride, scale, step)
            for side, stride, step in zip(field.shape[2:], self.stride, self.steps, strict=True)
        ]
        return apply_bands(field, [band / band.sum(1, keepdim=True) for band in bands])

    def extra_repr(self) -> str:
        """Stride."""
        return f"stride={self.stride}"


class CenteredUpsample3d(nn.Module):
    """Back from :class:`CenteredPool3d` to the finer grid: every coarse voxel to where it was taken.

    Every fine voxel's weights sum to 1, so a constant stays constant: no checkerboard.

    Parameters
    ----------
    stride, voxel_size_mm
        As for :class:`CenteredPool3d`; voxels of the finer grid.
    """

    def __init__(self, stride: int | Sequence[int] = 2, *, voxel_size_mm: VoxelSize = 1.0) -> None:
        super().__init__()
        self.stride: Triple = triple(stride, "stride")
        self.steps = relative_steps(voxel_size_mm)

    def forward(
        self, field: Float[Tensor, "batch channel x y z"], sides: Sequence[int]
    ) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Spread every channel over a grid of these sides, those that were pooled."""
        scale = max(self.stride)
        bands = []
        for side, stride, step in zip(sides, self.stride, self.steps, strict=True):
            band = _weights(field, side, stride, scale if stride > 1 else 1, step).mT
            bands.append(band / band.sum(1, keepdim=True))
        return apply_bands(field, bands)

    def extra_repr(self) -> str:
        """Stride."""
        return f"stride={self.stride}"


def _weights(like: Tensor, side: int, stride: int, scale: int, step: float) -> Tensor:
    """(coarse, fine): Gaussian of the low-pass about every coarse voxel, not yet normalised."""
    sigma = 0.5 * math.sqrt(scale * scale - 1.0) / step
    reach = int(int(1 + 5.0 * sigma * step) // 2 / step + 1e-9) + 0.5
    fine = torch.arange(side, dtype=torch.float64, device=like.device) - (side - 1) / 2
    count = (side + stride - 1) // stride
    coarse = (torch.arange(count, dtype=torch.float64, device=like.device) - (count - 1) / 2) * stride
    offset = fine[None, :] - coarse[:, None]
    gaussian = torch.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
    return (gaussian * (offset.abs() <= reach + 1e-6)).to(like.dtype)
