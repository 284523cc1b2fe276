"""How a scene becomes an echo-planar stack: interleaved motion, shading, slice gain, dropout, noise, field of view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import rotation_from_vector
from equivox.simulate.config import HeadSimulation
from equivox.simulate.fields import chance, gaussian_fields, length, normal, uniform, unit_vectors


@dataclass(frozen=True, slots=True)
class Slices:
    """Stack geometry of each sample: the slice normal, thickness and phase."""

    normal: Float[Tensor, "count 3"]
    thickness_mm: Float[Tensor, "count 1"]
    phase: Float[Tensor, "count 1"]

    def position(self, points_mm: Float[Tensor, "count 3 points"]) -> Float[Tensor, "count points"]:
        """Fractional slice number of each point."""
        along = torch.einsum("ncp,nc->np", points_mm, self.normal)
        return along / self.thickness_mm + self.phase


def draw_slices(count: int, *, config: HeadSimulation, generator: torch.Generator) -> Slices:
    """Slice normals uniform on the sphere."""
    return Slices(
        normal=unit_vectors(count, generator=generator),
        thickness_mm=uniform(count, *config.slice_mm, generator=generator),
        phase=uniform(count, 0.0, 2.0, generator=generator),
    )


def head_points(
    points_mm: Float[Tensor, "count 3 points"],
    rotation: Float[Tensor, "count 3 3"],
    center_mm: Float[Tensor, "count 3"],
    slices: Slices,
    *,
    config: HeadSimulation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "count 3 points"], Float[Tensor, "count points"]]:
    """Head-frame position of each grid point, when odd and even slices saw the head in two poses.

    ``rotation`` and ``center_mm`` are the middle of the two poses. Between slice centres the coordinates are
    interpolated (to first order the same as interpolating the image). Also returns the share of the second pass.
    """
    count = points_mm.shape[0]
    moving = 1 - chance(count, config.still, generator=generator)
    turn = unit_vectors(count, generator=generator) * (
        0.5 * math.radians(config.pass_jump_deg) * moving * normal(count, 1.0, generator=generator).abs()
    )
    shift = unit_vectors(count, generator=generator) * (
        0.5 * config.pass_jump_mm * moving * normal(count, 1.0, generator=generator).abs()
    )
    half = rotation_from_vector(turn)
    about = points_mm - center_mm[:, :, None]
    first = (half @ rotation).mT @ (about - shift[:, :, None])
    second = (half.mT @ rotation).mT @ (about + shift[:, :, None])
    share = ((slices.position(points_mm) % 2.0) - 1.0).abs()
    return first + share[:, None] * (second - first), share


def acquire(
    image: Float[Tensor, "count points"],
    brain: Float[Tensor, "count points"],
    points_mm: Float[Tensor, "count 3 points"],
    center_mm: Float[Tensor, "count 3"],
    second_pass: Float[Tensor, "count points"],
    slices: Slices,
    *,
    shape: tuple[int, int, int],
    voxel_mm: float,
    config: HeadSimulation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "count points"], Float[Tensor, "count points"]]:
    """Shade, drop out, add noise; returns the image (brain about 1, zero outside the field of view) and validity."""
    count = image.shape[0]
    about = (points_mm - center_mm[:, :, None]) / 60.0
    image = image * _shading(about, brain, config=config, generator=generator)
    gain_sd = (
        uniform(count, math.log(config.slice_gain_sd[0]), math.log(config.slice_gain_sd[1]), generator=generator)
    ).exp()
    table = 1 + gain_sd * torch.randn(count, 256, generator=generator)
    number = (slices.position(points_mm) + 128).round().long().clamp(0, 255)
    drop = uniform(count, 0.88, 1.05, generator=generator)
    image = image * table.gather(1, number) * (1 + second_pass * (drop - 1))
    for _ in range(2):
        spot = center_mm / 60.0 + unit_vectors(count, generator=generator) * uniform(
            count, 0.5, 1.0, generator=generator
        )
        radius = uniform(count, 8.0, 20.0, generator=generator) / 60.0
        hole = torch.exp(-0.5 * (length(points_mm / 60.0 - spot[:, :, None]) / radius) ** 2)
        deep = chance(count, config.dropout, generator=generator) * uniform(count, 0.2, 0.8, generator=generator)
        image = image * (1 - deep * hole)
    # the noise of a 3 mm stack, seen on this grid: white plus a part that resampling has smeared
    smear = torch.full((count, 2), 0.75 * 3.0 / voxel_mm)
    noise = gaussian_fields(count, 2, shape, smear, generator=generator)
    sigma = uniform(count, *config.noise_sd, generator=generator)
    image = ((image + sigma * noise[:, 0]) ** 2 + (sigma * noise[:, 1]) ** 2).sqrt()
    along = torch.einsum("ncp,nc->np", points_mm - center_mm[:, :, None], slices.normal)
    valid = torch.ones_like(image)
    for sign in (1.0, -1.0):
        cut = chance(count, config.field_of_view_cut, generator=generator)
        limit = uniform(count, *config.cut_distance_mm, generator=generator) + 1e4 * (1 - cut)
        valid = valid * (sign * along <= limit).float()
    return image * valid, valid


def _shading(
    about: Float[Tensor, "count 3 points"],
    brain: Float[Tensor, "count points"],
    *,
    config: HeadSimulation,
    generator: torch.Generator,
) -> Float[Tensor, "count points"]:
    """Smooth coil shading: log-quadratic, with a drawn 95/5 ratio inside the brain and mean 1 there."""
    count = about.shape[0]
    linear = unit_vectors(count, generator=generator)
    bend = torch.randn(count, 3, 3, generator=generator) * 0.35
    field = torch.einsum("ncp,nc->np", about, linear) + torch.einsum("ncp,ncd,ndp->np", about, bend, about)
    weight = brain / brain.sum(1, keepdim=True).clamp_min(1e-6)
    mean = (weight * field).sum(1, keepdim=True)
    spread = (weight * (field - mean) ** 2).sum(1, keepdim=True).sqrt().clamp_min(1e-3)
    # inside the brain p95 - p5 of a roughly uniform spread is about 3.1 SD
    ratio = uniform(count, math.log(config.bias_ratio[0]), math.log(config.bias_ratio[1]), generator=generator)
    return torch.exp(((field - mean) / spread * ratio / 3.1).clamp(-1.6, 1.6))
