"""Time and memory of an imported E(3)-Pose of the default architecture, one thread, as ratios in one run.

Weights are the formula weights of the fixtures (no released checkpoint is at hand; the cost does not depend on them).
The plain stack has the same convolutions as the E(3)-CNN, dense, and its poolings, but no norm and no gate.

    python benchmarks/pose_published.py [--repeats 3] [--json out.json] [--only command|networks|unet]

Goals: build at most 0.5 CPU s; E(3)-CNN forward at most 1.05 times the plain stack; peak of the command at most 2.5 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from equivox.nets.pose import PoseNet
from equivox.nets.unet import UNet

SIDE, UNET_SIDE = 64, 128
UNET_PARTS = {"first": "0", "second": "2", "norm": "4"}
POSE_PARTS = {
    "convolution.weight": "conv{}.weight",
    "convolution.self_connection": "conv{}.sc.weight",
    "norm.weight": "batchnorm{}.weight",
    "norm.bias": "batchnorm{}.bias",
}


class PlainStack(nn.Module):
    """The E(3)-CNN's convolutions as dense ``Conv3d``, with its poolings."""

    def __init__(self, network: PoseNet) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for block in network.blocks:
            self.levels.append(nn.ModuleList([_dense(block.first.convolution), _dense(block.second.convolution)]))
        self.widths = [block.irreps_out.dimension for block in network.blocks]
        self.output = _dense(network.output)

    def forward(self, field: Tensor) -> Tensor:
        """Convolve, keep as many channels as the gate would, pool."""
        for level, (pair, width) in enumerate(zip(self.levels, self.widths, strict=True)):
            field = nn.functional.max_pool3d(field, 2) if level else field
            for convolution in pair:
                field = convolution(field)[:, :width]
        return self.output(field)


