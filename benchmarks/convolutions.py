"""Steerable convolutions against a plain ``Conv3d``, e3nn's voxel convolution and escnn's R3Conv on the same irreps.

    python benchmarks/convolutions.py [--full] [--device cuda] [--repeats 7] [--only eval] [--json out.json]

All contestants take turns within a round, on one thread; a ratio is the median over rounds of the two times of the same
round, so what else the machine does falls on both. CPU seconds on a CPU, seconds between synchronisations on a GPU.
``eval``: forward without gradient. ``train``: forward and backward, gradients of the input included. Construction is
timed in fresh processes: cold is the first layer after the imports, warm the next equal one. Without ``--full``: 32
voxels along an edge, kernels of 5, 30 and 72 channels. e3nn and escnn are skipped with a line where they do not import.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LAYOUTS = {30: (6, 3, 3), 72: (14, 6, 8), 144: (28, 12, 16)}
SMALL = [(32, 5, 30), (32, 5, 72)]
FULL = [(side, size, width) for side in (32, 48) for size in (5, 7) for width in LAYOUTS]
NAMES = ("plain", "equivox", "e3nn", "escnn")

CONSTRUCTION = """
import json, sys, time
sys.path.insert(0, {folder!r})
from convolutions import MAKERS, warm_imports
warm_imports({name!r})
times = []
for _ in range(3):
    start = time.process_time()
    layer = MAKERS[{name!r}]({width}, {size})
    times.append(time.process_time() - start)
print(json.dumps(times))
"""
MEMORY = """
import re, sys
sys.path.insert(0, {folder!r})
import torch
from convolutions import MAKERS, as_input, warm_imports
torch.set_num_threads(1)
warm_imports({name!r})
layer = MAKERS[{name!r}]({width}, {size})

def step(side):
    field = as_input({name!r}, layer, torch.randn(1, {width}, side, side, side, requires_grad=True))
    result = layer(field)
    (result.tensor if hasattr(result, "tensor") else result).sum().backward()

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

step(8)  # libraries are loaded, kernels made once
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
base = peak()
step({side})
print(peak() - base)
"""


def make_plain(width: int, size: int) -> nn.Module:
    """A dense convolution."""
    return nn.Conv3d(width, width, size, padding=size // 2, bias=False)


def make_equivox(width: int, size: int) -> nn.Module:
    """Ours, default basis."""
    from equivox.nn import SteerableConv3d

    layout = "+".join(f"{count}x{degree}" for degree, count in enumerate(LAYOUTS[width]))
    return SteerableConv3d(layout, layout, size)


def make_e3nn(width: int, size: int) -> nn.Module:
    """e3nn, harmonics up to degree 2, as many radial functions as taps along an axis."""
    from e3nn.nn.models.v2104.voxel_convolution import Convolution

    layout = "+".join(f"{count}x{degree}e" for degree, count in enumerate(LAYOUTS[width]))
    made: nn.Module = Convolution(layout, layout, "0e+1e+2e", float(size), size)
    return made


def make_escnn(width: int, size: int) -> nn.Module:
    """escnn, default rings, no bias."""
    from escnn import gspaces
    from escnn import nn as escnn_nn

    space = gspaces.rot3dOnR3(maximum_frequency=2)
    fields = [space.irrep(degree) for degree, count in enumerate(LAYOUTS[width]) for _ in range(count)]
    kind = escnn_nn.FieldType(space, fields)
    made: nn.Module = escnn_nn.R3Conv(kind, kind, kernel_size=size, padding=size // 2, bias=False)
    return made


MAKERS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": make_plain,
    "equivox": make_equivox,
    "e3nn": make_e3nn,
    "escnn": make_escnn,
}


def warm_imports(name: str) -> None:
    """Import what a contestant needs, so that construction times hold no imports."""
    warnings.simplefilter("ignore")
    if name == "equivox":
        import equivox.nn  # noqa: F401
    elif name == "e3nn":
        import e3nn.nn.models.v2104.voxel_convolution  # noqa: F401
    elif name == "escnn":
        import escnn.gspaces
        import escnn.nn  # noqa: F401


def as_input(name: str, layer: Any, field: torch.Tensor) -> Any:
    """The field as a contestant wants it."""
    if name != "escnn":
        return field
    from escnn.nn import GeometricTensor

    return GeometricTensor(field, layer.in_type)


def usable() -> list[str]:
    """Contestants that make a layer here; a line for each that does not."""
    found = []
    for name in NAMES:
        try:
            warm_imports(name)
            MAKERS[name](30, 3)
            found.append(name)
        except Exception as error:  # another library may fail in any way
            print(f"{name} is skipped: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return found


@dataclass
class Bench:
    """One cell of the grid."""

    side: int
    size: int
    width: int
    mode: str
    device: str
    amp: bool

    def times(self, names: list[str], repeats: int) -> dict[str, list[float]]:
        """Seconds of every round (the first one, which warms up, is dropped)."""
        layers = {name: MAKERS[name](self.width, self.size).to(self.device) for name in names}
        field = torch.randn(1, self.width, *[self.side] * 3, device=self.device)
        if self.device != "cpu":
            field = field.contiguous(memory_format=torch.channels_last_3d)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for round_ in range(repeats + 1):
            for name in names if round_ % 2 else reversed(names):  # so that no place in the round is an advantage
                taken = self.once(name, layers[name], field)
                if round_:
                    seconds[name].append(taken)
        return seconds

    def once(self, name: str, layer: nn.Module, field: torch.Tensor) -> float:
        """Seconds of one pass."""
        layer.train(self.mode == "train")
        layer.zero_grad()
        moved = as_input(name, layer, field.detach().clone().requires_grad_(self.mode == "train"))
        start = self.now()
        with (
            torch.set_grad_enabled(self.mode == "train"),
            torch.autocast(self.device, torch.bfloat16, enabled=self.amp),
        ):
            result = layer(moved)
        if self.mode == "train":
            result = result.tensor if name == "escnn" else result
            result.backward(result.detach())
        return self.now() - start

    def now(self) -> float:
        """A clock."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def row_of(bench: Bench, names: list[str], repeats: int) -> dict[str, object]:
    """Ratios of one cell."""
    seconds = bench.times(names, repeats)

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds["equivox"], seconds[other], strict=True))

    row: dict[str, object] = {"mode": bench.mode, "side": bench.side, "size": bench.size, "channels": bench.width}
    row["plain_s"] = round(statistics.median(seconds["plain"]), 4)
    for other in names:
        if other != "equivox":
            row[f"to {other}"] = round(ratio(other), 3)
    return row


