"""Spin-history bands: the dark plane that a slice excited a moment ago leaves in the next volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.run.seeds import draw_beta, draw_chance, draw_uniform

BoundaryKind = Literal["in_plane", "3d"]
"""Where a band may end: ``"in_plane"`` sees edges along array axes 1 and 2 only (published), ``"3d"`` along all."""

BandPosition = Literal["edge_heavy", "uniform"]
"""Where between two ends of the object a band lies: ``"edge_heavy"`` mostly near the ends or beyond them (published,
where the option that chooses it is called "uniform"), ``"uniform"`` anywhere between them with equal chance."""

FULL_WIDTH_FACTOR = 2.355
"""Full width at half maximum over standard deviation of a Gaussian."""
GRID_REFERENCE = 192
"""The published grid runs over ``-res n / 192 .. res n / 192``; only its ratio between axes matters."""


@dataclass(frozen=True, slots=True)
class Band:
    """One Gaussian band.

    Parameters
    ----------
    normal
        Unit vector across the band, array axes.
    point
        A point of its middle plane, voxel index (fractions allowed).
    strength
        Share of the signal that is lost in the middle; above 1 the signal turns negative.
    sigma_mm
        Standard deviation across the band.
    """

    normal: Float[Tensor, "3"]
    point: Float[Tensor, "3"]
    strength: float
    sigma_mm: float


def band_of_slice(
    normal: Float[Tensor, "3"],
    point: Float[Tensor, "3"],
    *,
    thickness_mm: float,
    seconds_since: float,
    t1_seconds: float,
    widening: float = 1.0,
) -> Band:
    """The band that a slice leaves: Gaussian profile of that full width, recovered with ``exp(-t / T1)``.

    ``widening`` is voxel size of the navigator over that of the working grid (published).
    """
    sigma_mm = thickness_mm / FULL_WIDTH_FACTOR * widening
    return Band(normal, point, math.exp(-seconds_since / t1_seconds), sigma_mm)


def published_spacing(shape: Sequence[int], voxel_size_mm: float) -> tuple[float, float, float]:
    """Voxel sizes along the axes as the published grid has them: ``linspace`` over n points stretches short axes.

    ``voxel_size_mm`` along axis 0; along axis ``a`` times ``n_a (n_0 - 1) / (n_0 (n_a - 1))``.
    """
    units = [2.0 * voxel_size_mm * size / GRID_REFERENCE / max(size - 1, 1) for size in shape]
    x, y, z = (unit / units[0] * voxel_size_mm for unit in units)
    return (x, y, z)


def apply_band(
    image: Float[Tensor, "channel x y z"], band: Band, voxel_size_mm: tuple[float, float, float]
) -> Float[Tensor, "channel x y z"]:
    """Multiply by ``1 - strength exp(-d^2 / (2 sigma^2))``, d the distance in mm from the band's middle plane."""
    distance = torch.zeros(image.shape[1:], dtype=torch.float64)
    for axis, (size, spacing) in enumerate(zip(image.shape[1:], voxel_size_mm, strict=True)):
        along = [1, 1, 1]
        along[axis] = size
        offset = (torch.arange(size, dtype=torch.float64) - float(band.point[axis])) * spacing
        distance += (float(band.normal[axis]) * offset).view(along)
    return image * (1.0 - band.strength * torch.exp(-0.5 * (distance / band.sigma_mm) ** 2)).to(image)


def object_boundary(mask: Bool[Tensor, "x y z"], kind: BoundaryKind) -> Bool[Tensor, "x y z"]:
    """Voxels of the object with background within two voxels (a 5-voxel window, in the plane or in space)."""
    outside = (~mask).float()[None, None]
    window, padding = ((1, 5, 5), (0, 2, 2)) if kind == "in_plane" else ((5, 5, 5), (2, 2, 2))
    near = functional.max_pool3d(outside, window, stride=1, padding=padding)[0, 0]
    return (near > 0.5) & mask


def draw_position(position: BandPosition, *, generator: torch.Generator) -> float:
    """Where between the two ends (0 and 1) the band lies; ``"edge_heavy"`` may leave that interval by 0.2."""
    if position == "uniform":
        return draw_uniform(0.0, 1.0, generator=generator)
    if draw_chance(0.2, generator=generator):
        beyond = draw_uniform(0.0, 0.3, generator=generator)
        return 0.1 - beyond if draw_chance(0.5, generator=generator) else 0.9 + beyond
    return 0.1 + 0.8 * draw_beta(0.2, 0.2, generator=generator)


def draw_band(
    mask: Bool[Tensor, "x y z"],
    *,
    strength: tuple[float, float],
    sigma_mm: tuple[float, float],
    boundary: BoundaryKind,
    position: BandPosition,
    generator: torch.Generator,
) -> Band | None:
    """A band across the object, between a random point of its boundary and the point farthest from it.

    Returns
    -------
    None where the mask has no boundary, or one of a single voxel.
    """
    points = object_boundary(mask, boundary).nonzero().double()
    if points.shape[0] < 2:
        return None
    first = points[int(torch.randint(points.shape[0], (), generator=generator))]
    distance = (points - first).norm(dim=1)
    second = points[int(distance.argmax())]
    share = draw_position(position, generator=generator)
    return Band(
        normal=(second - first) / distance.max(),
        point=share * first + (1.0 - share) * second,
        strength=draw_uniform(*strength, generator=generator),
        sigma_mm=draw_uniform(*sigma_mm, generator=generator),
    )
