"""Adrenal glands, normal or hyperplastic, trained as they lie, tested upright, about z and in any orientation.

    python experiments/shapes/adrenal.py --side 28 --seeds 0 1 2
    python experiments/shapes/adrenal.py --side 64 --seeds 0

AdrenalMNIST3D (MedMNIST v2, CC BY 4.0), official splits, 1,188 for training and 298 in the test; the last weights are
judged. Masks at 28 voxels are taken as they are, those at 64 smoothed and sampled on 29. No rotation in training, for
neither network. Writes ``results/adrenal_<side>.json`` after every run; runs of other seeds stay in it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from cath import turns
from scipy import ndimage
from torch import Tensor, nn

from equivox.formats.medmnist import MedMnistSplit, read_medmnist
from equivox.geometry.rotations import rotation_about
from equivox.metrics.classification import roc_auc
from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms
from equivox.tasks.shapes.data import rotate_volume

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "shapes"
FILES = {28: "adrenalmnist3d.npz", 64: "adrenalmnist3d_64.npz"}
RESULTS = Path(__file__).parent / "results"
GRID, BATCH = 29, 16
NETWORK = {
    "channels_in": 1, "classes": 2, "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (3, 5), "strides": (2, 1),
    "features": 64, "lowpass": 1.0, "dropout": 0.1,
}  # fmt: skip
ARMS = {"steerable": (ShapeNet, 0.02, 0.0), "plain": (PlainShapeNet, 0.002, 1e-3)}


def field(mask: Tensor, rotation: Tensor | None) -> Tensor:
    """One gland (1, 29, 29, 29), 0 to 1, turned at the resolution of the file and then brought to the grid."""
    volume = mask.float()[None] / 255
    side = mask.shape[0]
    if side > GRID:
        volume = torch.from_numpy(ndimage.gaussian_filter(volume[0].numpy(), 0.5 * side / GRID))[None]
    if rotation is not None:
        volume = rotate_volume(volume, rotation)
    if side <= GRID:
        return nn.functional.pad(volume, [0, GRID - side] * 3)
    step = side / GRID
    places = (torch.arange(GRID, dtype=torch.float64) - (GRID - 1) / 2) * step + (side - 1) / 2
    points = torch.stack(torch.meshgrid(places, places, places, indexing="ij")).numpy()
    return torch.from_numpy(ndimage.map_coordinates(volume[0].numpy(), points, order=3))[None].float()


def fields(part: MedMnistSplit, rotations: Tensor | None = None) -> Tensor:
    """All glands of a split."""
    rows = range(len(part.labels))
    return torch.stack([field(part.images[row], None if rotations is None else rotations[row]) for row in rows])


def train(arm: str, inputs: Tensor, labels: Tensor, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """AdamW, warm-up, cosine; the last weights."""
    make, rate, decay = ARMS[arm]
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    network = make(**NETWORK, generator=draw)
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
    settle_norms(network, inputs[:512].split(64))
    return network, time.process_time() - begin


def judge(network: nn.Module, views: list[Tensor], labels: Tensor) -> dict[str, float]:
    """Accuracy and area under the ROC curve, means over the views."""
    found = []
    with torch.no_grad():
        for inputs in views:
            chances = torch.cat([network.eval()(part).softmax(1) for part in inputs.split(32)])
            found.append((float((chances.argmax(1) == labels).float().mean()), roc_auc(labels, chances)))
    accuracy, area = (sum(values) / len(values) for values in zip(*found, strict=True))
    return {"accuracy": accuracy, "auc": area}


def main() -> None:
    """Every arm at every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, choices=sorted(FILES), default=28)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--views", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    splits = read_medmnist(DATA / FILES[args.side]).splits
    inputs, test = fields(splits["train"]), splits["test"]
    draw = torch.Generator().manual_seed(5)
    tests: dict[str, list[Tensor]] = {"upright": [fields(test)], "about z": [], "any orientation": []}
    for _ in range(args.views):
        angles = torch.rand(len(test.labels), generator=draw) * 360
        spins = torch.stack([rotation_about("z", float(angle)) for angle in angles])
        tests["about z"].append(fields(test, spins))
        tests["any orientation"].append(fields(test, turns(len(test.labels), draw)))
    path = RESULTS / f"adrenal_{args.side}.json"
    done = json.loads(path.read_text())["runs"] if path.exists() else []
    rows = [row for row in done if row["seed"] not in args.seeds]
    for seed in args.seeds:
        for arm in ARMS:
            network, cpu = train(arm, inputs, splits["train"].labels, args.epochs, seed)
            size = sum(p.numel() for p in network.parameters())
            found = {name: judge(network, views, test.labels) for name, views in tests.items()}
            rows.append({"arm": arm, "seed": seed, "train_cpu_s": round(cpu, 1), "parameters": size, **found})
            print(time.strftime("%H:%M:%S"), rows[-1], flush=True)
            settings = {**vars(args), "network": NETWORK, "grid": GRID, "batch": BATCH, "threads": 1}
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps({"settings": settings, "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
