"""The fast, coarse volume that precedes a slice: the head where it is by then, with the shadow of the slice before.

A slice saturates the spins that it excites; until they have recovered, they are dark in the next image, in the head
where it has moved and outside it where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.space import Volume, grid_points_mm, isotropic_grid, sample_at

RENDER_MM = 3.0
"""The moved volume is made on this grid before it is blurred to the navigator's."""
BLUR_MM = 2.2
"""Standard deviation of the navigator's point spread (published)."""
FULL_WIDTH_FACTOR = 2.355
"""Full width at half maximum of a Gaussian over its standard deviation."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the slice before has left in the signal.

    Parameters
    ----------
    normal, point_mm
        Its plane in the world, at the time when it was acquired.
    moved
        World from world: how the head has moved since.
    sigma_mm
        Standard deviation of the shadow's profile.
    strength
        Lost share of the signal in the plane, in [0, 1].
    """

    normal: Float[Tensor, "3"]
    point_mm: Float[Tensor, "3"]
    moved: Float[Tensor, "4 4"]
    sigma_mm: float
    strength: float


def shadow_width_mm(thickness_mm: float, navigator_mm: float) -> float:
    """Profile of the shadow as published: that of a slice of the full width, widened as the navigator's voxels are."""
    return thickness_mm / FULL_WIDTH_FACTOR * (navigator_mm / RENDER_MM)


def shadow_strength(seconds_since: float, t1_seconds: float) -> float:
    """What has not recovered after some time: ``exp(-t / T1)``."""
    return math.exp(-seconds_since / t1_seconds)


def moved_mask(
    mask: Volume, motion: Float[Tensor, "4 4"], affine: Float[Tensor, "4 4"], shape: Sequence[int]
) -> Volume:
    """Labels carried along by a motion of the world, on another grid, by the nearest voxel."""
    back = torch.linalg.inv(motion)
    points = grid_points_mm(affine, shape) @ back[:3, :3].mT + back[:3, 3]
    return Volume(sample_at(mask, points, interpolation="nearest"), affine, mask.name)


def make_navigator(
    volume: Volume,
    head: Volume,
    motion: Float[Tensor, "4 4"],
    *,
    navigator_mm: float,
    noise: float,
    generator: torch.Generator,
    shadow: Shadow | None = None,
) -> Volume:
    """The volume moved, shadowed, blurred to ``navigator_mm`` voxels and noisy; on a grid along the world's axes.

    Parameters
    ----------
    volume
        At rest. All of it moves with the head, as in the published experiment.
    head
        Mask of what the slice's shadow moves with, on any grid.
    motion
        World from world: where points at rest are now.
    navigator_mm
        Voxel size.
    noise
        Standard deviation over the volume's 90th percentile (Rician).
    generator
        Draws the noise.
    shadow
        Of the slice before.
    """
    affine, shape = isotropic_grid(volume, RENDER_MM)
    points = grid_points_mm(affine, shape)
    back = torch.linalg.inv(motion)
    image = sample_at(volume, points @ back[:3, :3].mT + back[:3, 3])
    if shadow is not None:
        inside = moved_mask(head, motion, affine, shape).data > 0.5
        normal = shadow.moved[:3, :3] @ shadow.normal
        point = shadow.moved[:3, :3] @ shadow.point_mm + shadow.moved[:3, 3]
        distance = torch.where(inside[0], (points - point) @ normal, (points - shadow.point_mm) @ shadow.normal)
        lost = shadow.strength * torch.exp(-0.5 * (distance / shadow.sigma_mm) ** 2)
        image = image * (1 - lost).to(image)
    blurred = Volume(_blurred(image, BLUR_MM / RENDER_MM), affine, volume.name)
    coarse_affine, coarse_shape = isotropic_grid(volume, navigator_mm)
    coarse = blurred.resample(coarse_affine, coarse_shape)
    if noise <= 0:
        return coarse
    values = coarse.data.flatten()
    sigma = noise * float(values.kthvalue(max(1, round(0.9 * len(values)))).values)
    real, imaginary = (torch.randn(coarse.data.shape, generator=generator) * sigma for _ in range(2))
    return Volume(((coarse.data + real).square() + imaginary.square()).sqrt(), coarse_affine, volume.name)


def _blurred(image: Float[Tensor, "1 x y z"], sigma: float) -> Float[Tensor, "1 x y z"]:
    """Gaussian, sigma in voxels, border values repeated."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    field = image[None]
    for axis in range(3):
        size = [1, 1, 1]
        size[axis] = len(taps)
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        field = functional.conv3d(functional.pad(field, pad, mode="replicate"), taps.view(1, 1, *size))
    return field[0]
