"""The 29 EPI stacks as cubes about their brain marks, and training samples from them and from the simulator."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy
import torch
import torch.nn.functional as functional
from scipy import ndimage
from torch import Tensor

from equivox.geometry.rotations import random_rotations, rotation_from_quaternion
from equivox.geometry.space import Volume
from equivox.simulate.anatomy import HeadAnatomy
from equivox.simulate.config import HeadSimulation
from equivox.simulate.head import simulate_heads
from equivox.tasks.pose.rotate import CropConfig, head_cube, network_input, sample_crops, scaled_by_brain, size_factor

PRIMARY_EXCLUDES = ("landmark_asymmetry", "eye_distance_outlier")


@dataclass(frozen=True)
class Stack:
    """One real stack about its brain mark; cubes are (1, 64, 64, 64) at 3 mm in RAS."""

    id: str
    fetus: str
    fold: int
    primary: bool
    row: dict[str, str]
    cube: Tensor
    valid: Tensor
    distance: Tensor
    """To the pseudo-mask (grades A, B) or to a ball of the same volume (C), in mm, negative inside."""
    rotation: Tensor
    center_mm: Tensor
    volume_ml: float
    volume: Volume


def load_stacks(folder: Path) -> list[Stack]:
    """Read all stacks of ``folder`` (data/fetal/epi)."""
    stacks = []
    for row in csv.DictReader((folder / "poses.csv").open()):
        image = nibabel.load(folder / row["file"])
        data = torch.from_numpy(numpy.asarray(image.dataobj).astype(numpy.float32))[None]
        volume = Volume(data, torch.from_numpy(image.affine.astype(numpy.float64)), row["id"])
        center = torch.tensor([float(row[k]) for k in ("tx", "ty", "tz")], dtype=torch.float64)
        quaternion = torch.tensor([float(row[k]) for k in ("qx", "qy", "qz", "qw")], dtype=torch.float64)
        cube, valid = head_cube(volume, center)
        weeks, grade = float(row["ga_weeks"]), row["mask_grade"]
        volume_ml = 15.6 * weeks - 199.0 if grade == "C" else float(row["mask_volume_ml"])
        stacks.append(
            Stack(
                id=row["id"], fetus=row["fetus"], fold=int(row["fold"]),
                primary=not any(flag in row["flags"] for flag in PRIMARY_EXCLUDES), row=row,
                cube=cube, valid=valid, distance=_distance(folder, row, volume, center, volume_ml, cube.shape),
                rotation=rotation_from_quaternion(quaternion).float(), center_mm=center, volume_ml=volume_ml,
                volume=volume,
            )
        )  # fmt: skip
    return stacks


def _distance(
    folder: Path, row: dict[str, str], volume: Volume, center: Tensor, volume_ml: float, shape: torch.Size
) -> Tensor:
    """Signed distance to the brain on the cube's grid."""
    if row["mask_grade"] == "C":
        axis = (torch.arange(shape[-1], dtype=torch.float32) - (shape[-1] - 1) / 2) * 3.0
        radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
        return (radius - (3e3 * volume_ml / (4 * math.pi)) ** (1 / 3))[None]
    mask = nibabel.load(folder / "mask_pseudo" / f"{row['id']}_mask.nii.gz")
    data = torch.from_numpy(numpy.asarray(mask.dataobj).astype(numpy.float32))[None]
    cube, _ = head_cube(Volume(data, volume.affine, "mask"), center)
    inside = cube[0].numpy() > 0.5
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    return torch.from_numpy(distance.astype(numpy.float32) * 3.0)[None]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of what is done to crops in training."""

    shift_mm: float = 5.0
    scale_log: float = 0.1
    shading: float = 0.3
    gamma_log_sd: float = 0.3
    noise: float = 0.12
    elastic_mm: float = 3.0
    swap: float = 0.5
    raw_dropout: float = 0.25
    """Share of samples whose intensity channel is blanked, so that local contrast alone must do."""


def real_batch(
    stacks: list[Stack], count: int, config: CropConfig, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Image (brain about 1), validity and rotation of crops; a stack is drawn with (stacks of its fetus)^-1/2."""
    fetuses = [s.fetus for s in stacks]
    weight = torch.tensor([fetuses.count(f) ** -0.5 for f in fetuses])
    chosen = [stacks[i] for i in torch.multinomial(weight, count, replacement=True, generator=generator).tolist()]
    others = [stacks[i] for i in torch.multinomial(weight, count, replacement=True, generator=generator).tolist()]
    turns = random_rotations(count, generator=generator, dtype=torch.float32)
    spread = augmentation.scale_log * (2 * torch.rand(count, generator=generator) - 1)
    scales = torch.tensor([size_factor(s.volume_ml) for s in chosen]) * spread.exp()
    shifts = augmentation.shift_mm * (2 * torch.rand(count, 3, generator=generator) - 1)
    elastic = augmentation.elastic_mm * torch.rand(count, 1, 1, 1, 1, generator=generator)
    elastic = elastic * torch.randn(count, 3, 5, 5, 5, generator=generator)
    side = (config.side,) * 3
    elastic = functional.interpolate(elastic, size=side, mode="trilinear", align_corners=True)
    cubes = torch.stack([torch.cat([s.cube, s.valid, s.distance]) for s in chosen])
    crops = sample_crops(cubes, turns, scales, shifts, config, displacement_mm=elastic)
    image, valid = scaled_by_brain(crops[:, :1], crops[:, 1:2]), crops[:, 1:2]
    cubes = torch.stack([torch.cat([s.cube, s.valid]) for s in others])
    turns_other = random_rotations(count, generator=generator, dtype=torch.float32)
    scales = torch.tensor([size_factor(s.volume_ml) for s in others])
    back = sample_crops(cubes, turns_other, scales, torch.zeros(count, 3), config)
    swapped = (torch.rand(count, 1, 1, 1, 1, generator=generator) < augmentation.swap).float()
    reach = 20.0 + 12.0 * torch.rand(count, 1, 1, 1, 1, generator=generator)
    far = torch.sigmoid((crops[:, 2:3] - reach) / 3.0) * swapped
    image = image + far * (scaled_by_brain(back[:, :1], back[:, 1:2]) - image)
    valid = torch.where(far > 0.5, back[:, 1:2], valid)
    rotation = torch.stack([t.mT @ s.rotation for t, s in zip(turns, chosen, strict=True)])
    return image, valid, rotation