def _dense(layer: nn.Module) -> nn.Conv3d:
    size = layer.grid.taps[0]
    return nn.Conv3d(layer.irreps_in.dimension, layer.irreps_out.dimension, size, padding=size // 2, bias=False)


def formula(number: int, shape: torch.Size) -> Tensor:
    """The fixtures' formula weights."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    z = torch.sin(12.9898 * index + 78.233 * (number + 1)) * 43758.5453
    return ((2 * (z - z.floor()) - 1) * math.sqrt(3)).reshape(shape)


def write_checkpoints(folder: Path) -> tuple[Path, Path]:
    """Both published containers at the default sizes, with formula weights under the original names."""
    unet_state: dict[str, Tensor] = {}
    for number, (name, value) in enumerate(UNet().state_dict().items()):
        h = formula(number, value.shape) if value.dim() else value
        if value.dim() == 5:
            h = h / math.sqrt(math.prod(value.shape[1:]))
        elif name.endswith("running_mean"):
            h = torch.zeros(value.shape)
        elif name.endswith("running_var"):
            h = torch.ones(value.shape)
        elif value.dim():
            h = 1 + 0.1 * h if name.endswith("norm.weight") else 0.1 * h
        side, _, rest = name.partition(".")
        if side == "head":
            original = f"last_conv.{rest}"
        else:
            level, part, kind = rest.split(".")
            original = f"list_{side}_blocks.{level}.{UNET_PARTS[part]}.{kind}"
        unet_state[f"model.{original}"] = h.to(value.dtype)
    pose_state: dict[str, Tensor] = {}
    for number, (name, value) in enumerate(PoseNet().state_dict().items()):
        h = formula(number, value.shape)
        if ".norm." in name:
            h = 1 + 0.1 * h if name.endswith("weight") else 0.1 * h
        if name.startswith("output."):
            original = "out." + name.removeprefix("output.").replace("self_connection", "sc.weight")
        else:
            _, level, stage, rest = name.split(".", 3)
            original = f"down.down_blocks.{level}." + POSE_PARTS[rest].format({"first": 1, "second": 2}[stage])
        pose_state[f"net.{original}"] = h.to(value.dtype)
    unet, pose = folder / "unet.ckpt", folder / "e3cnn.pth"
    torch.save({"state_dict": unet_state, "epoch": 0, "global_step": 0}, unet)
    torch.save({"net_state_dict": pose_state, "epoch": 0}, pose)
    return unet, pose


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


@torch.inference_mode()
def time_networks(repeats: int) -> dict[str, float]:
    """Build, E(3)-CNN against the plain stack, U-Net; medians of interleaved runs."""
    PoseNet(poolings=1)  # imports and small caches
    build = statistics.median(cpu_seconds(PoseNet) for _ in range(max(3, repeats)))
    network = PoseNet(odd_scalars="signed", gate_constants="published").eval()
    plain = PlainStack(network).eval()
    image = torch.rand(1, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    first = cpu_seconds(lambda: network(image))
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(cpu_seconds(lambda: plain(image)))
        ours.append(cpu_seconds(lambda: network(image)))
        print(f"plain stack {theirs[-1]:.2f}, E(3)-CNN {ours[-1]:.2f} CPU s", file=sys.stderr, flush=True)
    return {
        "build_cpu_s": build,
        "first_forward_cpu_s": first,
        "forward_cpu_s": statistics.median(ours),
        "plain_stack_cpu_s": statistics.median(theirs),
        "forward_over_plain": statistics.median(ours) / statistics.median(theirs),
        "first_forward_over_plain": first / statistics.median(theirs),
    }


@torch.inference_mode()
def time_unet(repeats: int) -> dict[str, float]:
    """The U-Net with its channels together, as inference runs it, and with its voxels together; interleaved."""
    together = UNet().eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    apart = UNet().eval()
    volume = torch.rand(1, 1, *[UNET_SIDE] * 3, generator=torch.Generator().manual_seed(0))
    cpu_seconds(lambda: together(volume))
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(cpu_seconds(lambda: apart(volume)))
        ours.append(cpu_seconds(lambda: together(volume)))
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return {
        "unet_forward_cpu_s": statistics.median(ours),
        "unet_voxels_together_cpu_s": statistics.median(theirs),
        "unet_layout_ratio": ratio,
    }


def measure_command(folder: Path) -> dict[str, float]:
    """Import, then ``equivox pose predict`` on one volume of 96 x 96 x 64 voxels: CPU time and peak memory."""
    import nibabel
    import numpy as np

    unet, pose = write_checkpoints(folder)
    command = [sys.executable, "-m", "equivox.cli.main"]
    model = folder / "model"
    thresholds = ["--thresholds", "-1", "-1", "-1"]  # every voxel counts as object: both networks run
    subprocess.run([*command, "model", "import", unet, pose, "--out", model, *thresholds], check=True)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (96, 96, 64)], indexing="ij"))
    head = np.exp(-(grid[0] ** 2 / 0.2 + grid[1] ** 2 / 0.3 + grid[2] ** 2 / 0.15)) + 0.1 * np.cos(
        9 * grid[0] * grid[1]
    )
    scan = folder / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(head.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0])), scan)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = before.ru_utime + before.ru_stime
    arguments = [
        "pose",
        "predict",
        scan,
        "--out",
        folder / "out",
        "--model",
        model,
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "command_exit_code": float(os.waitstatus_to_exitcode(status)),
        "command_cpu_s": after.ru_utime + after.ru_stime - begin,
        "command_peak_gb": usage.ru_maxrss * 1024 / 1e9,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["command", "networks", "unet"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, float] = {}
    if options.only in (None, "command"):
        with tempfile.TemporaryDirectory() as folder:
            result |= measure_command(Path(folder))
    if options.only in (None, "networks"):
        result |= time_networks(options.repeats)
    if options.only in (None, "networks", "unet"):
        result |= time_unet(options.repeats)
        if "plain_stack_cpu_s" in result:
            result["unet_over_plain"] = result["unet_forward_cpu_s"] / result["plain_stack_cpu_s"]
    print(f"torch {torch.__version__}, 1 thread, float32; E(3)-CNN 1x{SIDE}^3, U-Net 1x{UNET_SIDE}^3")
    for name, value in result.items():
        print(f"{name:28} {value:8.3f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
