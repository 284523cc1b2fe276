"""Print the tables of ``docs/experiments/shapes.md`` from the recorded results.

python experiments/shapes/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
SCORES = ("10arch", "10arch_balanced", "3class", "3class_balanced")


def read(name: str) -> dict[str, Any] | None:
    """A recorded result, if it is there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def mean_sd(values: list[float]) -> str:
    """Mean and standard deviation over runs."""
    tensor = torch.tensor(values)
    return f"{tensor.mean():.3f} ± {tensor.std():.3f}" if len(values) > 1 else f"{tensor.mean():.3f}"


def tetris(name: str) -> None:
    """Accuracy per arm, seed by seed."""
    content = read(name)
    if content is None:
        return
    settings = content["settings"]
    print(f"\n`{name}.json`: {settings['epochs']} epochs, low-pass {settings['network']['lowpass']}\n")
    print("| network | parameters | accuracy, mean ± SD | each seed | spread over rotations | CPU s a training |")
    print("|---|---|---|---|---|---|")
    for arm in content["summary"]:
        rows = [row for row in content["runs"] if row["arm"] == arm]
        each = ", ".join(f"{row['accuracy']:.3f}" for row in rows)
        spread = sum(row["spread_over_rotations"] for row in rows) / len(rows)
        cpu = sum(row["train_cpu_s"] for row in rows) / len(rows)
        accuracy = mean_sd([row["accuracy"] for row in rows])
        print(f"| {arm} | {rows[0]['parameters']:,} | {accuracy} | {each} | {spread:.2f} | {cpu:.0f} |")


def cath() -> None:
    """Pooled over folds, then fold by fold."""
    found = {arm: read(f"cath_{arm}") for arm in ("steerable", "plain", "steerable_unlabelled")}
    present = {arm: content for arm, content in found.items() if content is not None}
    print("\n| network | folds | 10 architectures | balanced | 3 classes | balanced | CPU s a fold |")
    print("|---|---|---|---|---|---|---|")
    for arm, content in present.items():
        cpu = sum(row["train_cpu_s"] for row in content["folds"]) / len(content["folds"])
        for key, row in content["pooled"].items():
            numbers = " | ".join(f"{row[score]:.3f}" for score in SCORES)
            print(f"| {arm}, {key.replace('_', ' ')} | {len(content['folds'])} | {numbers} | {cpu:.0f} |")
    print("\n| fold (splits) | " + " | ".join(f"{arm}: {s}" for arm in present for s in SCORES) + " |")
    print("|---" * (1 + len(present) * len(SCORES)) + "|")
    for fold in range(5):
        cells = []
        for content in present.values():
            row = next((r["as_they_lie"] for r in content["folds"] if r["fold"] == fold), None)
            cells += [f"{row[score]:.3f}" if row else "not run" for score in SCORES]
        print(f"| {fold} ({2 * fold}, {2 * fold + 1}) | " + " | ".join(cells) + " |")


def shapes() -> None:
    """Toy shapes: mean over seeds in every setting of the test, a recipe a file."""
    settings = ("upright", "about the vertical axis", "any orientation")
    print("\n| recipe | network | seeds | parameters | " + " | ".join(settings) + " | CPU s a training |")
    print("|---" * 8 + "|")
    for name in ("toyshapes", "toyshapes_wide", "toyshapes_long", "toyshapes_wider"):
        content = read(name) or {"runs": []}
        for arm in dict.fromkeys(row["arm"] for row in content["runs"]):
            rows = [row for row in content["runs"] if row["arm"] == arm]
            numbers = " | ".join(mean_sd([row[setting] for row in rows]) for setting in settings)
            cpu = sum(row["train_cpu_s"] for row in rows) / len(rows)
            print(f"| `{name}` | {arm} | {len(rows)} | {rows[0]['parameters']:,} | {numbers} | {cpu:.0f} |")


def reductions() -> None:
    """CATH with fewer domains: mean over seeds."""
    content = read("cath_reductions")
    if content is None:
        return
    print("\n| training domains | network | seeds | 10 architectures | balanced | 3 classes | balanced | CPU s |")
    print("|---" * 8 + "|")
    for factor in (1, 4, 16):
        for arm in ("steerable", "plain"):
            rows = [row for row in content["runs"] if row["factor"] == factor and row["arm"] == arm]
            numbers = " | ".join(mean_sd([row[score] for row in rows]) for score in SCORES)
            cpu = sum(row["train_cpu_s"] for row in rows) / len(rows)
            print(f"| 1/{factor} | {arm} | {len(rows)} | {numbers} | {cpu:.0f} |")


def adrenal(side: int) -> None:
    """Adrenal glands: accuracy and AUC in every setting of the test."""
    content = read(f"adrenal_{side}")
    if content is None:
        return
    settings = ("upright", "about z", "any orientation")
    print("\n| network | seeds | parameters | " + " | ".join(f"{s}: accuracy | AUC" for s in settings) + " | CPU s |")
    print("|---" * 10 + "|")
    for arm in dict.fromkeys(row["arm"] for row in content["runs"]):
        rows = [row for row in content["runs"] if row["arm"] == arm]
        numbers = " | ".join(mean_sd([row[s][key] for row in rows]) for s in settings for key in ("accuracy", "auc"))
        cpu = sum(row["train_cpu_s"] for row in rows) / len(rows)
        print(f"| {arm} | {len(rows)} | {rows[0]['parameters']:,} | {numbers} | {cpu:.0f} |")


def cost() -> None:
    """Operations per object and per training."""
    content = read("cost")
    if content is None:
        return
    print("\n| network | parameters | side | forward, GFLOP an object | objects seen | training, TFLOP |")
    print("|---|---|---|---|---|---|")
    for name, row in content.items():
        print(
            f"| {name} | {row['parameters']:,} | {row['side']} | {row['forward_gflop']} | {row['objects_seen']:,} | "
            f"{row['training_tflop']:,} |"
        )


if __name__ == "__main__":
    tetris("tetris_first")
    tetris("tetris")
    tetris("tetris_library")
    cost()
    cath()
    reductions()
    shapes()
    adrenal(28)
    adrenal(64)
