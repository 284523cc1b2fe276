"""Make the median EPI head and its brain from the stacks, without one fold if asked for.

python experiments/simulation/make_template.py --data ../shared/data/fetal --out build/template_0 --leave-out 0

The head in the package is the one beside the data (all folds); its brain map is made by this script:

python experiments/simulation/make_template.py --data ../shared/data/fetal --out build/template
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from equivox.formats.nifti import read_volume, write_volume
from equivox.geometry.rotations import rotation_from_quaternion
from equivox.geometry.space import Volume, sample_at

SHAPE, VOXEL_MM = (71, 77, 71), 2.0


def in_head_frame(volume: Volume, rotation: torch.Tensor, center: torch.Tensor, scale: float) -> torch.Tensor:
    """Values on the 2 mm grid of frame A, the head scaled to 290 mL; NaN outside the field of view."""
    affine = template_affine()
    axes = [torch.arange(n, dtype=torch.float64) for n in SHAPE]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    head = index @ affine[:3, :3].mT + affine[:3, 3]
    world = scale * head @ rotation.mT + center
    values = sample_at(volume, world)[0]
    seen = sample_at(Volume(torch.ones_like(volume.data), volume.affine, "seen"), world)[0] > 0.5
    return torch.where(seen, values, torch.nan)


def template_affine() -> torch.Tensor:
    """Frame A in the middle of the grid."""
    affine = torch.diag(torch.tensor([VOXEL_MM] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = -VOXEL_MM * (torch.tensor(SHAPE, dtype=torch.float64) - 1) / 2
    return affine


def median_of(per_fetus: dict[str, list[torch.Tensor]], *, mean: bool) -> torch.Tensor:
    """First the mean over the stacks of a fetus, then median (or mean) over fetuses, then over the mirror image."""
    fetuses = torch.stack([torch.stack(stacks).nanmean(0) for stacks in per_fetus.values()])
    one = fetuses.nanmean(0) if mean else fetuses.nanmedian(0).values
    one = one.nan_to_num(0.0)
    return (one + one.flip(0)) / 2


def main() -> None:
    """Write ``epi_head_median_2mm.nii.gz`` and ``epi_head_median_2mm_brain.nii.gz``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fetal"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", type=int, default=-1, help="fold that must not be seen")
    parser.add_argument("--motion", type=float, default=1.0, help="largest motion index")
    arguments = parser.parse_args()
    heads: dict[str, list[torch.Tensor]] = {}
    brains: dict[str, list[torch.Tensor]] = {}
    for row in csv.DictReader((arguments.data / "epi" / "poses.csv").open()):
        still = float(row["motion_index"]) <= arguments.motion
        if row["mask_grade"] == "C" or not still or row["flags"] or int(row["fold"]) == arguments.leave_out:
            continue
        rotation = rotation_from_quaternion(torch.tensor([float(row[k]) for k in ("qx", "qy", "qz", "qw")]).double())
        center = torch.tensor([float(row[k]) for k in ("tx", "ty", "tz")], dtype=torch.float64)
        scale = (float(row["mask_volume_ml"]) / 290.0) ** (1 / 3)
        image = read_volume(arguments.data / "epi" / row["file"])
        mask = read_volume(arguments.data / "epi" / "mask_pseudo" / f"{row['id']}_mask.nii.gz")
        level = float(row["brain_median"])
        heads.setdefault(row["fetus"], []).append(in_head_frame(image, rotation, center, scale) / level * 100)
        brains.setdefault(row["fetus"], []).append(in_head_frame(mask, rotation, center, scale) * 100)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, stacks, mean in (("", heads, False), ("_brain", brains, True)):
        data = median_of(stacks, mean=mean).clamp(0, 255)[None].float()
        write_volume(
            arguments.out / f"epi_head_median_2mm{name}.nii.gz", Volume(data, template_affine()), dtype="uint8"
        )
    print(f"{len(heads)} fetuses, {sum(map(len, heads.values()))} stacks -> {arguments.out}")


if __name__ == "__main__":
    main()
