"""From a painted stack to what a scanner stores: distortion, shading, gain, dropout, ghost, noise, whole numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.simulate.scanner import Acquisition, Motion
from equivox.simulate.smooth_fields import smooth_field

SKULL_BASE_MM = (0.0, 12.0, -32.0)
"""Where air meets bone: distortion is largest there (mm of a 290 mL head)."""
SHADING_REACH_MM = 60.0
MOST_SHADING = 0.7
"""Largest logarithm of the shading away from the brain."""
STORED_LIMIT = 32767.0


def distort(
    scan: Acquisition,
    points: Float[Tensor, "3 x y z"],
    rotation: Float[Tensor, "3 3"],
    center_mm: Float[Tensor, "3"],
    scale: float,
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "3 x y z"], Float[Tensor, "x y z"]]:
    """Where each voxel's signal comes from, and how much of it there is (the Jacobian).

    A smooth displacement along the phase axis, up to ``distortion_mm`` near the skull base and a third of it elsewhere.
    """
    if scan.distortion_mm <= 0:
        return points, torch.ones_like(points[0])
    field = smooth_field(scan.shape, scan.voxel_mm, scan.distortion_sigma_mm, generator=generator)[0]
    base = (scale * rotation @ torch.tensor(SKULL_BASE_MM).double() + center_mm).to(points)
    near = torch.exp(-0.5 * ((points - base[:, None, None, None]) / 35.0).square().sum(0))
    shift = 0.5 * scan.distortion_mm * field.clamp(-2, 2) * (1 / 3 + 2 / 3 * near)
    affine = torch.tensor(scan.affine)
    axis = affine[:3, scan.phase_axis] / affine[:3, scan.phase_axis].norm()
    stretch = torch.gradient(shift, spacing=scan.voxel_mm[scan.phase_axis], dim=scan.phase_axis)[0]
    moved = points + axis.to(points)[:, None, None, None] * shift
    return moved, (1 + stretch).clamp(0.3, 2.0)


def in_plane_blur(image: Float[Tensor, "x y z"], sigma_voxels: float) -> Float[Tensor, "x y z"]:
    """Point spread within slices: a Gaussian of three taps along both in-plane axes."""
    side = math.exp(-0.5 / max(sigma_voxels, 0.05) ** 2)
    near, far = 1 / (1 + 2 * side), side / (1 + 2 * side)
    for axis in (0, 1):
        size = image.shape[axis]
        padded = torch.cat([image.narrow(axis, 0, 1), image, image.narrow(axis, size - 1, 1)], axis)
        image = near * image + far * (padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size))
    return image


def degrade(
    image: Float[Tensor, "x y z"],
    brain: Float[Tensor, "x y z"],
    about: Float[Tensor, "3 x y z"],
    rotation: Float[Tensor, "3 3"],
    scan: Acquisition,
    motion: Motion,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "x y z"]:
    """Everything after the anatomy; returns the stored whole numbers, brain's median about ``brain_level``.

    Parameters
    ----------
    image, brain
        Signal (brain about 1) and the brain's share of each voxel.
    about
        World positions relative to the brain's centre.
    rotation
        World from head.
    scan, motion
        What was drawn.
    generator
        Of the noise, on the image's device.
    """
    device = image.device
    inside = brain > 0.5
    image = image * _shading(about, inside, scan, generator=generator)
    gain = 1 + scan.slice_gain_sd * torch.randn(scan.shape[2], generator=generator, device=device)
    second = motion.second_pass.to(device)
    image = image * (gain * (1 + second * (scan.second_pass - 1)))
    for x, y, z, radius, factor in scan.dropouts:
        spot = (rotation @ torch.tensor([x, y, z], dtype=torch.float64)).to(about)
        hole = torch.exp(-0.5 * ((about - spot[:, None, None, None]) / (0.6 * radius)).square().sum(0))
        image = image * (1 - (1 - factor) * hole)
    if scan.ghost > 0:
        image = image + scan.ghost * image.roll(scan.shape[scan.phase_axis] // 2, dims=scan.phase_axis)
    level = float(image[inside].median()) if bool(inside.any()) else 1.0
    level = level if level > 0.05 else 1.0
    sigma = level / scan.noise_ratio
    noise = torch.randn(2, *image.shape, generator=generator, device=device)
    floor = level * scan.noise_floor
    image = ((image + sigma * noise[0]).square() + (sigma * noise[1]).square() + floor**2).sqrt()
    image[0], image[:, 0] = 0.0, 0.0  # as the measured stacks have it
    return (image * (scan.brain_level / level)).round().clamp(0.0, STORED_LIMIT)


def _shading(
    about: Float[Tensor, "3 x y z"], inside: Tensor, scan: Acquisition, *, generator: torch.Generator
) -> Float[Tensor, "x y z"] | float:
    """Coil shading with the drawn ratio of percentiles inside the brain, and mean 1 there."""
    if scan.bias_ratio <= 1.0 or not bool(inside.any()):
        return 1.0
    if scan.bias_sigma_mm > 0:
        field = smooth_field(scan.shape, scan.voxel_mm, scan.bias_sigma_mm, generator=generator)[0]
    else:
        field = _polynomial(about / SHADING_REACH_MM, generator)
    values = field[inside]
    low, high = (float(values.kthvalue(max(int(part * values.numel()), 1)).values) for part in (0.05, 0.95))
    field = (field - values.mean()) * (math.log(scan.bias_ratio) / max(high - low, 1e-4))
    shading = torch.exp(field.clamp(-MOST_SHADING, MOST_SHADING))
    return shading / shading[inside].mean()


def _polynomial(x: Float[Tensor, "3 x y z"], generator: torch.Generator) -> Float[Tensor, "x y z"]:
    """Random polynomial of degree 3; each degree's terms together turn with no preferred axis."""
    device = generator.device
    linear = torch.randn(3, generator=generator, device=device)
    square = 0.35 * torch.randn(3, 3, generator=generator, device=device)
    along = torch.randn(3, generator=generator, device=device)
    flat = x.flatten(1)
    total = linear @ flat + (flat * (square @ flat)).sum(0)
    total = total + 0.08 * (along @ flat) ** 3
    return total.reshape(x.shape[1:])
