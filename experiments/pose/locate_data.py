"""Real stacks on RAS grids of 4 mm: intensity, field of view, brain mask, head marks (one cache file per stack)."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy
import torch
from torch import Tensor

from equivox.geometry.space import Volume, grid_points_mm
from equivox.tasks.pose.locate_grid import VOXEL_SIZE_MM, working_grid

GRADES_TO_TRAIN = "AB"
ELLIPSOID_MM = (43.3, 50.4, 38.0)
"""Semi-axes in frame A of a brain of 290 mL (data_mri.md 2.6), for stacks without a mask."""


@dataclass
class Stack:
    """One stack on its working grid; ``center`` is the brain mark, ``index`` fields are in 4 mm voxels."""

    id: str
    fetus: str
    fold: int
    grade: str
    primary: bool
    size: float
    image: Tensor
    valid: Tensor
    mask: Tensor
    affine: Tensor
    center_mm: Tensor
    mask_volume_ml: float

    @property
    def center_index(self) -> Tensor:
        """Brain mark in (fractional) voxels of the working grid."""
        return (self.center_mm - self.affine[:3, 3]) / VOXEL_SIZE_MM


def read(path: Path) -> Volume:
    """A stack or mask as stored."""
    image = nibabel.load(path)
    data = torch.from_numpy(numpy.asarray(image.dataobj, dtype=numpy.float32))
    return Volume(data[None], torch.from_numpy(image.affine.astype(numpy.float64)), name=path.name)


def load_stacks(shared: Path, cache: Path) -> list[Stack]:
    """All stacks of the folder, from the cache where it exists."""
    cache.mkdir(parents=True, exist_ok=True)
    stacks = []
    with (shared / "data/fetal/epi/poses.csv").open() as file:
        for row in csv.DictReader(file):
            path = cache / f"{row['id']}.pt"
            if not path.exists():
                torch.save(_make(shared / "data/fetal/epi", row), path)
            stacks.append(Stack(**torch.load(path, weights_only=True)))
    return stacks


def _make(folder: Path, row: dict[str, str]) -> dict[str, object]:
    volume = read(folder / row["file"])
    grid = working_grid(volume)
    center = torch.tensor([float(row[k]) for k in ("tx", "ty", "tz")], dtype=torch.float64)
    grade = row["mask_grade"]
    volume_ml = float(row["mask_volume_ml"])
    if grade in GRADES_TO_TRAIN:
        mask = read(folder / "mask_pseudo" / f"{row['id']}_mask.nii.gz")
        label = mask.resample(grid.affine, grid.shape).data[0]
    else:
        volume_ml = 15.6 * float(row["ga_weeks"]) - 199
        label = _ellipsoid(grid, row, center, volume_ml)
    flags = row["flags"]
    return {
        "id": row["id"],
        "fetus": row["fetus"],
        "fold": int(row["fold"]),
        "grade": grade,
        "primary": "landmark_asymmetry" not in flags and "eye_distance_outlier" not in flags,
        "size": (volume_ml / 290) ** (1 / 3),
        "image": grid.data[0],
        "valid": grid.data[1],
        "mask": label * grid.data[1],
        "affine": grid.affine,
        "center_mm": center,
        "mask_volume_ml": volume_ml,
    }


def _ellipsoid(grid: Volume, row: dict[str, str], center: Tensor, volume_ml: float) -> Tensor:
    x, y, z, w = (float(row[k]) for k in ("qx", "qy", "qz", "qw"))
    rotation = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    axes = torch.tensor(ELLIPSOID_MM, dtype=torch.float64)
    axes = axes * (volume_ml * 1000 / (4 / 3 * math.pi * float(axes.prod()))) ** (1 / 3)
    head = (grid_points_mm(grid.affine, grid.shape) - center) @ rotation
    radius = (head / axes).norm(dim=-1)
    return ((1 - radius) * 45 / 4 + 0.5).clamp(0, 1).float()
