"""Filters that are projections of one rotated weight in a ball (projection2d.md 3.1 to 3.4, 3.7).

The weight of a channel pair is ``W(p) = sum w_nlm phi_n(|p|) Y_lm(p / |p|)`` on the ball ``|p| <= k / 2``; the filter
of a rotation ``R`` is its image from there, ``k_R(x, y) = sum_z W(R^T (x, y, z))``. Both steps are linear, so all
filters of a layer are one constant matrix times the weights. Everything is float64; images are [y, x], pixel ``j`` of a
side of ``k`` pixels lies at ``j - (k - 1) / 2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.so3_grids import RotationGrid
from equivox.geometry.wigner import wigner_matrix

Richness = Literal["exact", "rich"]
HIGHEST_DEGREE = 6
POLAR_Z = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
"""(x, y, z) to (y, z, x): carries the library's harmonics, polar about y, to those of this file, polar about z."""


@dataclass(frozen=True, slots=True)
class BallBasis:
    """Functions on a ball: shells times spherical harmonics.

    Parameters
    ----------
    size
        Side ``k`` of the filters [px], odd.
    centers_px
        Radius of every shell.
    sigma_px
        Width of the Gaussian shells.
    taper_px
        Over this length the functions fall to zero at the ball's surface, twice differentiable.
    blocks
        (shell, degree) of every block of ``2 l + 1`` functions.
    """

    size: int
    centers_px: tuple[float, ...]
    sigma_px: float
    taper_px: float
    blocks: tuple[tuple[int, int], ...]

    @property
    def radius_px(self) -> float:
        """Of the ball: half the filter's side."""
        return self.size / 2

    @property
    def dimension(self) -> int:
        """Number of functions, that is of weights per channel pair."""
        return sum(2 * degree + 1 for _, degree in self.blocks)

    def slices(self) -> list[slice]:
        """Functions of each block."""
        start, parts = 0, []
        for _, degree in self.blocks:
            parts.append(slice(start, start + 2 * degree + 1))
            start += 2 * degree + 1
        return parts


@lru_cache(maxsize=64)
def ball_basis(size: int, richness: Richness = "exact") -> BallBasis:
    """The functions for filters of ``size`` pixels.

    Parameters
    ----------
    size
        Odd, 3 or more. Sizes 5, 7, 9, 11 have 5, 14, 46, 95 functions.
    richness
        ``"exact"``: as many angular degrees as stay within 1 % of equivariance up to a quarter of the sampling rate;
        ``"rich"``: more of them and a sharper edge, for 2 to 5 %.

    Raises
    ------
    ConfigError
        If the size is even or below 3.
    """
    if size < 3 or size % 2 == 0:
        raise ConfigError(
            f"projected filters need an odd side of at least 3 pixels, so that one lies in the centre; got {size}."
        )
    rich = richness == "rich"
    taper = 1.5 if rich else 2.0
    growth = 2.3 if rich else (1.3 if size == 7 else 1.6)
    shells = (size - 1) // 2
    last = max(size / 2 - 0.75 * taper, 0.8)
    centers = tuple(last * index / max(shells - 1, 1) for index in range(shells))
    blocks = [(0, 0)]
    for shell in range(1, shells):
        highest = min(HIGHEST_DEGREE, int(growth * centers[shell] + 1e-9))
        blocks += [(shell, degree) for degree in range(highest + 1)]
    return BallBasis(size, centers, 0.8 if size <= 7 else 1.0, taper, tuple(blocks))