def simulated_batch(
    anatomy: HeadAnatomy, count: int, config: CropConfig, generator: torch.Generator, *, pitch_sd_deg: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Image (brain about 1), validity and rotation of simulated crops at the common scale."""
    heads = simulate_heads(
        count, shape=(config.side,) * 3, voxel_size_mm=config.voxel_size_mm, anatomy=anatomy,
        config=HeadSimulation(
            brain_volume_ml=(290.0, 290.0), crop_scale_log_sd=0.07, center_jitter_mm=5.0, pitch_sd_deg=pitch_sd_deg
        ),
        generator=generator,
    )  # fmt: skip
    return scaled_by_brain(heads.image, heads.valid), heads.valid, heads.rotation


def finished(
    image: Tensor, valid: Tensor, config: CropConfig, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Intensity augmentation, then the network's channels."""
    count, side = len(image), config.side
    axis = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
    slope = (
        augmentation.shading * torch.rand(count, 1, generator=generator) * torch.randn(count, 3, generator=generator)
    )
    shade = (slope @ grid).reshape(count, 1, side, side, side).clamp(-1.5, 1.5).exp()
    gamma = (augmentation.gamma_log_sd * torch.randn(count, 1, 1, 1, 1, generator=generator)).exp()
    gain = (0.1 * torch.randn(count, 1, 1, 1, 1, generator=generator)).exp()
    noise = augmentation.noise * torch.rand(count, 1, 1, 1, 1, generator=generator)
    image = (image * shade).clamp_min(0.0) ** gamma * gain
    image = image + noise * torch.randn(image.shape, generator=generator)
    channels = network_input(image, valid, config)
    if config.raw_channel and augmentation.raw_dropout:
        keep = (torch.rand(count, 1, 1, 1, generator=generator) >= augmentation.raw_dropout).float()
        channels[:, 1] = channels[:, 1] * keep
    return channels
