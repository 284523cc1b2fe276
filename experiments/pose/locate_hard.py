"""Heads that are harder to find than those of the stacks, held out: coarse, turned, noisy, and simulated ones.

    python experiments/pose/locate_hard.py --names segA segB --turned 3 --simulated 24

Every primary stack goes to the finder that saw no stack of its fold: as it is; as a navigator of 6 mm (moved by a
random rigid motion, with noise of 5 %, as ``equivox simulate motion`` makes them); turned about its head at random and
resampled at 3 mm. Simulated stacks (new seeds, no real brain in them) with and without surroundings go to fold 0's.
Found: the best candidate lies within 15 mm of the truth. Writes ``results/locate_hard.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from locate_data import load_stacks, read
from locate_evaluate import load_network
from locate_simulated import CONFIG
from rotate_train import RESULTS
from torch import Tensor, nn

from equivox.formats.fetal_templates import read_templates
from equivox.geometry.rotations import random_rotations
from equivox.geometry.space import Volume
from equivox.run.seeds import seed_for
from equivox.simulate.navigator import make_navigator
from equivox.simulate.stack import simulate_stacks
from equivox.simulate.templates import prepare_templates
from equivox.tasks.pose.consistency import turned_about
from equivox.tasks.pose.locate import locate_head

NEAR_MM = 15.0


def sought(network: nn.Module, volume: Volume, truth_mm: Tensor) -> tuple[bool, float]:
    """Whether the best candidate is the head, and its score (0: no candidate)."""
    found = locate_head({"locate": network}, volume).candidates
    if not found:
        return False, 0.0
    return float((found[0].center_mm - truth_mm).norm()) < NEAR_MM, found[0].score


def navigator(volume: Volume, center: Tensor, draw: torch.Generator) -> tuple[Volume, Tensor]:
    """The stack moved at random (any rotation, up to 10 mm), at 6 mm, and the motion (world to world)."""
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = random_rotations(1, generator=draw)[0]
    shift = (torch.rand(3, generator=draw, dtype=torch.float64) - 0.5) * 20
    motion[:3, 3] = center - motion[:3, :3] @ center + shift
    head = Volume(torch.zeros_like(volume.data), volume.affine)
    made = make_navigator(volume, head, motion, navigator_mm=6.0, noise=0.05, generator=draw)
    return made, motion


def main() -> None:
    """A line per set of weights and kind of input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("../train/loc"))
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--turned", type=int, default=3)
    parser.add_argument("--simulated", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    networks = {
        (name, fold): load_network(args.work / f"{name}_{fold}.safetensors")
        for name in args.names
        for fold in args.folds
    }
    found: dict[str, dict[str, list[tuple[bool, float]]]] = {name: {} for name in args.names}

    def note(kind: str, fold: int, volume: Volume, truth_mm: Tensor) -> None:
        for name in args.names:
            found[name].setdefault(kind, []).append(sought(networks[name, fold], volume, truth_mm))

    for number, stack in enumerate(s for s in load_stacks(args.shared, args.work / "cache") if s.primary):
        if stack.fold not in args.folds:
            continue
        draw = torch.Generator().manual_seed(number)
        volume = read(args.shared / "data/fetal/epi/img" / f"{stack.id}_epi.nii.gz")
        note("as it is", stack.fold, volume, stack.center_mm)
        for _ in range(args.turned):
            made, motion = navigator(volume, stack.center_mm, draw)
            note("navigator of 6 mm", stack.fold, made, motion[:3, :3] @ stack.center_mm + motion[:3, 3])
        for turn in random_rotations(args.turned, generator=draw):
            note("turned", stack.fold, turned_about(volume, turn, stack.center_mm), stack.center_mm)
    files = read_templates(None)
    templates = prepare_templates(files.atlases, files.epi)
    for number in range(args.simulated):
        for kind, surrounded in (("simulated", True), ("simulated, uniform surroundings", False)):
            config = replace(CONFIG, surroundings=surrounded, cut_head=0.0)
            (made,) = simulate_stacks([seed_for(77, "hard", number)], templates=templates, config=config)
            note(kind, args.folds[0], made.image, made.center_mm.double())
    rows = []
    for name, kinds in found.items():
        for kind, values in kinds.items():
            scores = torch.tensor([score if right else 0.0 for right, score in values])
            rows.append({
                "weights": name, "input": kind, "count": len(values), "found": sum(right for right, _ in values),
                "median_score": round(float(scores.quantile(0.5)), 3),
                "lowest_tenth": round(float(scores.quantile(0.1)), 3),
                "wrong_above_0.7": sum(not right and score > 0.7 for right, score in values),
            })  # fmt: skip
            print(rows[-1], flush=True)
    (RESULTS / "locate_hard.json").write_text(json.dumps({"folds": args.folds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
