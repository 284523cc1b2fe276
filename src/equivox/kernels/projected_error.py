"""How far a projected layer is from equivariance at in-plane angles that are no symmetry of the pixels (3.6)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.so3_grids import RotationGrid
from equivox.kernels.projected import Richness, ball_basis, mix_profiles, planar_profiles
from equivox.kernels.projected_cube import cube_filters

WEIGHT_DRAWS = 24
ROTATION_DRAWS = 12
FREQUENCY_DRAWS = 192


@lru_cache(maxsize=64)
def in_plane_error(
    size: int,
    *,
    weight: Literal["ball", "cube", "cube_padded"] = "ball",
    richness: Richness = "exact",
    angle_deg: float = 45.0,
    frequency_max: float = 0.25,
    seed: int = 0,
) -> float:
    """Relative error of one layer's answer when a smooth image turns in its plane, at the turning centre.

    Root mean square of ``<k_R, f> - <k_{Rz R}, f turned>`` over plane waves ``f`` with frequencies uniform in a disc,
    random weights and random rotations ``R``, relative to that of ``<k_R, f>``. Waves are turned analytically, so that
    no interpolation of images enters.

    Parameters
    ----------
    size
        Of the filters [px].
    weight, richness
        As for :class:`equivox.nn.ProjectedConv2d`.
    angle_deg
        In-plane turn.
    frequency_max
        Of the waves [cycles / px]; 0.5 is the most that pixels hold.
    seed
        Of everything random.

    Examples
    --------
    >>> in_plane_error(9) < 0.01 < 0.3 < in_plane_error(9, weight="cube")
    True
    """
    draw = torch.Generator().manual_seed(seed)
    turn = rotation_about("z", angle_deg)
    poses = random_rotations(ROTATION_DRAWS, generator=draw)
    radius = frequency_max * torch.rand(FREQUENCY_DRAWS, generator=draw, dtype=torch.float64).sqrt()
    azimuth = 2.0 * math.pi * torch.rand(FREQUENCY_DRAWS, generator=draw, dtype=torch.float64)
    waves = torch.stack([radius * azimuth.cos(), radius * azimuth.sin()], dim=-1)
    filters = _filters(size, weight, richness, torch.cat([poses, turn @ poses]), draw)
    before = _spectrum(filters[: len(poses)], waves)
    after = _spectrum(filters[len(poses) :], waves @ turn[:2, :2].mT)
    return float(((before - after).abs().square().mean() / before.abs().square().mean()).sqrt())


def _filters(size: int, weight: str, richness: Richness, poses: Tensor, draw: torch.Generator) -> Tensor:
    """Filters (rotation, draw, y, x) of random weights."""
    if weight == "ball":
        basis = ball_basis(size, richness)
        weights = torch.randn(WEIGHT_DRAWS, basis.dimension, generator=draw, dtype=torch.float64)
        shares = torch.einsum("rpb,wb->rwp", mix_profiles(basis, poses), weights)
        return torch.einsum("yxp,rwp->rwyx", planar_profiles(basis), shares)
    cubes = torch.randn(WEIGHT_DRAWS, 1, size, size, size, generator=draw, dtype=torch.float64)
    return cube_filters(cubes, RotationGrid("drawn", poses), padded=weight == "cube_padded")[:, :, 0]


def _spectrum(filters: Tensor, waves: Tensor) -> Tensor:
    """Complex answers (rotation, draw, wave) to plane waves: any phase is a real part of them."""
    side = torch.arange(filters.shape[-1], dtype=torch.float64) - (filters.shape[-1] - 1) / 2
    y, x = torch.meshgrid(side, side, indexing="ij")
    phase = 2.0 * math.pi * (waves[:, 0, None, None] * x + waves[:, 1, None, None] * y).flatten(1)
    flat = filters.flatten(2)
    return torch.complex(flat @ phase.cos().mT, flat @ phase.sin().mT)
