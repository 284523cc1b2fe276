"""What the estimator sees in heads, degraded heads and inputs without a head: one row of evidence per input.

    python experiments/pose/confidence_collect.py --out experiments/pose/results/confidence_rows.csv

Every fetal stack goes to the networks of its fold, which saw no stack of its fetus: as it is, and degraded (noise, half
of its slices, a field of view that ends inside the head, a moved navigator of 6 mm, a turned copy). Without a head:
parts of the same stacks at least 75 mm from the head (the same fold's networks), stacks whose head was cut out, adult
brains and noise (fold 0's). Rows are written as they come, and a run that was stopped goes on. One thread; about 18 CPU
minutes in all.
"""

from __future__ import annotations

import argparse
import csv
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from locate_data import Stack, load_stacks, read
from locate_evaluate import load_network as load_finder
from locate_hard import navigator
from locate_negatives import head_free
from rotate_train import load_network as load_rotator
from template import VOLUME_CORRECTION, load_template

from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_from_quaternion
from equivox.geometry.space import Volume
from equivox.tasks.pose.consistency import half_stacks, turned_about
from equivox.tasks.pose.estimator import HeadEstimator, HeadSettings
from equivox.tasks.pose.evidence import FEATURES

COLUMNS = ("id", "kind", "fetus", "fold", "primary", "has_head", "found", "error_deg", "error_mm", *FEATURES)
VIEWS = 4
"""As in the shipped model."""
NOISE_SHARES = (0.15, 0.4)
"""SD of the noise over the stack's 90th percentile."""
CUT_MM = 15.0
"""The field of view ends so far from the head's centre."""


def noisy(volume: Volume, share: float, generator: torch.Generator) -> Volume:
    """Rician noise on magnitudes."""
    values = volume.data.flatten()
    level = float(values[values > 0].kthvalue(int(0.9 * int((values > 0).sum()))).values)
    first = torch.randn(volume.data.shape, generator=generator) * share * level
    second = torch.randn(volume.data.shape, generator=generator) * share * level
    return Volume(((volume.data + first).square() + second.square()).sqrt(), volume.affine, volume.name)


def cut(volume: Volume, center_mm: torch.Tensor, axis: int, side: int) -> Volume:
    """The field of view ends ``CUT_MM`` beyond the centre along one voxel axis."""
    center = float(volume.voxel_from_world(center_mm)[axis])
    reach = CUT_MM / volume.voxel_size_mm[axis]
    start, stop = [0, 0, 0], list(volume.shape)
    if side > 0:
        stop[axis] = min(stop[axis], max(2, round(center + reach)))
    else:
        start[axis] = max(0, min(stop[axis] - 2, round(center - reach)))
    return volume.crop(start, stop)


def beheaded(volume: Volume, center_mm: torch.Tensor) -> Volume:
    """The stack with a ball of 70 mm around the head replaced by the mean of its rim."""
    axes = [torch.arange(n, dtype=torch.float64) for n in volume.shape]
    points = volume.world_from_voxel(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))
    distance = (points - center_mm).norm(dim=-1)
    rim = volume.data[0][(distance > 70) & (distance < 80)]
    data = volume.data.clone()
    data[0][distance <= 70] = rim.mean() if len(rim) else 0.0
    return Volume(data, volume.affine, volume.name)


STILL = torch.eye(4, dtype=torch.float64)
Case = tuple[str, str, Stack | None, int, bool, Volume, torch.Tensor]


