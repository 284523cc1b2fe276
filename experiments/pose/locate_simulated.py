"""Whole simulated stacks on the finder's grid, kept in a folder: more heads than eleven fetuses have.

    python experiments/pose/locate_simulated.py --out W/simulated --count 90

No brain comes from a real stack (modes atlas, procedural and random; the median EPI head would hold the held-out
fetuses). Every sixth head lies in uniform tissue, so that a head is learned as well as what surrounds it. About one CPU
second a stack; a stack that is there is not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from locate_data import Stack

from equivox.formats.fetal_templates import read_templates
from equivox.run.seeds import seed_for
from equivox.simulate.stack import SimulatedStack, simulate_stacks
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import prepare_templates
from equivox.tasks.pose.locate_grid import working_grid

CONFIG = StackSimulation(mode_weights=(0.0, 0.4, 0.3, 0.3))
PLAIN_EVERY = 6


def as_source(stack: SimulatedStack, number: int) -> Stack:
    """The stack as those of ``load_stacks`` are; its fold is -2, so that no fold leaves it out."""
    grid = working_grid(stack.image)
    mask = (stack.labels == 1).float()[None]
    label = replace(stack.image, data=mask).resample(grid.affine, grid.shape).data[0]
    volume_ml = stack.drawn.subject.brain_volume_ml
    return Stack(
        id=f"simulated-{number:03d}", fetus=f"simulated-{number:03d}", fold=-2, grade="A", primary=True,
        size=(volume_ml / 290) ** (1 / 3), image=grid.data[0], valid=grid.data[1], mask=label * grid.data[1],
        affine=grid.affine, center_mm=stack.center_mm.double(), mask_volume_ml=volume_ml,
    )  # fmt: skip


def load_simulated(folder: Path) -> list[Stack]:
    """All stacks of a folder of :func:`main`."""
    return [Stack(**torch.load(path, weights_only=True)) for path in sorted(folder.glob("*.pt"))]


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=90)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    files = read_templates(None)
    templates = prepare_templates(files.atlases, files.epi)
    for number in range(args.count):
        path = args.out / f"{number:03d}.pt"
        if path.exists():
            continue
        config = replace(CONFIG, surroundings=number % PLAIN_EVERY != 0)
        (stack,) = simulate_stacks([seed_for(args.seed, "finder", number)], templates=templates, config=config)
        torch.save(vars(as_source(stack, number)), path)
    print(len(load_simulated(args.out)), "stacks")


if __name__ == "__main__":
    main()
