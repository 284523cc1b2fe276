"""Which of 20 amino acids is missing its side chain? Boxes about residues, superfamily-disjoint splits.

    python experiments/shapes/residues.py --seeds 0 1 2
    python experiments/shapes/residues.py --train 200 --test 100 --epochs 1 --name residues_tiny

Train on splits 0 to 6, test on 8 and 9; training and test in the residue's own frame ("local") or, for the plain
network, in random rotations; every network is tested in the local frame and in random rotations. Writes
``results/<name>.json`` after every run.
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

from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import as_sample, make_field, of_split
from equivox.tasks.shapes.source_residues import ResidueSource

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "proteins" / "environments.npz"
RESULTS = Path(__file__).parent / "results"
INPUT = InputConfig(
    kind="environment", side=17, channels=4, spacing=1.2, sigma=0.9, normalization="atom", frame="local"
)  # fmt: skip
BATCH, EPOCHS = 32, 6
NETWORKS = {
    "narrow": {
        "channels_in": 4, "classes": 20, "fields": ((2, 2, 1), (8, 3, 2), (16, 6, 4)), "kernel_sizes": (3, 5, 3),
        "strides": (2, 1, 1), "features": 96, "lowpass": 1.0, "dropout": 0.1, "hidden": 96,
    },
    "wide": {
        "channels_in": 4, "classes": 20, "fields": ((6, 3, 2), (16, 6, 3), (48, 16, 8)), "kernel_sizes": (3, 5, 3),
        "strides": (2, 2, 1), "features": 128, "lowpass": 1.0, "dropout": 0.2, "hidden": 128,
    },
}  # fmt: skip
"""The wide one ends on 5 voxels along an edge instead of 9, so that about the same operations carry more channels."""
ARMS = {
    "steerable, local frame": (ShapeNet, 0.02, 0.0, False),
    "plain, local frame": (PlainShapeNet, 0.002, 1e-3, False),
    "plain, random rotations": (PlainShapeNet, 0.002, 1e-3, True),
}
"""Network, learning rate, decoupled weight decay, whether training turns the boxes."""


def fields(source: ResidueSource, rows: list[int], rotations: Tensor | None = None) -> Tensor:
    """Boxes of some residues."""
    turned = [None] * len(rows) if rotations is None else list(rotations)
    samples = [
        as_sample(source.content(row), INPUT, capacity=source.capacity, rotation=rotation)
        for row, rotation in zip(rows, turned, strict=True)
    ]
    return make_field({key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}, INPUT)


def train(
    arm: str, layout: str, source: ResidueSource, rows: Tensor, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """AdamW, warm-up, cosine; the last weights."""
    make, rate, decay, turning = ARMS[arm]
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    network = make(**NETWORKS[layout], generator=draw)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    labels = torch.tensor([shape.label for shape in source.shapes])
    steps, step, begin = epochs * (len(rows) // BATCH), 0, time.process_time()
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=draw)]
        for part in order[: len(order) // BATCH * BATCH].split(BATCH):
            share = min(1.0, (step + 1) / 50) * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            optimiser.param_groups[0]["lr"] = rate * share
            inputs = fields(source, part.tolist(), turns(len(part), draw) if turning else None)
            loss = nn.functional.cross_entropy(network(inputs), labels[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            if step % 200 == 0:
                print(
                    f"{arm} step {step}/{steps} loss {float(loss.detach()):.3f} {time.process_time() - begin:.0f}",
                    flush=True,
                )
    few = rows[torch.randperm(len(rows), generator=draw)[:2048]]
    settle_norms(network, (fields(source, part.tolist()) for part in few.split(64)))
    return network, time.process_time() - begin


def judge(network: nn.Module, source: ResidueSource, rows: Tensor, *, turning: bool) -> dict[str, float]:
    """Accuracy and balanced accuracy."""
    draw = torch.Generator().manual_seed(99)
    answers = []
    with torch.no_grad():
        for part in rows.split(64):
            rotations = turns(len(part), draw) if turning else None
            answers.append(network.eval()(fields(source, part.tolist(), rotations)).argmax(1))
    guess, truth = torch.cat(answers), torch.tensor([source.shapes[row].label for row in rows.tolist()])
    each = [(guess[truth == kind] == kind).float().mean() for kind in truth.unique()]
    return {"accuracy": float((guess == truth).float().mean()), "balanced": float(torch.stack(each).mean())}


def some(rows: list[int], count: int) -> Tensor:
    """All, or a fixed draw of so many."""
    every = torch.tensor(rows)
    return (
        every if count <= 0 else every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:count]]
    )


def main() -> None:
    """Every arm at every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--network", choices=NETWORKS, default="narrow")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--train", type=int, default=0, help="residues for training; 0: all")
    parser.add_argument("--test", type=int, default=0, help="residues in the test; 0: all")
    parser.add_argument("--name", default="residues")
    parser.add_argument("--save", default="", help="folder for the weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = ResidueSource.from_file(DATA, INPUT, DataConfig(data=str(DATA)))
    training, test = some(of_split(source, "train"), args.train), some(of_split(source, "test"), args.test)
    rows = []
    for seed in args.seeds:
        for arm in args.arms:
            network, cpu = train(arm, args.network, source, training, args.epochs, seed)
            row = {
                "arm": arm, "seed": seed, "train": len(training), "test": len(test), "train_cpu_s": round(cpu, 1),
                "parameters": sum(p.numel() for p in network.parameters()),
                "local_frame": judge(network, source, test, turning=False),
                "random_rotation": judge(network, source, test, turning=True),
                "seen_in_training": judge(network, source, training[:2000], turning=False),
            }  # fmt: skip
            rows.append(row)
            print(time.strftime("%H:%M:%S"), row, flush=True)
            settings = {
                **vars(args),
                "network": NETWORKS[args.network],
                "input": INPUT.as_dict(),
                "batch": BATCH,
                "threads": 1,
            }
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{args.name}.json").write_text(json.dumps({"settings": settings, "runs": rows}, indent=1))
            if args.save:
                Path(args.save).mkdir(parents=True, exist_ok=True)
                content = {"state": network.state_dict(), "network": NETWORKS[args.network]}
                torch.save(content, Path(args.save) / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}.pt")


if __name__ == "__main__":
    main()