def ball_functions(basis: BallBasis, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points function"]:
    """Every function at points (x, y, z) [px from the centre]; harmonics have their pole on z and m from -l to l."""
    radius = points.norm(dim=-1)
    edge = ((basis.radius_px - radius) / basis.taper_px).clamp(0.0, 1.0)
    taper = edge**3 * (10.0 - 15.0 * edge + 6.0 * edge**2)
    shells = [taper * torch.exp(-0.5 * ((radius - center) / basis.sigma_px) ** 2) for center in basis.centers_px]
    turned = points @ POLAR_Z.to(points).mT
    degrees = sorted({degree for _, degree in basis.blocks})
    harmonics = {degree: spherical_harmonics(degree, turned, normalization="integral") for degree in degrees}
    return torch.cat([shells[shell][..., None] * harmonics[degree] for shell, degree in basis.blocks], dim=-1)


def ball_projections(
    basis: BallBasis, matrices: Float[Tensor, "rotation 3 3"]
) -> Float[Tensor, "rotation y x function"]:
    """Image of every function from every rotation: plain sum over z at steps of one pixel, not normalised."""
    side = torch.arange(basis.size, dtype=torch.float64) - (basis.size - 1) / 2
    reach = math.ceil(basis.radius_px)
    depth = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x, z = torch.meshgrid(side, side, depth, indexing="ij")
    points = torch.stack([x, y, z], dim=-1)
    # R^T p as a column is p R as a row
    return torch.stack([ball_functions(basis, points @ matrix.double()).sum(dim=2) for matrix in matrices])


@lru_cache(maxsize=64)
def ball_scale(basis: BallBasis) -> Tensor:
    """What every function's images are multiplied by; callers must not write to it.

    All functions of a block share one scale, that of their joint energy, which no rotation changes; together they give
    weights N(0, s^2) filters of variance ``s^2``, the mean taken over pixels.
    """
    energy = ball_projections(basis, torch.eye(3, dtype=torch.float64)[None])[0].square().sum(dim=(0, 1))
    scale = torch.empty_like(energy)
    for part in basis.slices():
        scale[part] = energy[part].sum().rsqrt()
    return scale * math.sqrt(basis.size**2 / len(basis.blocks))


@lru_cache(maxsize=32)
def ball_matrix(basis: BallBasis, grid: RotationGrid) -> Tensor:
    """The matrix from weights to filters, (rotation, y, x, function), float64; callers must not write to it.

    With independent weights N(0, s^2) the filters' distribution is exactly the same for every rotation (3.4).
    """
    return torch.einsum("yxp,rpb->ryxb", planar_profiles(basis), profile_mixing(basis, grid)).contiguous()


@lru_cache(maxsize=32)
def planar_profiles(basis: BallBasis) -> Tensor:
    """Distinct images that all filters are mixed of, (y, x, profile): functions whose ``l + m`` is even, from the pole.

    The others have no image: they are odd under z -> -z.
    """
    kept = _visible(basis)
    return (ball_projections(basis, torch.eye(3, dtype=torch.float64)[None])[0] * ball_scale(basis))[..., kept]


@lru_cache(maxsize=32)
def profile_mixing(basis: BallBasis, grid: RotationGrid) -> Tensor:
    """:func:`mix_profiles` for a grid; callers must not write to it."""
    return mix_profiles(basis, grid.matrices)


def mix_profiles(
    basis: BallBasis, matrices: Float[Tensor, "rotation 3 3"]
) -> Float[Tensor, "rotation profile function"]:
    """How weights mix the planar profiles into the filters of each rotation: rows of Wigner matrices."""
    turn = POLAR_Z @ matrices.double().mT @ POLAR_Z.mT
    full = torch.zeros(len(matrices), basis.dimension, basis.dimension, dtype=torch.float64)
    for (_, degree), part in zip(basis.blocks, basis.slices(), strict=True):
        full[:, part, part] = wigner_matrix(degree, turn).mT  # Y(R^T p) = D(R^T) Y(p), per function a row of D
    return full[:, _visible(basis)]


def sample_ball(
    basis: BallBasis, weight: Float[Tensor, "*pairs function"], side: int | None = None
) -> Float[Tensor, "*pairs x y z"]:
    """The weights as volumes, to look at or to write as a map: voxels of one pixel, axes (x, y, z)."""
    axis = torch.arange(side or basis.size, dtype=torch.float64) - ((side or basis.size) - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    functions = ball_functions(basis, points) * ball_scale(basis)
    return torch.einsum("...b,xyzb->...xyz", weight, functions.to(weight))


def fit_ball(basis: BallBasis, volume: Float[Tensor, "x y z"]) -> Float[Tensor, "function"]:
    """Weights whose volume is nearest to a given one (least squares over the voxels of the ball).

    A known object as the first weight makes a template matcher before any training.
    """
    axes = [torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in volume.shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    inside = points.norm(dim=-1) <= basis.radius_px
    functions = ball_functions(basis, points[inside]) * ball_scale(basis)
    solution: Tensor = torch.linalg.lstsq(functions, volume.double()[inside][:, None]).solution
    return solution[:, 0].to(volume)


def _visible(basis: BallBasis) -> Tensor:
    """Numbers of the functions that project to something."""
    orders = torch.cat([torch.arange(-degree, degree + 1) + degree for _, degree in basis.blocks])
    return torch.nonzero(orders % 2 == 0)[:, 0]
