"""Time of folded networks over that of the same networks in evaluation: interleaved CPU seconds, medians, one thread.

python benchmarks/fold_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from equivox.nets.classifiers import build_classifier
from equivox.nets.equivariant_unet import EquivariantUNet
from equivox.nets.head_pose import HeadPoseNet
from equivox.nets.pose import PoseNet
from equivox.nn import fold

ROUNDS = 25
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "shape_net, 33^3": (lambda: build_classifier("shape_net", classes=10), (2, 1, 33, 33, 33)),
    "tetris, 12^3": (lambda: build_classifier("tetris", classes=8), (1, 1, 12, 12, 12)),
    "se3resnet34_small, 17^3": (lambda: build_classifier("se3resnet34_small", classes=10), (1, 1, 17, 17, 17)),
    "head_pose, 32^3": (lambda: HeadPoseNet(2, 32), (1, 2, 32, 32, 32)),
    "pose_net, 24^3": (lambda: PoseNet(3, 5, 2), (1, 1, 24, 24, 24)),
    "equivariant_unet, 16^3": (lambda: EquivariantUNet(norm="batch"), (1, 1, 16, 16, 16)),
}


def seconds(network: nn.Module, volume: Tensor) -> float:
    """CPU seconds of one pass."""
    start = time.process_time()
    network(volume)
    return time.process_time() - start


def main() -> None:
    """Print one row per network."""
    torch.set_num_threads(1)
    print(f"{'network':26} {'eval s':>8} {'folded s':>9} {'ratio':>6} {'difference':>11}")
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        network = make().eval()
        folded = fold(network)
        volume = torch.rand(shape)
        with torch.inference_mode():
            expected, result = network(volume), folded(volume)
            times = [(seconds(network, volume), seconds(folded, volume)) for _ in range(ROUNDS)]
        difference = float((result - expected).abs().max() / expected.abs().max())
        plain, quick = median(a for a, _ in times), median(b for _, b in times)
        ratio = median(b / a for a, b in times)
        print(f"{name:26} {plain:8.4f} {quick:9.4f} {ratio:6.3f} {difference:11.1e}")


if __name__ == "__main__":
    main()
