"""Cost of the layers against a plain ``Conv3d`` of the same channels, in one interleaved run.

    python benchmarks/layers.py [--repeats 7] [--json out.json]

One thread, medians of CPU seconds, float32, batch 1. Ratios travel between machines, seconds do not. ``eval``: forward
without gradient, kernel kept. ``train``: forward and backward, kernel made anew each time. ``assembly``: making the
kernel, as a share of the plain forward. ``skipped``: share of multiplications that parity makes unnecessary.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from equivox.geometry.irreps import Irreps
from equivox.nn import FieldInstanceNorm, Gate, SmoothFinite, SteerableConv3d
from equivox.nn.folding import make_kernels

HIDDEN = Irreps("4x0e+4x0o+2x1e+2x1o+1x2e+1x2o")
GATED = Irreps("4x0o+10x0e+2x1o+2x1e+1x2o+1x2e")
PUBLISHED = {"radial": SmoothFinite(5), "lmax": 4}
CASES = [
    ("scalars to vectors, first layer", "1x0e", "8x0e+4x1o", 32, {}),
    ("6x0+3x1+3x2, SO(3), shells", "6x0+3x1+3x2", "6x0+3x1+3x2", 32, {}),
    ("8x0e+4x1o+2x2e, shells", "8x0e+4x1o+2x2e", "14x0e+4x1o+2x2e", 32, {}),
    ("E(3)-CNN level 0, first", "1x0e", GATED * 2, 32, PUBLISHED),
    ("E(3)-CNN level 0, second", HIDDEN * 2, GATED * 2, 32, PUBLISHED),
    ("E(3)-CNN level 1, second", HIDDEN * 4, GATED * 4, 16, PUBLISHED),
    ("E(3)-CNN level 2, second", HIDDEN * 8, GATED * 8, 16, PUBLISHED),
    ("E(3)-CNN level 3, second", HIDDEN * 16, GATED * 16, 8, PUBLISHED),
]


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(
    name: str, layout_in: object, layout_out: object, side: int, options: dict[str, object], repeats: int
) -> dict[str, object]:
    """One row of the table."""
    draw = torch.Generator().manual_seed(0)
    start = time.process_time()
    layer = SteerableConv3d(Irreps(layout_in), Irreps(layout_out), 5, generator=draw, **options)  # type: ignore[arg-type]
    build = time.process_time() - start
    channels_in, channels_out = layer.irreps_in.dimension, layer.irreps_out.dimension
    plain = nn.Conv3d(channels_in, channels_out, 5, padding=2, bias=False)
    field = torch.randn(1, channels_in, side, side, side, generator=draw)
    goal = torch.randn(1, channels_out, side, side, side, generator=draw)

    def evaluate(module: nn.Module) -> None:
        with torch.no_grad():
            module(field)

    def train(module: nn.Module) -> None:
        module.zero_grad()
        moved = field.clone().requires_grad_()
        module(moved).backward(goal)

    def assemble() -> None:
        with torch.no_grad():
            make_kernels(layer.plan, layer.weight, layer.self_connection)

    times: dict[str, list[float]] = {key: [] for key in ("plain", "eval", "plain_train", "train", "assembly")}
    for round_ in range(repeats + 1):
        plain.eval(), layer.eval()
        row = [("plain", seconds(lambda: evaluate(plain))), ("eval", seconds(lambda: evaluate(layer)))]
        plain.train(), layer.train()
        row += [("plain_train", seconds(lambda: train(plain))), ("train", seconds(lambda: train(layer)))]
        row += [("assembly", seconds(assemble))]
        for key, value in row:
            if round_:  # the first round warms up
                times[key].append(value)
    middle = {key: statistics.median(values) for key, values in times.items()}
    macs = sum(out * inner for out, inner, _ in layer.plan.kernel_shapes())
    return {
        "layer": name,
        "channels": f"{channels_in}->{channels_out}",
        "side": side,
        "build_cpu_s": round(build, 4),
        "plain_cpu_s": round(middle["plain"], 4),
        "eval_ratio": round(middle["eval"] / middle["plain"], 3),
        "train_ratio": round(middle["train"] / middle["plain_train"], 3),
        "assembly_share": round(middle["assembly"] / middle["plain"], 3),
        "skipped": round(1 - macs / (channels_in * channels_out), 3),
    }


def measure_pointwise(repeats: int) -> list[dict[str, object]]:
    """Norm and gate against the plain convolution that they follow at level 0 of the E(3)-CNN."""
    gate = Gate("8x0e+8x0o", "4x1e+4x1o+2x2e+2x2o")
    norm = FieldInstanceNorm(gate.irreps_in)
    plain = nn.Conv3d(60, 72, 5, padding=2, bias=False)
    field, wide = torch.randn(1, 60, 32, 32, 32), torch.randn(1, 72, 32, 32, 32)
    times: dict[str, list[float]] = {"plain": [], "norm": [], "gate": []}
    with torch.no_grad():
        for _ in range(repeats + 1):
            times["plain"].append(seconds(lambda: plain(field)))
            times["norm"].append(seconds(lambda: norm(wide)))
            times["gate"].append(seconds(lambda: gate(wide)))
    base = statistics.median(times["plain"][1:])
    return [
        {"layer": f"{name} (72 channels, 32^3)", "eval_ratio": round(statistics.median(times[name][1:]) / base, 3)}
        for name in ("norm", "gate")
    ]


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", help="also write the rows to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(*case, repeats=given.repeats) for case in CASES]  # type: ignore[arg-type]
    rows += measure_pointwise(given.repeats)
    columns = list(rows[0])
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread, float32, batch 1, 5^3 taps")
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "rows": rows}, file, indent=1, sort_keys=True)


if __name__ == "__main__":
    main()
