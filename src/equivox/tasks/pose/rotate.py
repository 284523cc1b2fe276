"""From a located head to its rotation: crops that training and inference share, and the averaged answer.

A crop is a cube of ``side`` voxels about the brain's centre whose edge scales with the brain's size, so that every head
fills it alike. Outside the field of view is "unknown" (0 after normalisation), never "air".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.rotations import chordal_mean, geodesic_angle, random_rotations
from equivox.geometry.space import Volume
from equivox.nets.head_pose import soft_ball
from equivox.nets.readout import read_out
from equivox.simulate.anatomy import REFERENCE_VOLUME_ML
from equivox.tasks.pose.padding import measured_voxels

WORKING_VOXEL_MM = 3.0
WORKING_SIDE = 64
"""Cube of 192 mm about the centre: holds every turned, shifted and scaled crop ball of 64 mm."""
SMOOTHING_MM = 1.5
"""SD of the smoothing before resampling: 0.5 voxel of a 3 mm stack."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """What the rotation network sees."""

    side: int = 32
    voxel_size_mm: float = 4.0
    """For a brain of 290 mL; scaled by the cube root of the volume."""
    contrast_window: int = 7
    """Edge of the box of local contrast normalisation [voxels], odd."""
    contrast_floor: float = 0.1
    """Added to the local SD (brain = 1)."""
    raw_channel: bool = True
    """Also give the intensity itself as a second channel."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rotation of one head with what is known of its reliability."""

    rotation: Float[Tensor, "3 3"]
    """World from head."""
    singular_values: tuple[float, float, float]
    """Of the three unit axes, averaged over the views."""
    spread_deg: float
    """Mean angle of the views' answers to their mean."""
    spread_max_deg: float = 0.0
    """Largest of these angles."""


