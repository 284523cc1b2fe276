"""How far an untrained network's features move over rotations, against how far they differ between pieces, by low-pass.

    python experiments/shapes/tetris_spread.py

Needs no labels; this is what the width of the low-pass was chosen by. Writes ``results/tetris_spread.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tetris import CELL, NETWORK, SIDE
from tetris_data import random_rotations, turned_pieces

from equivox.nets.shape_net import ShapeNet, settle_norms

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Four random networks for each width."""
    torch.set_num_threads(1)
    volumes = turned_pieces(random_rotations(6, 8, seed=1), SIDE, CELL)
    found: dict[str, list[float]] = {}
    for lowpass in (2.0, 3.0, 5.0):
        for seed in range(4):
            draw = torch.Generator().manual_seed(seed)
            network = ShapeNet(**{**NETWORK, "lowpass": lowpass}, generator=draw)
            settle_norms(network, [volumes.flatten(0, 1)])
            with torch.no_grad():
                features = torch.stack([network.features(draw_of_8) for draw_of_8 in volumes])
            spread = (features.std(0).mean(0) / features.mean(0).std(0)).mean()
            found.setdefault(str(lowpass), []).append(round(float(spread), 4))
        print(lowpass, found[str(lowpass)], flush=True)
    (RESULTS / "tetris_spread.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
