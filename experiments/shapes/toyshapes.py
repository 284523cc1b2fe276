"""Toy shapes trained as they stand, tested upright, turned about the vertical axis, and in any orientation.

    python experiments/shapes/toyshapes.py --seeds 0 1 2
    python experiments/shapes/toyshapes.py --arms steerable --epochs 20 --sigma 0.2 --lowpass 3 --name toyshapes_long

Ten classes of procedural meshes (``shared/data/shapes/toyshapes.npz``, 420 for training, 120 in the test), as points on
the surface that become Gaussians. No rotation in training, for neither network. Writes ``results/toyshapes.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from cath import turns
from torch import Tensor, nn

from equivox.formats.toyshapes import read_mesh_set
from equivox.geometry.density import gaussian_density
from equivox.geometry.rotations import rotation_about
from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "shapes" / "toyshapes.npz"
RESULTS = Path(__file__).parent / "results"
SIDE, SPACING, SIGMA, POINTS, BATCH = 21, 0.125, 0.125, 1000, 16
NETWORK = {
    "channels_in": 1, "classes": 10, "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (3, 5), "strides": (2, 1),
    "features": 64, "lowpass": 1.0, "dropout": 0.1,
}  # fmt: skip
ARMS = {"steerable": (ShapeNet, 0.02, 0.0), "plain": (PlainShapeNet, 0.002, 1e-3)}


def surface_points(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Points (mesh, point, 3) spread evenly over the surfaces, and labels, per split."""
    found = read_mesh_set(DATA)
    draw = torch.Generator().manual_seed(seed)
    points = []
    for mesh in found.meshes:
        corners = mesh.vertices.float()[mesh.faces.long()]
        edges = corners[:, 1:] - corners[:, :1]
        area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=1)
        chosen = torch.multinomial(area, POINTS, replacement=True, generator=draw)
        share = torch.rand(POINTS, 2, 1, generator=draw)
        share = torch.where(share.sum(1, keepdim=True) > 1, 1 - share, share)
        points.append(corners[chosen, 0] + (share * edges[chosen]).sum(1))
    stacked, labels = torch.stack(points), found.labels.long()
    rows = {split: found.rows(split) for split in ("train", "test")}
    return {s: stacked[r] for s, r in rows.items()}, {s: labels[r] for s, r in rows.items()}


def fields(points: Tensor, sigma: float, rotations: Tensor | None = None) -> Tensor:
    """Densities, a point of mass such that a field is of order 1."""
    if rotations is not None:
        points = points @ rotations.float().mT
    kinds = torch.zeros(points.shape[:2], dtype=torch.int64)
    parts = [
        gaussian_density(p, k, channels=1, side=SIDE, spacing=SPACING, sigma=sigma)
        for p, k in zip(points.split(32), kinds.split(32), strict=True)
    ]
    return torch.cat(parts)


def train(arm: str, inputs: Tensor, labels: Tensor, epochs: int, seed: int, lowpass: float) -> tuple[nn.Module, float]:
    """AdamW, warm-up, cosine; the last weights."""
    make, rate, decay = ARMS[arm]
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    network = make(**{**NETWORK, "lowpass": lowpass}, generator=draw)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    steps, step, begin = epochs * (len(inputs) // BATCH), 0, time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(inputs), generator=draw)
        for part in order[: len(order) // BATCH * BATCH].split(BATCH):
            share = min(1.0, (step + 1) / 15) * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            optimiser.param_groups[0]["lr"] = rate * share
            loss = nn.functional.cross_entropy(network(inputs[part]), labels[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    settle_norms(network, inputs.split(64))
    return network, time.process_time() - begin


def accuracy(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """In evaluation mode."""
    with torch.no_grad():
        answers = torch.cat([network.eval()(part).argmax(1) for part in inputs.split(32)])
    return float((answers == labels).float().mean())


def main() -> None:
    """Every arm at every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--sigma", type=float, default=SIGMA, help="of a point; a voxel is 0.125")
    parser.add_argument("--lowpass", type=float, default=NETWORK["lowpass"], help="at the network's entry")
    parser.add_argument("--name", default="toyshapes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    points, labels = surface_points()
    inputs = fields(points["train"], args.sigma)
    draw = torch.Generator().manual_seed(5)
    count = len(points["test"])
    tests = {"upright": [fields(points["test"], args.sigma)], "about the vertical axis": [], "any orientation": []}
    for _ in range(args.views):
        angles = torch.rand(count, generator=draw) * 360
        spins = torch.stack([rotation_about("y", float(angle)) for angle in angles])
        tests["about the vertical axis"].append(fields(points["test"], args.sigma, spins))
        tests["any orientation"].append(fields(points["test"], args.sigma, turns(count, draw)))
    rows = []
    for seed in args.seeds:
        for arm in args.arms:
            network, cpu = train(arm, inputs, labels["train"], args.epochs, seed, args.lowpass)
            found = {
                name: sum(accuracy(network, view, labels["test"]) for view in views) / len(views)
                for name, views in tests.items()
            }
            size = sum(p.numel() for p in network.parameters())
            rows.append({"arm": arm, "seed": seed, "train_cpu_s": round(cpu, 1), "parameters": size, **found})
            print(time.strftime("%H:%M:%S"), rows[-1], flush=True)
            settings = {
                **vars(args), "network": {**NETWORK, "lowpass": args.lowpass}, "side": SIDE, "spacing": SPACING,
                "points": POINTS, "batch": BATCH, "threads": 1,
                "lr": {name: values[1] for name, values in ARMS.items()},
            }  # fmt: skip
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{args.name}.json").write_text(json.dumps({"settings": settings, "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