def head_cube(
    volume: Volume, center_mm: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "1 x y z"], Float[Tensor, "1 x y z"]]:
    """Cube of 64^3 voxels of 3 mm along the world axes (RAS) about a point, and its validity.

    Valid is what lies inside the field of view and not in the padding of a resampled or masked scan. Any storage order,
    handedness and voxel size; fine voxels are averaged, not skipped.
    """
    affine = torch.diag(torch.tensor([WORKING_VOXEL_MM] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = center_mm.double() - WORKING_VOXEL_MM * (WORKING_SIDE - 1) / 2
    shape = (WORKING_SIDE,) * 3
    near = _near(volume, affine)
    measured = measured_voxels(near)
    smooth = _smoothed(near)
    valid = volume.valid_on(affine, shape)[None].to(smooth.data)
    if measured is not None:
        known = Volume(measured, near.affine, near.name)
        valid = valid * known.resample(affine, shape, interpolation="nearest", padding="border").data
        smooth = replace(smooth, data=smooth.data * measured / _smoothed(known).data.clamp_min(0.05))
    cube = smooth.resample(affine, shape, padding="border").data[:1]
    return cube * valid if measured is not None else cube, valid


def size_factor(brain_volume_ml: float) -> float:
    """Linear size relative to a brain of 290 mL."""
    return (brain_volume_ml / REFERENCE_VOLUME_ML) ** (1 / 3)


def sample_crops(
    cubes: Float[Tensor, "batch channel x y z"],
    turns: Float[Tensor, "batch 3 3"],
    scales: Float[Tensor, "batch"],
    shifts_mm: Float[Tensor, "batch 3"],
    config: CropConfig,
    *,
    displacement_mm: Float[Tensor, "batch 3 a b c"] | None = None,
) -> Float[Tensor, "batch channel side side side"]:
    """Crops along turned axes: the value at crop point ``p`` is the cube's at ``shift + turn @ (scale * p)``.

    A head whose rotation in the cube is ``R`` has ``turn^T R`` in the crop. ``displacement_mm`` is added to ``p``.
    """
    side = config.side
    axis = (torch.arange(side, dtype=cubes.dtype) - (side - 1) / 2) * config.voxel_size_mm
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
    points = grid[None] if displacement_mm is None else grid[None] + displacement_mm.flatten(2)
    world = (turns.to(cubes) @ points) * scales[:, None, None].to(cubes) + shifts_mm[:, :, None].to(cubes)
    half = WORKING_VOXEL_MM * (cubes.shape[-1] - 1) / 2
    where = (world / half).mT.flip(-1).unflatten(1, (side, side, side))
    return functional.grid_sample(cubes, where, align_corners=True, padding_mode="zeros")


def scaled_by_brain(
    crops: Float[Tensor, "batch 1 x y z"], valid: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch 1 x y z"]:
    """Divide by the median of the valid voxels in the central ball (0.45 of the half-side), where the brain lies."""
    side = crops.shape[-1]
    axis = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    central = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) < 0.45**2
    inside, known = crops[:, 0, central], valid[:, 0, central] > 0.5
    median = torch.where(known, inside, torch.nan).nanmedian(dim=1).values
    median = torch.where(torch.isfinite(median) & (median > 0), median, inside.abs().mean(1).clamp_min(1e-6))
    return crops / median[:, None, None, None, None]


def network_input(
    crops: Float[Tensor, "batch 1 x y z"], valid: Float[Tensor, "batch 1 x y z"], config: CropConfig
) -> Float[Tensor, "batch channel x y z"]:
    """Channels of the network from crops with brain about 1: local contrast, then (if asked for) intensity."""
    known = (valid > 0.5).to(crops)
    contrast = local_contrast(crops, valid, window=config.contrast_window, floor=config.contrast_floor)
    window = soft_ball(config.side).to(crops) * known
    if not config.raw_channel:
        return contrast * window
    return torch.cat([contrast * window, (crops.clamp(0.0, 2.5) - 0.5) * window], dim=1)


def local_contrast(
    crops: Float[Tensor, "batch 1 x y z"], valid: Float[Tensor, "batch 1 x y z"], *, window: int, floor: float
) -> Float[Tensor, "batch 1 x y z"]:
    """Intensity less its mean in a box of ``window``^3 voxels, over the SD there plus ``floor``; clipped to +-3.

    Only voxels of the field of view count; shading and most of the contrast's scale drop out.
    """
    known = (valid > 0.5).to(crops)
    crops = crops.clamp(0.0, 5.0) * known

    def box(field: Tensor) -> Tensor:
        for axis in range(3):
            width = [window if a == axis else 1 for a in range(3)]
            field = functional.avg_pool3d(field, width, 1, [w // 2 for w in width], count_include_pad=True)
        return field

    share = box(known).clamp_min(1e-3)
    mean = box(crops) / share
    spread = (box(crops.square()) / share - mean.square()).clamp_min(0.0).sqrt()
    return ((crops - mean) / (spread + floor)).clamp(-3.0, 3.0)


def find_rotation(
    networks: Sequence[nn.Module],
    cube: Float[Tensor, "1 x y z"],
    valid: Float[Tensor, "1 x y z"],
    brain_volume_ml: float,
    config: CropConfig,
    *,
    views: int = 12,
    seed: int = 20,
) -> Answer:
    """Rotation (world from head) of the head at a cube's centre: mean over random views and networks.

    Every view turns the crop by a fixed-seed random rotation; an exactly equivariant method would give the same answer
    in each, so their spread measures interpolation and doubt.
    """
    generator = torch.Generator().manual_seed(seed)
    turns = random_rotations(views, generator=generator, dtype=torch.float32)
    both = torch.cat([cube, valid])[None].float()
    scale = torch.full((views,), size_factor(brain_volume_ml))
    crops = sample_crops(both.expand(views, -1, -1, -1, -1), turns, scale, torch.zeros(views, 3), config)
    inputs = network_input(scaled_by_brain(crops[:, :1], crops[:, 1:]), crops[:, 1:], config)
    rotations, values = [], []
    with torch.inference_mode():
        for network in networks:
            device = next(network.parameters()).device
            nine = torch.cat([network(part.to(device)).float().cpu() for part in inputs.split(4)])
            result = read_out(nine)
            rotations.append(turns @ result.rotation)
            values.append(result.singular_values)
    found = torch.cat(rotations).double()
    mean = chordal_mean(found)
    angles = torch.rad2deg(geodesic_angle(found, mean[None].expand_as(found)))
    first, second, third = torch.cat(values).mean(0).tolist()
    return Answer(mean, (first, second, third), float(angles.mean()), float(angles.max()))


def answer_confidence(answer: Answer, weights: Sequence[float]) -> float:
    """Probability that the rotation is within 30 degrees: logistic in the spread [deg] and the smallest singular value.

    ``weights`` are intercept, per degree of spread, per unit of the singular value; fitted to held-out stacks.
    """
    intercept, per_degree, per_value = weights
    logit = intercept + per_degree * min(answer.spread_deg, 60.0) + per_value * answer.singular_values[2]
    return 1.0 / (1.0 + math.exp(-max(min(logit, 30.0), -30.0)))


def _near(volume: Volume, affine: Float[Tensor, "4 4"]) -> Volume:
    """The part of a volume that the working cube can see, with a margin for smoothing; at least one voxel."""
    corner = torch.tensor([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=torch.float64)
    world = (corner * torch.tensor([WORKING_SIDE - 1.0] * 3 + [1.0])) @ affine.mT
    index = volume.voxel_from_world(world[:, :3])
    size = torch.tensor(volume.shape)
    margin = torch.tensor([math.ceil(8.0 / step) + 1 for step in volume.voxel_size_mm])
    start = torch.minimum((index.amin(0).floor().long() - margin).clamp_min(0), size - 1)
    stop = torch.maximum(torch.minimum(index.amax(0).ceil().long() + margin + 1, size), start + 1)
    return volume.crop(start.tolist(), stop.tolist())


def _smoothed(volume: Volume) -> Volume:
    """Gaussian smoothing along each voxel axis: 1.5 mm, more where voxels are finer than the working grid."""
    data = volume.data[:1, None].float()
    for axis, step in enumerate(volume.voxel_size_mm):
        sigma = math.sqrt(SMOOTHING_MM**2 + max(WORKING_VOXEL_MM**2 - step**2, 0.0) / 12) / step
        reach = max(math.ceil(3 * sigma), 1)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        pads = [0] * 6
        pads[4 - 2 * axis] = pads[5 - 2 * axis] = reach
        padded = functional.pad(data, pads, mode="replicate")
        data = functional.conv3d(padded, (kernel / kernel.sum()).reshape(shape))
    return Volume(data[0], volume.affine, volume.name)