def inputs(shared: Path, cache: Path) -> Iterator[Case]:
    """Name, kind, stack (for its truth), fold of the networks, whether a head is there, volume, how the head moved."""
    stacks = load_stacks(shared, cache)
    for stack in stacks:
        volume = read(shared / "data/fetal/epi/img" / f"{stack.id}_epi.nii.gz")
        generator = torch.Generator().manual_seed(zlib.crc32(stack.id.encode()))
        yield stack.id, "stack", stack, stack.fold, True, volume, STILL
        for share in NOISE_SHARES:
            yield f"{stack.id}/noise-{share}", "noisy", stack, stack.fold, True, noisy(volume, share, generator), STILL
        for index, half in enumerate(half_stacks(volume)):
            yield f"{stack.id}/half-{index}", "half", stack, stack.fold, True, half, STILL
        axis, side = int(torch.randint(3, (), generator=generator)), int(torch.randint(2, (), generator=generator))
        shorter = cut(volume, stack.center_mm, axis, 2 * side - 1)
        yield f"{stack.id}/cut-{axis}{'-+'[side]}", "cut", stack, stack.fold, True, shorter, STILL
        moved, motion = navigator(volume, stack.center_mm, generator)
        yield f"{stack.id}/navigator", "navigator", stack, stack.fold, True, moved, motion
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = random_rotations(1, generator=generator)[0]
        turn[:3, 3] = stack.center_mm - turn[:3, :3] @ stack.center_mm
        turned = turned_about(volume, turn[:3, :3], stack.center_mm)
        yield f"{stack.id}/turned", "turned", stack, stack.fold, True, turned, turn
        for index, part in enumerate(head_free(volume, stack)):
            yield f"{stack.id}/part-{index}", "maternal", stack, stack.fold, False, part, STILL
        headless = beheaded(volume, stack.center_mm)
        yield f"{stack.id}/beheaded", "beheaded", stack, stack.fold, False, headless, STILL
    for path in sorted((shared / "data/adult/ixi_brain_2mm/t1").glob("*.nii.gz"))[:40]:
        yield path.name.split(".")[0], "adult", None, 0, False, read(path), STILL
    spacing = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    for number in range(30):
        smooth = (1, 3, 7, 11, 15)[number % 5]
        noise = torch.rand(1, 1, 110, 110, 70, generator=generator)
        noise = torch.nn.functional.avg_pool3d(noise, smooth, stride=1, padding=smooth // 2)[0]
        yield f"noise-{smooth}-{number}", "noise", None, 0, False, Volume(noise * 300, spacing), STILL


def truth(shared: Path) -> dict[str, torch.Tensor]:
    """Rotation of every stack from the landmark table."""
    with (shared / "data/fetal/epi/poses.csv").open() as file:
        return {
            row["id"]: rotation_from_quaternion(
                torch.tensor([float(row[k]) for k in ("qx", "qy", "qz", "qw")], dtype=torch.float64)
            )
            for row in csv.DictReader(file)
        }


def main() -> None:
    """Append a row per input that has none yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--finder", default="../train/loc/segB_{fold}.safetensors")
    parser.add_argument("--rotator", default="../train/rot/ftb_{fold}/last.pt")
    parser.add_argument("--template", default="../train/reg/template_{fold}.safetensors")
    parser.add_argument("--cache", type=Path, default=Path("../train/loc/cache"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rotations = truth(args.shared)
    done = set()
    if args.out.exists():
        with args.out.open() as file:
            done = {row["id"] for row in csv.DictReader(file)}
    estimators: dict[int, HeadEstimator] = {}
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        if not done:
            writer.writeheader()
        for name, kind, stack, fold, has_head, volume, motion in inputs(args.shared, args.cache):
            if name in done:
                continue
            if fold not in estimators:
                networks = {
                    "locate": load_finder(Path(args.finder.format(fold=fold))),
                    "rotate": load_rotator(args.rotator.format(fold=fold)),
                    "template": load_template(Path(args.template.format(fold=fold))),
                }
                settings = HeadSettings(volume_correction=VOLUME_CORRECTION, views=VIEWS)
                estimators[fold] = HeadEstimator(networks, settings)
            row: dict[str, object] = {"id": name, "kind": kind, "fold": fold, "has_head": int(has_head), "found": 0}
            if stack is not None:
                row |= {"fetus": stack.fetus, "primary": int(stack.primary)}
            with torch.inference_mode():
                found = estimators[fold].examine(volume)
            if not isinstance(found, str):
                row |= {"found": 1, **{key: f"{value:.6g}" for key, value in found.evidence.items()}}
                if has_head and stack is not None:
                    truth_rotation = motion[:3, :3] @ rotations[stack.id]
                    truth_mm = motion[:3, :3] @ stack.center_mm + motion[:3, 3]
                    angle = geodesic_angle(found.world_from_head.rotation.double(), truth_rotation)
                    row["error_deg"] = f"{math.degrees(float(angle)):.3f}"
                    row["error_mm"] = f"{float((found.world_from_head.translation_mm - truth_mm).norm()):.3f}"
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
