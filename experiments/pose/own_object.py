"""An object of our own, simulated: a two-bladed propeller on a tapered hub, with noise, in scans of random pose.

    python experiments/pose/own_object.py --out object

Writes what `equivox pose train` reads (training/ and validation/ with img and lab, annotations.csv) and scans that took
no part in it (test/ and test.csv with the true poses). The propeller is the same after half a turn about its z axis.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import nibabel
import numpy as np
import torch

from equivox.formats.poses import PoseRow, write_poses_csv
from equivox.geometry.rotations import Pose, euler_xyz_from_rotation, random_rotations
from equivox.geometry.space import grid_points_mm

SIDE, VOXEL_MM = 28, 3.0
BLADE_PITCH_DEG = 35.0


def propeller(points_mm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensity and mask at points in the propeller's own frame."""
    x, y, z = points_mm.unbind(-1)
    hub = (torch.hypot(x, y) < 7 - 0.2 * z) & (z.abs() < 14)
    turn = torch.sign(x) * math.radians(BLADE_PITCH_DEG)
    across = y * turn.cos() + (z - 4) * turn.sin()
    through = -y * turn.sin() + (z - 4) * turn.cos()
    blades = (x.abs() < 27) & (across.abs() < 8) & (through.abs() < 3.5)
    mask = hub | blades
    return mask * (70.0 + 1.2 * z) + blades * 25.0, mask


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs=3, default=(48, 12, 20), help="training, validation, test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    affine = torch.diag(torch.tensor([VOXEL_MM] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = -VOXEL_MM * (SIDE - 1) / 2
    points = grid_points_mm(affine, (SIDE,) * 3)
    annotations, truth = [], []
    for fold, count in zip(("training", "validation", "test"), options.counts, strict=True):
        for kind in ("img", "lab"):
            (options.out / fold / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            name = f"{fold}-{number:03d}"
            rotation = random_rotations(1, generator=generator)[0]
            shift = (torch.rand(3, generator=generator, dtype=torch.float64) - 0.5) * 16
            pose = Pose(rotation, shift, source="head", target="world")
            image, mask = propeller(pose.inverse().apply(points))
            noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
            image = (image + 20 + 6 * noise).clamp_min(0)
            for kind, data in (("img", image), ("lab", mask)):
                stored = nibabel.Nifti1Image(data.numpy().astype(np.int16), affine.numpy())
                nibabel.save(stored, options.out / fold / kind / f"{name}.nii.gz")
            if fold == "test":
                file = (options.out / fold / "img" / f"{name}.nii.gz").as_posix()
                truth.append(PoseRow(file, 0, "ok", world_from_head=pose, confidence=1.0))
            else:
                angles = torch.rad2deg(euler_xyz_from_rotation(rotation.mT)).tolist()
                annotations.append([name, *(f"{angle:.4f}" for angle in angles), fold])
    with (options.out / "annotations.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame_id", "rot_x", "rot_y", "rot_z", "fold"])
        writer.writerows(annotations)
    write_poses_csv(options.out / "test.csv", truth)


if __name__ == "__main__":
    main()
