"""CPU time of a brain's code at 64 voxels: steerable, folded, a plain network of the same shapes, the published CNN.

    python benchmarks/brain_encoder.py --repeats 5

Interleaved, in the opposite order every other time; CPU seconds with one thread: medians, and ratios as medians of the
ratios of each repetition. The plain network is the folded one with every convolution replaced by a dense one of the
same channels and taps. Also: turning a volume of 64 voxels, and the largest memory of the process.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from equivox.geometry.rotate import rotate_volume
from equivox.geometry.rotations import random_rotations
from equivox.nets.brain_encoder import BrainEncoder, build_encoder
from equivox.nn import fold
from equivox.nn.plain import GroupedConv3d
from equivox.tasks.encode.train_certificate import phantom


def dense(network: BrainEncoder) -> nn.Module:
    """The folded network with free convolutions of the same shapes."""
    plain = fold(network)
    for name, module in list(plain.named_modules()):
        if not isinstance(module, GroupedConv3d | nn.Conv3d) or ".convolutions." in name:
            continue
        steerable = network.get_submodule(name)
        free = nn.Conv3d(
            steerable.irreps_in.dimension, steerable.irreps_out.dimension, steerable.grid.taps,
            padding=steerable.padding, bias=False,
        )  # fmt: skip
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, free)
    return plain.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    volume, mask = phantom(given.side)
    ours = BrainEncoder(given.side, 3.3 * 64 / given.side, generator=draw).eval()
    published = build_encoder("brain_cnn", side=given.side, head="published", norm="batch", generator=draw).eval()
    networks = {"steerable": ours, "folded": fold(ours), "plain": dense(copy.deepcopy(ours)), "published": published}
    turn = random_rotations(1, generator=draw)
    jobs: dict[str, Callable[[], object]] = {
        name: (lambda network=network: network(volume, mask)) for name, network in networks.items()
    }
    jobs |= {kind: (lambda kind=kind: rotate_volume(volume, turn, interpolation=kind)) for kind in ("linear", "cubic")}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    with torch.inference_mode():
        for repeat in range(given.repeats + 1):
            for name, job in list(jobs.items()) if repeat % 2 else reversed(jobs.items()):
                start = time.process_time()
                job()
                if repeat:
                    seconds[name].append(time.process_time() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = {
        name: statistics.median(ours / other for ours, other in zip(seconds["folded"], seconds[name], strict=True))
        for name in ("plain", "published")
    }
    result = {
        "side": given.side,
        "repeats": given.repeats,
        "threads": 1,
        "cpu_seconds": {name: round(value, 4) for name, value in median.items()},
        "folded_over_plain": round(ratio["plain"], 3),
        "folded_over_published": round(ratio["published"], 3),
        "parameters": sum(parameter.numel() for parameter in ours.parameters()),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