def child(template: str, **values: object) -> Any:
    """What a fresh process prints."""
    folder = __file__.rpartition("/")[0] or "."
    done = subprocess.run(
        [sys.executable, "-c", template.format(folder=folder, **values)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def construction(names: list[str]) -> list[dict[str, object]]:
    """Cold and warm construction, CPU seconds."""
    rows = []
    for name in names:
        for size, width in ((5, 72), (7, 72)):
            times = child(CONSTRUCTION, name=name, width=width, size=size)
            rows.append({"layer": name, "size": size, "channels": width, "cold_s": round(times[0], 4)})
            rows[-1]["warm_s"] = round(min(times[1:]), 4)
    return rows


def memory(names: list[str]) -> list[dict[str, object]]:
    """Peak memory of a training step above what the process holds before it, MiB (Linux)."""
    shape = {"side": 64, "size": 5, "width": 30}
    return [{"layer": name, **shape, "peak_mib": round(child(MEMORY, name=name, **shape))} for name in names]


def added(names: list[str]) -> list[dict[str, object]]:
    """What making kernels and their gradients adds to a training step of ours, CPU milliseconds: free of noise."""
    from equivox.nn.folding import make_kernels

    rows: list[dict[str, object]] = []
    for size in (5, 7) if "equivox" in names else ():
        for width in LAYOUTS:
            layer = make_equivox(width, size)
            made, back = [], []
            for _ in range(11):
                start = time.process_time()
                kernels = make_kernels(layer.plan, layer.weight, layer.self_connection)  # type: ignore[arg-type]
                middle = time.process_time()
                torch.autograd.backward(kernels, [torch.ones_like(kernel) for kernel in kernels])
                made.append(1e3 * (middle - start))
                back.append(1e3 * (time.process_time() - middle))
            rows.append({"size": size, "channels": width, "kernel_ms": round(statistics.median(made), 2)})
            rows[-1]["gradient_ms"] = round(statistics.median(back), 2)
    return rows


def networks() -> list[dict[str, object]]:
    """Construction of the published CATH networks, CPU seconds."""
    from equivox.nets.classifiers import build_classifier

    rows = []
    for name in ("se3resnet34_small", "se3resnet34"):
        start = time.process_time()
        network = build_classifier(name, classes=10)
        taken = time.process_time() - start
        rows.append({"network": name, "parameters": sum(p.numel() for p in network.parameters()), "s": round(taken, 3)})
    return rows


def table(rows: list[dict[str, object]]) -> None:
    """Print as Markdown."""
    if rows:
        columns = list(rows[0])
        print("\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
        for row in rows:
            print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole grid: many minutes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="bf16 autocast")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=["eval", "train", "build"], help="a part of it")
    parser.add_argument("--cells", help="side:size:channels,... instead of the usual grid")
    parser.add_argument("--names", nargs="+", choices=NAMES, help="only these contestants (plain and equivox at least)")
    parser.add_argument("--json", help="also write the rows to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if given.device != "cpu" else torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {device}, {platform.machine()}, 1 thread, float32, batch 1")
    names = [name for name in usable() if not given.names or name in given.names]
    cells = FULL if given.full else SMALL
    if given.cells:
        cells = [(int(a), int(b), int(c)) for a, b, c in (cell.split(":") for cell in given.cells.split(","))]
    modes = [mode for mode in ("eval", "train") if given.only in (None, mode)]
    rows = [
        row_of(Bench(*cell, mode, given.device, given.amp), names, given.repeats) for mode in modes for cell in cells
    ]
    table(rows)
    for mode in modes:
        for other in names:
            ratios = [float(str(row[f"to {other}"])) for row in rows if row["mode"] == mode and f"to {other}" in row]
            if ratios:
                mean = math.exp(statistics.mean(math.log(value) for value in ratios))
                print(f"{mode}: geometric mean to {other} {mean:.3f}, largest {max(ratios):.3f}")
    built: list[dict[str, object]] = []
    if given.device == "cpu" and given.only in (None, "build"):
        for part in (added(names), construction(names), memory(names), networks()):
            table(part)
            built += part
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "device": device, "rows": rows, "built": built}, file, indent=1)


if __name__ == "__main__":
    main()
