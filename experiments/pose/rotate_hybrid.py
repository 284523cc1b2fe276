"""Exploration: does the shape of the found mask sharpen the network's rotation? (Not used by the shipped model.)

    python experiments/pose/rotate_hybrid.py --locate 'L/segA_{fold}.safetensors'

The principal axes of the held-out mask, turned by a constant fitted on the other folds, with the signs nearest to the
network's answer; then the chordal mean of both, or the network alone where they differ by more than 60 degrees.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import torch
from locate_evaluate import load_network as load_finder
from rotate_data import load_stacks
from rotate_train import DATA, RESULTS, summary
from torch import Tensor

from equivox.geometry.rotations import chordal_mean, geodesic_angle
from equivox.metrics.pose import fit_offset
from equivox.metrics.pose_baselines import MEASURED_AXES, principal_axes
from equivox.tasks.pose.locate import locate_head

LARGEST_DIFFERENCE_DEG = 60.0


def choices(axes: Tensor) -> Tensor:
    """The four proper sign choices of named principal axes."""
    named = torch.empty(3, 3, dtype=torch.float64)
    named[:, list(MEASURED_AXES)] = axes
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    every = named * signs[:, None, :]
    return every[torch.linalg.det(every) > 0]


def nearest(every: Tensor, rotation: Tensor) -> Tensor:
    """The choice that is nearest to a rotation."""
    return every[int(geodesic_angle(every, rotation.expand_as(every)).argmin())]


def main() -> None:
    """Print and write the held-out numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locate", required=True)
    parser.add_argument("--weight", type=float, default=0.5, help="of the mask's axes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stacks = load_stacks(DATA / "epi")
    found = {r["id"]: r for r in json.loads((RESULTS / "rotate_pipeline.json").read_text())["stacks"]}
    axes: dict[str, Tensor] = {}
    finders: dict[int, Any] = {}
    for stack in stacks:
        finder = finders.setdefault(stack.fold, load_finder(Path(args.locate.format(fold=stack.fold))))
        candidate = locate_head({"locate": finder}, stack.volume).candidates[0]
        axes[stack.id] = choices(principal_axes(candidate.mask)[0])
    rows: dict[str, list[dict[str, object]]] = {"network": [], "axes": [], "mean": []}
    for stack in stacks:
        others = [s for s in stacks if s.fold != stack.fold and s.primary]
        truth = torch.stack([s.rotation.double() for s in others])
        offset = fit_offset(torch.stack([nearest(axes[s.id], t) for s, t in zip(others, truth, strict=True)]), truth)
        network = torch.tensor(found[stack.id]["rotation"], dtype=torch.float64)
        shape = nearest(axes[stack.id] @ offset, network)
        apart = math.degrees(float(geodesic_angle(shape, network)))
        both = chordal_mean(torch.stack([network, shape]), torch.tensor([1 - args.weight, args.weight]).double())
        mixed = both if apart <= LARGEST_DIFFERENCE_DEG else network
        for name, rotation in (("network", network), ("axes", shape), ("mean", mixed)):
            error = math.degrees(float(geodesic_angle(rotation, stack.rotation.double())))
            base = {"id": stack.id, "fetus": stack.fetus, "fold": stack.fold, "primary": stack.primary}
            rows[name].append({**base, "error_deg": error, "rotation": rotation.tolist(), "apart_deg": apart})
    for name, result in rows.items():
        print(name, {k: round(v, 3) for k, v in summary(result).items()})
        print([round(float(r["error_deg"])) for r in result if r["primary"]])
    content = {"settings": vars(args), "summary": summary(rows["mean"]), "stacks": rows["mean"]}
    (RESULTS / "rotate_hybrid.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
