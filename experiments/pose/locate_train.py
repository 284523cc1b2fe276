"""Train the finder on the stacks outside one fold (or on all of them) and write its weights and held-out maps.

python experiments/pose/locate_train.py --fold 0 --steps 900
python experiments/pose/locate_train.py --fold -1          (all stacks: the weights that are shipped)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as functional
from locate_data import Stack, load_stacks
from locate_samples import Sampler, Source
from locate_simulated import load_simulated
from safetensors.torch import load_file, save_file
from torch import Tensor

from equivox.nets.finder import FinderNet

ARCHITECTURE = {"levels": 3, "features": 16, "norm": "batch", "contrast_cells": 5}


def loss_of(logits: Tensor, mask: Tensor, weight: Tensor, *, extra: float = 0.0) -> tuple[Tensor, float]:
    """Cross-entropy (brain voxels count ``1 + extra``) plus one minus the batch's soft Dice; also that Dice."""
    weighted = weight * (1 + extra * mask)
    entropy = functional.binary_cross_entropy_with_logits(logits, mask, weight=weighted, reduction="sum")
    entropy = entropy / weight.sum().clamp_min(1)
    probability = logits.sigmoid() * weight
    dice = (2 * (probability * mask).sum() + 1) / (probability.sum() + (mask * weight).sum() + 1)
    return 4 * entropy + 1 - dice, float(dice.detach())


@torch.no_grad()
def probability_map(network: FinderNet, source: Source, flips: tuple[tuple[int, ...], ...] = ((),)) -> Tensor:
    """Brain probability over a whole stack, mean over mirrored passes."""
    network.eval()
    image, valid = source.channels[:1][None], source.channels[1:2][None]
    pad = [n for side in reversed(image.shape[2:]) for n in (0, -side % network.divisor)]
    image, valid = functional.pad(image, pad), functional.pad(valid, pad)
    total = torch.zeros_like(image)
    for flip in flips:
        axes = [axis + 2 for axis in flip]
        total += network(image.flip(axes), valid.flip(axes)).sigmoid().flip(axes)
    x, y, z = source.channels.shape[1:]
    return (total / len(flips) * valid)[0, 0, :x, :y, :z]


def peaks(probability: Tensor, *, reach_cells: int = 9, count: int = 6) -> list[tuple[Tensor, float]]:
    """Places (voxels) where the probability averaged over a brain-sized ball is highest, best first, with that mean."""
    pooled = functional.avg_pool3d(probability[None, None], 2, ceil_mode=True)
    smooth = pooled
    for _ in range(3):
        smooth = functional.avg_pool3d(smooth, 5, stride=1, padding=2)
    highest = functional.max_pool3d(smooth, reach_cells, stride=1, padding=reach_cells // 2)
    found = ((smooth == highest) & (smooth > 0.02))[0, 0].nonzero()
    values = smooth[0, 0][tuple(found.T)]
    order = values.argsort(descending=True)[:count]
    return [(found[i].float() * 2 + 0.5, float(values[i])) for i in order]


def mine(network: FinderNet, sources: list[Source]) -> int:
    """Note where the network sees heads that are none; later crops go there."""
    total = 0
    for source in sources:
        center = source.stack.center_index.float()
        decoys = [place for place, _ in peaks(probability_map(network, source)) if (place - center).norm() > 14]
        source.decoys = decoys[:4]
        total += len(decoys)
    return total


def train(stacks: list[Stack], arguments: argparse.Namespace, out: Path) -> FinderNet:
    """One model."""
    torch.manual_seed(arguments.seed)
    sources = [Source.of(s) for s in stacks if s.fetus != "fet-11"]
    sampler = Sampler(
        sources,
        side=arguments.side,
        seed=arguments.seed + 1,
        head_share=arguments.head_share,
        paste_share=arguments.paste_share,
        reach=arguments.reach,
        coarse_share=arguments.coarse_share,
        simulated=[Source.of(s) for s in load_simulated(arguments.simulated)] if arguments.simulated else [],
        simulated_share=arguments.simulated_share,
    )
    network = FinderNet(**ARCHITECTURE)
    if arguments.start:
        network.load_state_dict(load_file(arguments.start))
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.lr, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=arguments.steps, pct_start=0.1)
    start, running = time.process_time(), [0.0, 0.0]
    mining = {1} if arguments.start else {arguments.steps * k // 10 for k in (3, 5, 7, 9)}
    for step in range(1, arguments.steps + 1):
        if step in mining:
            print(f"step {step} decoys {mine(network, sources)}", flush=True)
        network.train()
        image, valid, mask, weight = sampler.batch(arguments.batch)
        extra = max(0.0, 2 - 4 * step / arguments.steps) if not arguments.start else 0.0
        loss, dice = loss_of(network(image, valid), mask, weight, extra=extra)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = [0.97 * running[0] + 0.03 * float(loss.detach()), 0.97 * running[1] + 0.03 * dice]
        if step % 50 == 0:
            seconds = time.process_time() - start
            print(f"step {step} loss {running[0]:.3f} dice {running[1]:.3f} cpu {seconds:.0f}", flush=True)
    return network


def main() -> None:
    """Train, then say how the held-out stacks fare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("../train/loc"))
    parser.add_argument("--name", default="find")
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head-share", type=float, default=0.55)
    parser.add_argument("--paste-share", type=float, default=0.4)
    parser.add_argument("--reach", type=float, default=0.3, help="how far from a crop's centre its head lies, in sides")
    parser.add_argument("--simulated", type=Path, help="folder of locate_simulated.py")
    parser.add_argument("--simulated-share", type=float, default=0.35, help="of the crops and of the pasted heads")
    parser.add_argument("--coarse-share", type=float, default=0.0, help="crops as of 5 to 8 mm voxels")
    parser.add_argument("--start", type=Path, help="weights of the same fold to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stacks = load_stacks(arguments.shared, arguments.work / "cache")
    network = train([s for s in stacks if s.fold != arguments.fold], arguments, arguments.work)
    save_file(network.state_dict(), arguments.work / f"{arguments.name}_{arguments.fold}.safetensors")
    held = [s for s in stacks if s.fold == arguments.fold]
    for stack in held:
        source = Source.of(stack)
        probability = probability_map(network, source)
        found = peaks(probability)
        errors = [round(float((place - stack.center_index.float()).norm()) * 4, 1) for place, _ in found]
        print(stack.id, stack.grade, "peaks", errors, [round(v, 2) for _, v in found], flush=True)


if __name__ == "__main__":
    main()
