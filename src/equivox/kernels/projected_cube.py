"""Filters from weights on a lattice that is turned and interpolated: the published layer, for comparison.

A cube of weights is rotated by trilinear interpolation and averaged along z; a square of weights is rotated in its
plane by bilinear interpolation. Outside lies zero, faded linearly, so that quarter turns are exact.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.so3_grids import RotationGrid

TRILINEAR_LOSS = 0.35
"""Share of the variance that interpolation leaves in a cube's filters at a generic rotation (measured)."""


def cube_filters(
    weight: Float[Tensor, "channel_out channel_in x y z"], grid: RotationGrid, *, padded: bool
) -> Float[Tensor, "rotation channel_out channel_in rows columns"]:
    """Mean over z of the cube turned by every rotation: ``k_R(x, y) = mean_z W(R^T (x, y, z))``.

    Parameters
    ----------
    weight
        One cube per channel pair.
    grid
        Rotations.
    padded
        Sum along the whole diagonal instead of the cube's own side, so that no corner is cut off in depth.
    """
    size = weight.shape[-1]
    source = _cube_points(size, grid, padded).to(device=weight.device, dtype=weight.dtype)
    volumes = weight.flatten(0, 1)[None].expand(len(grid), -1, -1, -1, -1)
    turned = functional.grid_sample(volumes, source, mode="bilinear", padding_mode="zeros", align_corners=True)
    return (turned.sum(dim=2) / size).unflatten(1, weight.shape[:2])


def square_filters(
    weight: Float[Tensor, "channel_out channel_in rows columns"], grid: RotationGrid
) -> Float[Tensor, "rotation channel_out channel_in rows columns"]:
    """The square [y, x] turned in its plane by every member: ``k_R(p) = W(R^T p)``, of turns about z and mirrors."""
    source = _square_points(weight.shape[-1], grid).to(device=weight.device, dtype=weight.dtype)
    squares = weight.flatten(0, 1)[None].expand(len(grid), -1, -1, -1)
    turned = functional.grid_sample(squares, source, mode="bilinear", padding_mode="zeros", align_corners=True)
    return turned.unflatten(1, weight.shape[:2])


@lru_cache(maxsize=16)
def _cube_points(size: int, grid: RotationGrid, padded: bool) -> Tensor:
    """Where each output voxel (rotation, z, y, x) reads the cube, in ``grid_sample``'s order: last axis first."""
    side = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    reach = math.ceil((math.sqrt(3.0) * size - 1) / 2) if padded else (size - 1) / 2
    depth = torch.arange(-reach, reach + 1, dtype=torch.float64)
    z, y, x = torch.meshgrid(depth, side, side, indexing="ij")
    points = torch.stack([x, y, z], dim=-1) / ((size - 1) / 2)
    return torch.einsum("zyxa,rab->rzyxb", points, grid.matrices).flip(-1)  # R^T p


@lru_cache(maxsize=16)
def _square_points(size: int, grid: RotationGrid) -> Tensor:
    """Where each output pixel (rotation, y, x) reads the square."""
    side = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / ((size - 1) / 2)
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.einsum("yxa,rab->ryxb", torch.stack([x, y], dim=-1), grid.matrices[:, :2, :2])


@lru_cache(maxsize=64)
def square_variance(size: int, grid: RotationGrid) -> float:
    """Share of the weights' variance that turned squares keep, mean over pixels and rotations."""
    pixels = torch.eye(size * size, dtype=torch.float64).reshape(1, size * size, size, size)
    return float(square_filters(pixels, grid).square().sum(dim=2).mean())
