"""Networks that say whether a crop holds a particle in its middle: the arms, one training, and what is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equivox.metrics.picking import precision_recall
from equivox.nets.projected_presets import build_projected
from equivox.simulate.crop_set import KINDS

ARMS: dict[str, dict[str, Any]] = {
    "linear": {"preset": "linear_cryo45", "epochs": 24},
    "conv": {"preset": "conv_cryo45", "epochs": 24},
    "conv + turns": {"preset": "conv_cryo45", "epochs": 24, "turns": True},
    "conv, free logit + turns": {"preset": "conv_cryo45_free", "epochs": 24, "turns": True},
    "resnet + turns": {"preset": "resnet_cryo45", "epochs": 24, "turns": True},
    "SO(2)-AL1": {"preset": "so2_cryo45", "epochs": 5},
    "SO(3)-AL1 cubes": {"preset": "so3_cryo45", "epochs": 5},
    "ball 3k": {"preset": "ball_cryo45_3k", "epochs": 5},
    "ball 3k, R = 16": {"preset": "ball_cryo45_3k", "grid": "d4opt-16", "epochs": 5},
    "ball 3k, R = 16, longer": {"preset": "ball_cryo45_3k", "grid": "d4opt-16", "epochs": 12},
    "SO(3)-AL1 cubes, longer": {"preset": "so3_cryo45", "epochs": 12},
    "SO(2)-AL1, longer": {"preset": "so2_cryo45", "epochs": 12},
    "ball 15k": {"preset": "ball_cryo45_15k", "epochs": 5},
    "ball 15k, R = 16": {"preset": "ball_cryo45_15k", "grid": "d4opt-16", "epochs": 5},
}
TABLE = ("linear", "conv", "conv + turns", "conv, free logit + turns", "resnet + turns", "SO(2)-AL1", "SO(3)-AL1 cubes",
         "ball 3k, R = 16")  # fmt: skip
"""``--arms all``."""


class Crops(NamedTuple):
    """Pictures (crop, 1, y, x), 1 for a particle in the middle, and what is seen: an index into ``KINDS``.

    Of real crops is known only whether there is a particle in the middle: all others count as the last kind.
    """

    images: Tensor
    labels: Tensor
    kinds: Tensor


def turned(crops: Tensor, draw: torch.Generator) -> Tensor:
    """Every crop by a quarter turn of its own, half of them mirrored."""
    kind = torch.randint(8, (len(crops),), generator=draw)
    found = torch.empty_like(crops)
    for number in range(8):
        some = torch.rot90(crops[kind == number], number % 4, (2, 3))
        found[kind == number] = some.flip(3) if number >= 4 else some
    return found


def run(arm: str, seed: int, training: Crops, test: Crops, most_steps: int = 0) -> dict[str, Any]:
    """Train one network and judge it; ``most_steps`` is for the plain networks, in place of their epochs."""
    settings = ARMS[arm]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = build_projected(settings["preset"], grid=settings.get("grid"))
    draw = torch.Generator().manual_seed(seed)
    crops, labels, _ = training
    epochs, steps = settings["epochs"], -(-len(crops) // 128)
    if most_steps:
        epochs = round(most_steps * (epochs / 24) / steps)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    start = time.process_time()
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(crops), generator=draw).split(128):
            batch = crops[chosen]
            if settings.get("turns"):
                batch = turned(batch, draw)
            loss = nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    cost = time.process_time() - start
    network.eval()
    with torch.inference_mode():
        logits = torch.cat([network(part)[:, 0] for part in test.images.split(128)])
    truth = test.labels
    against = {}
    for number in test.kinds.unique().tolist()[1:]:  # the positives and one kind of negatives alone
        some = (test.kinds == 0) | (test.kinds == number)
        against[KINDS[number]] = precision_recall(logits[some], truth[some] > 0.5, labels=int(truth.sum())).area
    return {
        "arm": arm, "seed": seed, "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": epochs, "crops": len(crops), "test_crops": len(truth), "training_cpu_s": round(cost, 1),
        "ap": precision_recall(logits, truth > 0.5, labels=int(truth.sum())).area,
        "ap_against": against,
        "bce": float(nn.functional.binary_cross_entropy_with_logits(logits, truth)),
        "accuracy": float(((logits > 0) == (truth > 0.5)).float().mean()),
    }  # fmt: skip


def train_arms(
    results: Path,
    fixed: dict[str, Any],
    arms: Sequence[str],
    seed: int,
    training: Crops,
    test: Crops,
    *,
    most_steps: int = 0,
) -> None:
    """Add a row for each arm that has none with these fixed entries, this seed and number of crops."""
    for arm in (one for name in arms for one in (TABLE if name == "all" else (name,))):
        rows = json.loads(results.read_text()) if results.exists() else []
        key = {**fixed, "arm": arm, "seed": seed, "crops": len(training.labels)}
        if any(all(old[name] == value for name, value in key.items()) for old in rows):
            continue
        row = {**fixed, **run(arm, seed, training, test, most_steps)}
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps([*rows, row], indent=1) + "\n")
        print(row, flush=True)
