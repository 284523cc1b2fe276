"""CPU seconds (or device seconds) of one simulated stack, by slice thickness and by step.

    python benchmarks/simulate_head.py [--stacks 6] [--device cpu] [--json out.json]

One thread, in this process, templates read before. Goal: at most 2 CPU s for a stack of 3 mm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from equivox.formats.fetal_templates import read_templates
from equivox.simulate.head_volume import paint_head
from equivox.simulate.stack import draw_stack, render_stack
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import HeadTemplates, prepare_templates


def seconds(device: torch.device) -> float:
    """CPU seconds of this process; wall seconds of a device that is waited for."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(templates: HeadTemplates, thick: float, stacks: int, device: torch.device) -> dict[str, float]:
    """Medians over stacks, after one for warming up."""
    config = StackSimulation(thick_slices=thick)
    there = templates.to(device)
    whole, head, voxels = [], [], []
    for seed in range(stacks + 1):
        drawn = draw_stack(seed, config, there)
        start = seconds(device)
        stack = render_stack(drawn, there, config, device=device)
        whole.append(seconds(device) - start)
        generator = torch.Generator(device=device).manual_seed(0)
        start = seconds(device)
        paint_head(drawn.subject, there, voxel_mm=config.head_voxel_mm, generator=generator)
        head.append(seconds(device) - start)
        voxels.append(stack.image.data.numel() / 1e6)
    return {
        "median_s": round(statistics.median(whole[1:]), 3),
        "largest_s": round(max(whole[1:]), 3),
        "head_s": round(statistics.median(head[1:]), 3),
        "million_voxels": round(statistics.median(voxels[1:]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    files = read_templates()
    templates = prepare_templates(files.atlases, files.epi)
    found = {
        name: measure(templates, thick, arguments.stacks, device) for name, thick in (("3 mm", 0.0), ("4.5 mm", 1.0))
    }
    print(f"| slices | median s ({device.type}) | largest | of which the head | million voxels |")
    print("| --- " * 5 + "|")
    for name, row in found.items():
        print(f"| {name} | {row['median_s']} | {row['largest_s']} | {row['head_s']} | {row['million_voxels']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
