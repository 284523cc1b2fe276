"""Equivariance of a trained five-layer network on band-limited input under random rotations, basis by basis.

    python benchmarks/equivariance_five_layers.py [--seeds 3] [--steps 30] [--json out.json]

The same network, five convolutions of size 5 with gates between them, fields of degree 0, 1 and 2, once with each
basis. It is trained for a few steps to tell fields of two widths apart, and then turned: random sums of Gaussians are
evaluated at turned points, so nothing is interpolated, and all outputs at the centre voxel (two scalars, a vector, a
field of degree 2) are compared with the turned ones. The last line of the table is a plain CNN of as many channels.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import get_args

import torch
from torch import Tensor, nn

from equivox.geometry.rotations import random_rotations
from equivox.kernels.families import BasisName
from equivox.nn import Gate, SteerableConv3d, unit_variance_
from equivox.testing import band_limited_field, equivariance_error

HIDDEN = ("4x0", "3x1 + 2x2")
OUT = "2x0 + 1x1 + 1x2"
SIDE, RECEPTIVE = 16, 25
TRAINED_WIDTHS = (2.5, 3.5)


def make_network(basis: BasisName | None, generator: torch.Generator) -> nn.Sequential:
    """Five convolutions; ``None``: plain ones of equal width."""
    gate = Gate(*HIDDEN, even="silu")
    modules: list[nn.Module] = []
    before = "1x0"
    for after in [str(gate.irreps_in)] * 4 + [OUT]:
        if basis is not None:
            modules.append(SteerableConv3d(before, after, 5, basis=basis, generator=generator))
            modules.append(gate if after != OUT else nn.Identity())
            before = str(gate.irreps_out)
        else:
            width = 1 if before == "1x0" else gate.irreps_out.dimension
            wanted = gate.irreps_out.dimension if after != OUT else 10
            modules += [nn.Conv3d(width, wanted, 5, padding=2), nn.SiLU() if after != OUT else nn.Identity()]
            before = "wide"
    network = nn.Sequential(*modules)
    if basis is not None:
        unit_variance_(network, batch_of(generator)[0], redraw=False)
    return network


def batch_of(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fields of two widths, and which is which."""
    fields = [
        band_limited_field("1x0", generator=generator, batch=2, width_mm=width).sample((SIDE,) * 3).float()
        for width in TRAINED_WIDTHS
    ]
    both = torch.cat([field / field.std(dim=(1, 2, 3, 4), keepdim=True) for field in fields])
    return both, torch.tensor([0, 0, 1, 1])


def train(network: nn.Module, steps: int, generator: torch.Generator) -> tuple[float, float]:
    """Cross-entropy over the first and over the last fifth of the steps."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.005)
    losses = []
    network.train()
    for _ in range(steps):
        fields, labels = batch_of(generator)
        logits = network(fields)[:, :2].square().mean(dim=(2, 3, 4)).add(1e-3).log()
        loss = nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    network.eval()
    part = max(steps // 5, 1)
    return statistics.mean(losses[:part]), statistics.mean(losses[-part:])


def measure(network: nn.Module, width: float, rotations: int, seed: int) -> float:
    """Root mean square relative error over rotations, on fresh fields."""
    draw = torch.Generator().manual_seed(1000 + seed)
    turns = random_rotations(rotations, generator=draw)
    errors = equivariance_error(
        network, "1x0", OUT, turns, generator=draw, side=RECEPTIVE, batch=2, width_mm=width, dtype=torch.float32
    )
    return float(errors.square().mean().sqrt())


def main() -> None:
    """Train, turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rotations", type=int, default=4)
    parser.add_argument("--widths", type=float, nargs="+", default=[2.0, 2.5, 3.0, 3.5])
    parser.add_argument("--json", help="also write the rows to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bases: list[BasisName | None] = [*get_args(BasisName), None]
    rows: list[dict[str, object]] = []
    ours: dict[tuple[float, int], float] = {}
    columns = [f"width {width:g}" for width in given.widths]
    print("| basis | loss | " + " | ".join(columns) + " | times ours |\n|" + " --- |" * (len(columns) + 3), flush=True)
    for basis in bases:
        losses, found = [], {width: [] for width in given.widths}
        for seed in range(given.seeds):
            draw = torch.Generator().manual_seed(seed)
            torch.manual_seed(seed)
            network = make_network(basis, draw)
            losses.append(train(network, given.steps, draw))
            for width in given.widths:
                found[width].append(measure(network, width, given.rotations, seed))
                ours.setdefault((width, seed), found[width][-1])
        ratios = [
            statistics.geometric_mean(found[width][seed] / ours[width, seed] for seed in range(given.seeds))
            for width in given.widths
        ]
        row: dict[str, object] = {
            "basis": basis or "plain CNN",
            "loss": " → ".join(f"{statistics.mean(values):.2f}" for values in zip(*losses, strict=True)),
            "errors": {str(width): values for width, values in found.items()},
            "ratios": [round(ratio, 1) for ratio in ratios],
        }
        rows.append(row)
        cells = [f"{statistics.geometric_mean(v):.1e} ({min(v):.1e} to {max(v):.1e})" for v in found.values()]
        times = ", ".join(f"{ratio:.0f}" for ratio in ratios)
        print(f"| {row['basis']} | {row['loss']} | " + " | ".join(cells) + f" | {times} |", flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
