"""Inputs that hold no fetal head: how often the locator still names one, and how sure it is.

    python experiments/pose/locate_negatives.py --out experiments/pose/results

Head-free boxes are cut from each stack beside its head (at least 75 mm from the mark, 60 mm thick) and
go to the models that saw no stack of that fold. Noise and adult brains go to the models of fold 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from locate_data import Stack, load_stacks, read
from locate_evaluate import load_network

from equivox.geometry.space import Volume
from equivox.tasks.pose.locate import locate_head

CLEARANCE_MM = 75.0
THICKNESS_MM = 60.0


def head_free(volume: Volume, stack: Stack) -> list[Volume]:
    """Parts of the stack beyond the clearance, one for each side of the head that is thick enough."""
    center = volume.voxel_from_world(stack.center_mm)
    parts = []
    for axis in range(3):
        clearance = CLEARANCE_MM / volume.voxel_size_mm[axis]
        thickness = THICKNESS_MM / volume.voxel_size_mm[axis]
        low, high = int(float(center[axis]) - clearance), int(float(center[axis]) + clearance)
        for start, stop in ((0, low), (high, volume.shape[axis])):
            if stop - start >= thickness:
                starts, stops = [0, 0, 0], list(volume.shape)
                starts[axis], stops[axis] = start, stop
                parts.append(volume.crop(starts, stops))
    return parts


def main() -> None:
    """Print and write the scores of what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("../train/loc"))
    parser.add_argument("--name", default="find")
    parser.add_argument("--segment", default="segment")
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = {
        fold: {
            "locate": load_network(arguments.work / f"{arguments.name}_{fold}.safetensors"),
            "segment": load_network(arguments.work / f"{arguments.segment}_{fold}.safetensors"),
        }
        for fold in arguments.folds
    }
    scores: dict[str, list[float]] = {"head-free parts": [], "noise": [], "adult T1": []}

    def note(kind: str, fold: int, volume: Volume) -> None:
        found = locate_head(networks[fold], volume).candidates
        scores[kind].append(round(found[0].score, 3) if found else 0.0)

    for stack in load_stacks(arguments.shared, arguments.work / "cache"):
        if stack.fold in arguments.folds:
            parts = head_free(read(arguments.shared / "data/fetal/epi/img" / f"{stack.id}_epi.nii.gz"), stack)
            for part in parts:
                note("head-free parts", stack.fold, part)
            print(
                stack.id,
                len(parts),
                scores["head-free parts"][len(scores["head-free parts"]) - len(parts) :],
                flush=True,
            )
    generator = torch.Generator().manual_seed(3)
    spacing = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    for smooth in (1, 3, 7, 11, 15):
        noise = torch.rand(1, 1, 110, 110, 70, generator=generator)
        noise = torch.nn.functional.avg_pool3d(noise, smooth, stride=1, padding=smooth // 2)[0]
        note("noise", arguments.folds[0], Volume(noise * 300, spacing))
    for path in sorted((arguments.shared / "data/adult/ixi_brain_2mm/t1").glob("*.nii.gz"))[:8]:
        note("adult T1", arguments.folds[0], read(path))
    report = {
        kind: {
            "inputs": len(values),
            "named_a_head": sum(value > 0 for value in values),
            "above_0.5": sum(value > 0.5 for value in values),
            "above_0.7": sum(value > 0.7 for value in values),
            "scores": values,
        }
        for kind, values in scores.items()
    }
    print(json.dumps(report))
    if arguments.out:
        (arguments.out / "locate_negatives.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
