"""Projected layers: cost beside a plain grouped convolution, equivariance beside what is published.

    python benchmarks/projected.py cost [--repeats 5] [--json out.json]
    python benchmarks/projected.py error [--figure docs/images/projected_error.svg]
    python benchmarks/projected.py accuracy
    python benchmarks/projected.py tables --out tables.npz

``cost``: forward and backward of one layer at 64 rotations, batch 16, one thread; each contestant takes turns with the
plain convolution, and a ratio is the median over rounds of the two times of a round (CPU seconds). ``error``: in-plane
error per layer (plane waves turned analytically) and of whole networks on images of blobs turned analytically.
``accuracy``: AL1 against the product form. ``tables``: recompute the optimised grids and compare their covering radii
with those shipped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.so3_grid_points import optimised_sizes
from equivox.geometry.so3_grids import RotationGrid, rotation_grid, square_group
from equivox.kernels.projected_error import in_plane_error
from equivox.nets.projected import ProjectedClassifier
from equivox.nn import ProjectedConv2d, aggregate

LAYERS = ((1, 4, 9, 45), (4, 8, 7, 19), (8, 16, 7, 13))
ROTATIONS, BATCH = "d4opt-64", 16
ANGLES = (15.0, 30.0, 45.0)


class Grouped(nn.Module):
    """A plain convolution of the same shape, as PyTorch has it."""

    def __init__(self, channels_in: int, channels_out: int, size: int, rotations: int, lifting: bool) -> None:
        super().__init__()
        groups = 1 if lifting else rotations
        self.conv = nn.Conv2d(channels_in * groups, channels_out * rotations, size, groups=groups)

    def forward(self, field: Tensor) -> Tensor:
        found: Tensor = self.conv(field)
        return found


def cost(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    grid = rotation_grid(ROTATIONS)
    rows = []
    for channels_in, channels_out, size, side in LAYERS:
        lifting = channels_in == 1
        field = torch.randn(BATCH, channels_in * (1 if lifting else len(grid)), side, side, requires_grad=not lifting)
        make: dict[str, nn.Module] = {"plain": Grouped(channels_in, channels_out, size, len(grid), lifting)}
        for name, weight, evaluation in (
            ("ours", "ball", "auto"),
            ("filters", "ball", "filters"),
            ("cube", "cube", "auto"),
        ):
            make[name] = ProjectedConv2d(
                channels_in, channels_out, size, grid, lifting=lifting, weight=weight, evaluation=evaluation,  # type: ignore[arg-type]
                padding="valid",
            )  # fmt: skip
        if not lifting:
            make.pop("filters")
        training = compare({name: step_of(layer, field) for name, layer in make.items()}, arguments.repeats)
        generation = {
            name: timed(generation_of(layer), 5)
            for name, layer in make.items()
            if isinstance(layer, ProjectedConv2d) and name != "filters"
        }
        for layer in make.values():
            layer.eval()
        still = field.detach()
        with torch.no_grad():
            inference = compare({name: partial(layer, still) for name, layer in make.items()}, arguments.repeats)
        row: dict[str, Any] = {"layer": [channels_in, channels_out, size, side], "training": training}
        row |= {"inference": inference, "generation_s": generation}
        rows.append(row)
        share = generation["ours"] / training["seconds"]["ours"]
        print(
            f"{channels_in} -> {channels_out}, {size} px on {side}: plain step {training['seconds']['plain']:.3f} s; "
            "ratios "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in training["ratios"].items())
            + "; inference "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in inference["ratios"].items())
            + f"; filters of ours {1e3 * generation['ours']:.2f} ms ({100 * share:.2f} % of a step), of cubes "
            f"{1e3 * generation['cube']:.1f} ms",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rotations": ROTATIONS, "batch": BATCH, "layers": rows}, indent=1) + "\n")


def step_of(layer: nn.Module, field: Tensor) -> Callable[[], object]:
    """Forward and backward, gradients of weights and (behind the first layer) of the input."""

    def step() -> None:
        layer.zero_grad()
        field.grad = None
        layer(field).sum().backward()

    return step


def generation_of(layer: ProjectedConv2d) -> Callable[[], object]:
    """Make the filters and carry a gradient back through them."""

    def make() -> None:
        filters = layer._profile_weights() if layer.uses_profiles() else layer.filters()
        filters.sum().backward()

    return make


def timed(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def compare(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Each against ``plain``, by turns, so that both find the same memory: medians of seconds and of ratios."""
    seconds: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for name in work:
        if name == "plain":
            continue
        pair = {"plain": work["plain"], name: work[name]}
        for one in pair.values():
            one()
        rounds = []
        for number in range(repeats):
            times = {}
            for who in list(pair)[:: 1 if number % 2 else -1]:
                start = time.process_time()
                pair[who]()
                times[who] = time.process_time() - start
            rounds.append(times)
        ratios[name] = statistics.median(one[name] / one["plain"] for one in rounds)
        seconds[name] = statistics.median(one[name] for one in rounds)
        seconds.setdefault("plain", statistics.median(one["plain"] for one in rounds))
    return {"seconds": seconds, "ratios": ratios}


