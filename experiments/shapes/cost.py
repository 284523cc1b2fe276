"""Floating-point operations per object and per training: ours beside the published networks.

    python experiments/shapes/cost.py

Operations of convolutions and matrix products, counted while one object goes through; a training step counts three
times a forward pass. Writes ``results/cost.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cath
import tetris
import torch
from torch.utils.flop_counter import FlopCounterMode

from equivox.nets.classifiers import build_classifier
from equivox.nets.shape_net import PlainShapeNet, ShapeNet

RESULTS = Path(__file__).parent / "results"


def measured(network: torch.nn.Module, channels: int, side: int, objects: int, epochs: int) -> dict[str, Any]:
    """Parameters, forward operations per object [1e9], operations of the training [1e12]."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, channels, side, side, side))
    forward = counter.get_total_flops()
    return {
        "parameters": sum(p.numel() for p in network.parameters()), "side": side,
        "forward_gflop": round(forward / 1e9, 3),
        "objects_seen": objects * epochs, "training_tflop": round(3 * forward * objects * epochs / 1e12, 2),
    }  # fmt: skip


def main() -> None:
    """Count and write."""
    torch.set_num_threads(1)
    rows = {
        "tetris, ours": measured(ShapeNet(**tetris.NETWORK), 1, tetris.SIDE, 8, tetris.EPOCHS),
        "tetris, plain of our layout": measured(PlainShapeNet(**tetris.NETWORK), 1, tetris.SIDE, 8, tetris.EPOCHS),
        "tetris, published": measured(build_classifier("tetris", classes=8), 1, 36, 8, 250),
        "cath, ours": measured(ShapeNet(**cath.NETWORK), 5, cath.SIDE, 890, cath.EPOCHS),
        "cath, plain of our layout": measured(PlainShapeNet(**cath.NETWORK), 5, cath.SIDE, 890, cath.EPOCHS),
        "cath, published": measured(build_classifier("se3resnet34_small", classes=10), 1, 50, 721, 100),
    }
    for name, row in rows.items():
        print(name, row)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
