"""CATH's published pair on one split: the steerable network and ResNet34, trained by the library's published recipes.

    python experiments/shapes/published_pair.py --out W/pair --device cuda
    python experiments/shapes/published_pair.py --out W/tiny --domains 40 --steps 4 --side 17

Splits 0 to 6 train, 7 chooses the epoch, 8 and 9 test, as published; 50 voxels of 2 Å, 100 epochs, every domain in a
new rotation at every access. One forward pass of the steerable network is about 92 GMAC, so the whole takes hours on a
GPU and weeks on a CPU; ``--domains`` (as many of each architecture), ``--steps`` (optimiser steps) and ``--side``
(voxels over the same 100 Å) make it small, to see that it runs. A run that was cut goes on where it was when the same
command is typed again. Writes ``OUT/steerable`` and ``OUT/resnet34`` (model folders with checkpoints and curves) and
``OUT/published_pair.json``: accuracy of the test domains as they lie and in random rotations.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equivox.formats.cath import read_cath
from equivox.run.training_folder import MODEL, TrainRun
from equivox.tasks.shapes.config import DataConfig, ShapeTraining
from equivox.tasks.shapes.evaluate import EvaluateConfig, evaluate_shapes
from equivox.tasks.shapes.presets import shape_preset
from equivox.tasks.shapes.source_cath import part_of_split
from equivox.tasks.shapes.train import train_shapes

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "proteins" / "cath_ca.npz"
ARMS = {"steerable": "cath", "resnet34": "cath-cnn"}
"""Folder -> preset."""


def some_domains(data: Path, task: str, count: int, out: Path) -> Path:
    """An archive with about ``count`` domains of a task: half for training, a quarter each for the other parts."""
    found = read_cath(data)
    members = found.task(task)
    parts = {"train": 2, "validation": 1, "test": 1}
    chosen: list[int] = []
    for label in range(len(members.classes)):
        rows = members.domains[members.labels == label].tolist()
        for part, share in parts.items():
            own = [row for row in rows if part_of_split(int(found.split[row]), None) == part]
            chosen += own[: max(1, round(share * count / (4 * len(members.classes))))]
    chosen.sort()
    with np.load(data, allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files}
    offset = content["offset"].astype(np.int64)
    for name, values in content.items():
        if values.ndim and len(values) == len(found):
            content[name] = values[chosen]
        elif values.ndim and len(values) == offset[-1]:
            content[name] = np.concatenate([values[offset[row] : offset[row + 1]] for row in chosen])
    content["offset"] = np.concatenate([[0], np.cumsum(np.diff(offset)[chosen])]).astype(np.int32)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **content)
    return out


def recipe(preset: str, training: int, *, steps: int, side: int) -> ShapeTraining:
    """The published recipe; cut to a number of steps and a coarser grid on request."""
    found = shape_preset(preset)
    if side:
        whole = found.input.side * found.input.spacing
        found = found.with_values(side=side, spacing=whole / side, sigma=found.input.sigma * found.input.side / side)
    if training < 4 * found.batch_size:
        found = found.with_values(batch_size=max(2, training // 4))
    if steps:
        epochs = max(1, math.ceil(steps / (training // found.batch_size)))
        share = epochs / found.epochs
        found = found.with_values(
            epochs=epochs, burn_in=int(found.burn_in * share), decay_start=int(found.decay_start * share)
        )
    return found


def one_arm(name: str, data: DataConfig, settings: ShapeTraining, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test one network; what is done is read."""
    folder = args.out / name
    kept = folder / "test.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    started = time.process_time()
    trained = train_shapes(
        data, settings, TrainRun(out=folder, seed=args.seed, device=args.device, workers=args.workers, resume=True),
        progress=lambda epoch, row: print(name, epoch + 1, {k: round(v, 4) for k, v in row.items()}, flush=True),
    )  # fmt: skip
    cpu = time.process_time() - started
    found = evaluate_shapes(
        EvaluateConfig(model=str(folder / MODEL), data=data, objects=args.turned, curve_objects=min(8, args.turned)),
        device=args.device,
    )
    row = {
        "preset": settings.preset, "parameters": trained.parameters, "parts": dict(trained.counts),
        "best_epoch": trained.fitted.best_epoch, "train_cpu_s_of_this_call": round(cpu, 1), **found.as_dict(),
    }  # fmt: skip
    kept.write_text(json.dumps(row, indent=1) + "\n")
    return row


def main() -> None:
    """Both arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--task", choices=("10arch", "3class"), default="10arch")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--domains", type=int, default=0, help="0: all")
    parser.add_argument("--steps", type=int, default=0, help="0: the published epochs")
    parser.add_argument("--side", type=int, default=0, help="0: 50 voxels, as published")
    parser.add_argument("--turned", type=int, default=200, help="test domains that are also turned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.data
    if args.domains:
        path = args.out / f"domains_{args.domains}.npz"
        path = path if path.exists() else some_domains(args.data, args.task, args.domains, path)
    found = read_cath(path)
    members = found.task(args.task)
    splits = [part_of_split(int(found.split[row]), None) for row in members.domains.tolist()]
    data = DataConfig(data=str(path), task=args.task)
    runs = {}
    for name in args.arms:
        settings = recipe(ARMS[name], splits.count("train"), steps=args.steps, side=args.side)
        runs[name] = {"settings": settings.as_dict(), **one_arm(name, data, settings, args)}
        whole = not (args.domains or args.steps or args.side)
        content = {"published_size": whole, "task": args.task, "seed": args.seed, "runs": runs}
        (args.out / "published_pair.json").write_text(json.dumps(content, indent=1) + "\n")
        print(name, {key: runs[name].get(key) for key in ("parameters", "accuracy", "balanced_accuracy")}, flush=True)


if __name__ == "__main__":
    main()