def error(arguments: argparse.Namespace) -> None:
    print("| k | weight | f_max 0.125 | 0.25 | 0.4 |\n|---|---|---|---|---|")
    for size in (5, 7, 9, 11):
        for weight, richness in (("cube", "exact"), ("cube_padded", "exact"), ("ball", "exact"), ("ball", "rich")):
            cells = [
                " ".join(
                    f"{in_plane_error(size, weight=weight, richness=richness, angle_deg=angle, frequency_max=top):.4f}"  # type: ignore[arg-type]
                    for angle in ANGLES
                )
                for top in (0.125, 0.25, 0.4)
            ]
            print(
                f"| {size} | {weight}{' (rich)' if richness == 'rich' else ''} | " + " | ".join(cells) + " |",
                flush=True,
            )
    curves = network_curves()
    for name, values in curves.items():
        print(name, " ".join(f"{angle:g}: {value:.4f}" for angle, value in values))
    if arguments.figure:
        draw(curves, arguments.figure)


def blobs(angle_deg: float, side: int, images: int, sigma: float = 1.5) -> Tensor:
    """Images of 12 Gaussian blobs, turned analytically about the centre."""
    draws = torch.Generator().manual_seed(5)
    centres = (torch.rand(images, 12, 2, generator=draws, dtype=torch.float64) - 0.5) * 0.8 * side
    sizes = torch.randn(images, 12, 1, 1, generator=draws, dtype=torch.float64)
    centres = centres @ rotation_about("z", angle_deg)[:2, :2].mT
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    far = (x - centres[..., 0, None, None]) ** 2 + (y - centres[..., 1, None, None]) ** 2
    return (sizes * torch.exp(-far / (2 * sigma**2))).sum(dim=1, keepdim=True)


def network_curves() -> dict[str, list[tuple[float, float]]]:
    """Change of the features (after the permutation; for the plain network of its own), relative to their spread.

    Three layers 1-4-8-8 of 9, 7, 7 pixels, ReLU; 96 rotations whose in-plane angles are multiples of 15 degrees.
    """
    side, curves = 21, {}
    with torch.no_grad():
        for weight, name in (("ball", "ours (balls)"), ("cube", "cubes, interpolated")):
            network = ProjectedClassifier(
                grid="d4-fibonacci-4x24", channels=(4, 8), classes=8, kernel_sizes=(9, 7, 7), weight=weight,  # type: ignore[arg-type]
                subsampling="none", norm="none", generator=torch.Generator().manual_seed(2),
            ).double()  # fmt: skip
            before = network.rotation_logits(blobs(0.0, side, 24))[..., 0, 0]
            curves[name] = []
            for step in range(7):
                angle = 15.0 * step
                order = network.grid.permutation(rotation_about("z", angle))
                after = network.rotation_logits(blobs(angle, side, 24))[..., 0, 0]
                curves[name].append((angle, float((after[:, order] - before).square().mean().sqrt() / before.std())))
        torch.manual_seed(0)
        plain = nn.Sequential(
            nn.Conv2d(1, 12, 9), nn.ReLU(), nn.Conv2d(12, 24, 7), nn.ReLU(), nn.Conv2d(24, 8, 7)
        ).double()
        before = plain(blobs(0.0, side, 24))[..., 0, 0]
        curves["plain convolutions"] = []
        for step in range(7):
            after = plain(blobs(15.0 * step, side, 24))[..., 0, 0]
            spread = (before - before.mean(dim=0)).square().mean().sqrt()
            curves["plain convolutions"].append((15.0 * step, float((after - before).square().mean().sqrt() / spread)))
    return curves


