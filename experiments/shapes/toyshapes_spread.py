"""How far the features of untrained networks move when the toy shapes turn, over their spread between shapes.

    python experiments/shapes/toyshapes_spread.py

Forty shapes of the test, upright and each in one random rotation, Gaussians of 1.6 voxels; no labels. By low-pass at
entry and by side (a wider margin about the shapes). Writes ``results/toyshapes_spread.json``. Two CPU minutes.
"""

from __future__ import annotations

import json

import torch
import toyshapes
from cath import turns
from torch import Tensor

from equivox.nets.shape_net import ShapeNet, settle_norms

SIGMA, SHAPES = 0.2, 40
CASES = ((21, 1.0), (21, 3.0), (21, 5.0), (25, 3.0))
"""Side and scale of the low-pass."""


def moved(upright: Tensor, turned: Tensor, lowpass: float, seed: int) -> float:
    """Root mean square over shapes and features."""
    draw = torch.Generator().manual_seed(seed)
    network = ShapeNet(**{**toyshapes.NETWORK, "lowpass": lowpass}, generator=draw)
    settle_norms(network, upright.split(20))
    with torch.no_grad():
        before, after = network.eval().features(upright), network.features(turned)
    return float(((after - before) / before.std(0)).square().mean().sqrt())


def main() -> None:
    """Every case at three seeds."""
    torch.set_num_threads(1)
    points = toyshapes.surface_points()[0]["test"][:SHAPES]
    rotations = turns(SHAPES, torch.Generator().manual_seed(5))
    rows = []
    for side, lowpass in CASES:
        toyshapes.SIDE = side
        upright, turned = (toyshapes.fields(points, SIGMA, rotation) for rotation in (None, rotations))
        each = [moved(upright, turned, lowpass, seed) for seed in (0, 1, 2)]
        rows.append({"side": side, "lowpass": lowpass, "each": each, "mean": sum(each) / len(each)})
        print(rows[-1], flush=True)
    (toyshapes.RESULTS / "toyshapes_spread.json").write_text(json.dumps({"shapes": SHAPES, "cases": rows}, indent=1))


if __name__ == "__main__":
    main()
