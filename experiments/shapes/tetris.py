"""Tetris by the article's protocol: one orientation of each piece in training, random rotations in the test.

    python experiments/shapes/tetris.py --seeds 0 1 2 3 4

Three networks of one layout: steerable with a low-pass before each subsampling, the same without, and a plain CNN with
it. Writes ``results/tetris.json`` after every run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tetris_data import library_pieces, random_rotations, turned_pieces
from torch import Tensor, nn

from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms

RESULTS = Path(__file__).parent / "results"
SIDE, CELL, EPOCHS = 29, 4, 50
NETWORK = {
    "channels_in": 1, "classes": 8, "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (5, 5), "strides": (2, 1),
    "features": 32, "lowpass": 5.0,
}  # fmt: skip
ARMS = {
    "steerable": (ShapeNet, "blur", 0.03),
    "steerable without low-pass": (ShapeNet, "stride", 0.03),
    "plain": (PlainShapeNet, "blur", 0.003),
}


def train(network: nn.Module, volumes: Tensor, epochs: int, rate: float) -> float:
    """Full batches of 8; Adam, constant rate, then cosine to 1 % over the second half. Returns the last loss."""
    labels = torch.arange(8)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    half = epochs // 2
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0, half),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs - half, rate / 100),
        ],
        [half],
    )
    network.train()
    loss = torch.zeros(())
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(network(volumes), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    settle_norms(network, [volumes])
    return float(loss.detach())


def judge(network: nn.Module, volumes: Tensor) -> dict[str, object]:
    """Accuracy over all draws, its standard deviation over draws of 8, spread of logits, confusion."""
    network.eval()
    with torch.no_grad():
        logits = torch.stack([network(draw) for draw in volumes])
    right = (logits.argmax(-1) == torch.arange(8)).float()
    between = logits.mean(0).std(0).mean()
    return {
        "accuracy": float(right.mean()),
        "per_piece": [round(v, 3) for v in right.mean(0).tolist()],
        "spread_over_rotations": float(logits.std(0).mean() / between),
    }


def main() -> None:
    """Run every arm at every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--draws", type=int, default=40, help="test draws of 8")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--name", default="tetris")
    parser.add_argument("--library", action="store_true", help="pieces as `equivox shapes` makes them")
    parser.add_argument("--save", default="", help="folder for the weights of the first arm")
    args = parser.parse_args()
    torch.set_num_threads(1)
    render = library_pieces if args.library else turned_pieces
    test = render(random_rotations(args.draws, 8, seed=12345), SIDE, CELL)
    settings = {
        **vars(args),
        "side": SIDE,
        "cell": CELL,
        "network": NETWORK,
        "arms": {a: ARMS[a][2] for a in args.arms},
    }
    rows: list[dict[str, object]] = []
    for seed in args.seeds:
        train_set = render(random_rotations(1, 8, seed=seed), SIDE, CELL)[0]
        for arm in args.arms:
            make, pooling, rate = ARMS[arm]
            torch.manual_seed(seed)
            network = make(**NETWORK, pooling=pooling, generator=torch.Generator().manual_seed(seed))
            begin = time.process_time()
            loss = train(network, train_set, args.epochs, rate)
            cpu = time.process_time() - begin
            row = {
                "arm": arm, "seed": seed, "loss": loss, "train_cpu_s": round(cpu, 1),
                "train_accuracy": float((network.eval()(train_set).argmax(-1) == torch.arange(8)).float().mean()),
                "parameters": sum(p.numel() for p in network.parameters()), **judge(network, test),
            }  # fmt: skip
            rows.append(row)
            print(time.strftime("%H:%M:%S"), row, flush=True)
            if args.save and arm == args.arms[0]:
                Path(args.save).mkdir(parents=True, exist_ok=True)
                torch.save({"state": network.state_dict(), "network": NETWORK}, Path(args.save) / f"seed{seed}.pt")
            if args.name:
                RESULTS.mkdir(exist_ok=True)
                content = {"settings": settings, "summary": summary(rows), "runs": rows}
                (RESULTS / f"{args.name}.json").write_text(json.dumps(content, indent=1))


def summary(rows: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds per arm."""
    result = {}
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        values = torch.tensor([float(row["accuracy"]) for row in rows if row["arm"] == arm])
        result[arm] = {
            "seeds": len(values), "mean": float(values.mean()), "sd": float(values.std()) if len(values) > 1 else 0.0,
            "least": float(values.min()), "most": float(values.max()),
        }  # fmt: skip
    return result


if __name__ == "__main__":
    main()
