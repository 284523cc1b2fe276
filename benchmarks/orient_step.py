"""A training step of the orientation network's trunk against plain grouped convolutions of the same shapes.

Forward and backward of 9x9 stride 2, 5x5, and 9x9 to one vector, at R = 24 rotations and 64; CPU seconds of one thread,
medians of alternating runs. The plain network has a free filter for every rotation; ours makes its filters from shared
weights in every step, and convolves the picture once with their common profiles.

    python benchmarks/orient_step.py --repeats 5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as functional

from equivox.geometry.so3_grids import rotation_grid
from equivox.nets.orientation import PoseTrunk

CHANNELS, FEATURES, SIDE = (8, 16), 64, 33


def plain_step(count: int, pictures: torch.Tensor) -> Callable[[], None]:
    """One step of grouped convolutions with batch norms, as the trunk has them."""
    first = torch.randn(count * CHANNELS[0], 1, 9, 9, requires_grad=True)
    second = torch.randn(count * CHANNELS[1], CHANNELS[0], 5, 5, requires_grad=True)
    last = torch.randn(count * FEATURES, CHANNELS[1], 9, 9, requires_grad=True)
    norms = [torch.nn.BatchNorm2d(width) for width in CHANNELS]

    def normed(maps: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
        return norm(maps.unflatten(1, (count, -1)).flatten(0, 1)).relu().unflatten(0, (-1, count)).flatten(1, 2)

    def step() -> None:
        maps = normed(functional.conv2d(pictures, first, stride=2), norms[0])
        maps = normed(functional.conv2d(maps, second, groups=count), norms[1])
        functional.conv2d(maps, last, groups=count).square().mean().backward()

    return step


def our_step(grid: str, pictures: torch.Tensor) -> Callable[[], None]:
    """One step of the trunk."""
    trunk = PoseTrunk(SIDE, channels=CHANNELS, features=FEATURES)
    rotations = rotation_grid(grid).matrices.float()

    def step() -> None:
        trunk(pictures, rotations).square().mean().backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures = torch.randn(given.batch, 1, SIDE, SIDE)
    found = []
    for grid in ("O", "d4opt-64"):
        steps = {"plain": plain_step(len(rotation_grid(grid)), pictures), "ours": our_step(grid, pictures)}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(given.repeats):
            for name, step in steps.items():
                start = time.process_time()
                step()
                times[name].append(time.process_time() - start)
        plain, ours = median(times["plain"]), median(times["ours"])
        row = {
            "grid": grid,
            "plain_cpu_s": round(plain, 3),
            "ours_cpu_s": round(ours, 3),
            "ratio": round(ours / plain, 2),
        }
        found.append(row)
        print(row, flush=True)
    if given.out is not None:
        given.out.write_text(
            json.dumps({"batch": given.batch, "repeats": given.repeats, "rows": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