def draw(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    from equivox.report.figures import BLUE, GREY, RED, as_svg, new_figure

    colours = {"ours (balls)": BLUE, "cubes, interpolated": RED, "plain convolutions": GREY}
    with new_figure(5.6, 3.0) as figure:
        panel: Any = figure.subplots()
        for name, values in curves.items():
            angles, levels = zip(*values, strict=True)
            panel.semilogy(angles, np.maximum(levels, 1e-16), "o-", ms=3.5, lw=1.3, color=colours[name], label=name)
        panel.set(
            xlabel="in-plane angle [°]", ylabel="change of features / spread", xticks=range(0, 91, 15), ylim=(1e-16, 10)
        )
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8, loc="center right")
        path.write_bytes(as_svg(figure))


def accuracy(arguments: argparse.Namespace) -> None:
    print("| logits of 256 rotations | stable | product form, float32 |\n|---|---|---|")
    for level in (-120.0, -50.0, -15.0, 0.0, 15.0, 100.0):
        logits = torch.full((256,), level)
        bias = math.log(math.expm1(math.log(2) / 256))
        product = 1 - torch.sigmoid(-(logits + bias)).prod()
        naive = float(torch.log(product) - torch.log1p(-product))
        print(f"| {level:g} | {float(aggregate(logits, 'al1', 0)):.5g} | {naive:.5g} |")


def tables(arguments: argparse.Namespace) -> None:
    """Representatives spread by minimising an energy over their orbits; the best covering of several starts."""
    found = {}
    for count in arguments.sizes or optimised_sizes():
        best: tuple[float, Tensor] | None = None
        for start in range(arguments.starts):
            grid = optimise(count, start)
            radius = grid.covering_radius_deg()
            if best is None or radius < best[0]:
                best = (radius, grid.quaternions)
        assert best is not None
        shipped = rotation_grid(f"d4opt-{count}").covering_radius_deg()
        print(
            f"d4opt-{count}: covering {best[0]:.2f} degrees from {arguments.starts} starts, shipped {shipped:.2f}",
            flush=True,
        )
        found[f"quaternions_xyzw_{count}"] = best[1].numpy()
    if arguments.out:
        np.savez_compressed(arguments.out, **found)


def optimise(count: int, seed: int) -> RotationGrid:
    """One start: ``count / 8`` free rotations and what the square's symmetries make of them (projection2d.md 4.1)."""
    from equivox.geometry.rotations import quaternion_from_rotation, rotation_from_quaternion

    elements = quaternion_from_rotation(square_group())
    draws = torch.Generator().manual_seed(seed)
    free = quaternion_from_rotation(random_rotations(count // 8, generator=draws)).requires_grad_()

    def energy(power: float) -> Tensor:
        unit = free / free.norm(dim=1, keepdim=True)
        orbit = multiply(elements[:, None], unit[None])  # (8, n, 4)
        cosine = torch.einsum("ia,gja->gij", unit, orbit).square()
        itself = torch.zeros_like(cosine, dtype=torch.bool)
        itself[0] = torch.eye(len(unit), dtype=torch.bool)
        return (1.0 - cosine.masked_fill(itself, 0.0) + 1e-9).pow(-power / 2).masked_fill(itself, 0.0).sum()

    for power in (4.0, 12.0):
        optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

        def closure(optimizer: torch.optim.LBFGS = optimizer, power: float = power) -> Tensor:
            optimizer.zero_grad()
            value = energy(power)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[arg-type]
    members = square_group()[:, None] @ rotation_from_quaternion(free.detach())[None]
    return RotationGrid(f"start {seed}", members.flatten(0, 1))


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Hamilton product of quaternions (x, y, z, w)."""
    vector = first[..., 3:] * second[..., :3] + second[..., 3:] * first[..., :3]
    vector = vector + torch.linalg.cross(*torch.broadcast_tensors(first[..., :3], second[..., :3]))
    scalar = first[..., 3] * second[..., 3] - (first[..., :3] * second[..., :3]).sum(-1)
    return torch.cat([vector, scalar[..., None]], dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("cost")
    running.add_argument("--repeats", type=int, default=24)
    running.add_argument("--json", type=Path)
    running.set_defaults(work=cost)
    errors = commands.add_parser("error")
    errors.add_argument("--figure", type=Path)
    errors.set_defaults(work=error)
    commands.add_parser("accuracy").set_defaults(work=accuracy)
    making = commands.add_parser("tables")
    making.add_argument("--sizes", type=int, nargs="*")
    making.add_argument("--starts", type=int, default=10)
    making.add_argument("--out", type=Path)
    making.set_defaults(work=tables)
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
