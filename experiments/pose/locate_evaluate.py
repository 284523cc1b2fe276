"""Held-out accuracy of head localisation: every stack by the model that saw no stack of its fold.

python experiments/pose/locate_evaluate.py --name find --out experiments/pose/results
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import torch
from locate_data import load_stacks, read
from locate_train import ARCHITECTURE
from safetensors.torch import load_file
from torch import Tensor

from equivox.nets.finder import FinderNet
from equivox.tasks.pose.locate import Candidate, locate_head


def load_network(path: Path) -> FinderNet:
    """A trained finder."""
    network = FinderNet(**ARCHITECTURE)
    network.load_state_dict(load_file(path))
    return network.eval()


def dice(candidate: Candidate, truth: Tensor, affine: Tensor) -> float:
    """Overlap with a mask on the cached grid."""
    shape = tuple(truth.shape)
    mask = candidate.mask.resample(affine, shape).data[0] > 0.5
    other = truth > 0.5
    return 2 * float((mask & other).sum()) / max(1.0, float(mask.sum() + other.sum()))


def main() -> None:
    """Print one line per stack and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("../train/loc"))
    parser.add_argument("--name", default="find")
    parser.add_argument("--segment", help="name of separate models for the crops")
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for stack in load_stacks(arguments.shared, arguments.work / "cache"):
        if stack.fold not in arguments.folds:
            continue
        networks = {"locate": load_network(arguments.work / f"{arguments.name}_{stack.fold}.safetensors")}
        if arguments.segment:
            networks["segment"] = load_network(arguments.work / f"{arguments.segment}_{stack.fold}.safetensors")
        volume = read(arguments.shared / "data/fetal/epi/img" / f"{stack.id}_epi.nii.gz")
        start = time.process_time()
        location = locate_head(networks, volume, turns=arguments.turns)
        seconds = time.process_time() - start
        errors = [round(float((c.center_mm - stack.center_mm).norm()), 1) for c in location.candidates]
        best = location.candidates[0] if location.candidates else None
        row = {
            "id": stack.id,
            "fetus": stack.fetus,
            "fold": stack.fold,
            "primary": stack.primary,
            "grade": stack.grade,
            "error_mm": errors[0] if errors else None,
            "best_of_candidates_mm": min(errors) if errors else None,
            "candidates": [
                [e, round(c.score, 3), round(c.mask_volume_ml), round(c.agreement, 2)]
                for e, c in zip(errors, location.candidates, strict=True)
            ],
            "mask_volume_ml": round(best.mask_volume_ml, 1) if best else None,
            "reference_ml": stack.mask_volume_ml,
            "dice": round(dice(best, stack.mask, stack.affine), 3) if best and stack.grade in "AB" else None,
            "score": round(best.score, 3) if best else None,
            "center_mm": [round(v, 2) for v in best.center_mm.tolist()] if best else None,
            "seconds": round(seconds, 2),
        }
        rows.append(row)
        print(
            row["id"],
            row["grade"],
            "err",
            row["error_mm"],
            "dice",
            row["dice"],
            "ml",
            row["mask_volume_ml"],
            "/",
            round(row["reference_ml"]),
            row["candidates"],
            row["seconds"],
            flush=True,
        )
    report = summary(rows)
    print(json.dumps(report, indent=1))
    if arguments.out:
        write(rows, report, arguments)


def summary(rows: list[dict]) -> dict:
    """The numbers of the goal, for all stacks, the primary ones, and all but fet-11."""
    groups = {
        "all": rows,
        "without fet-11": [r for r in rows if r["fetus"] != "fet-11"],
        "primary": [r for r in rows if r["primary"]],
    }
    report = {}
    for name, group in groups.items():
        if not group:
            continue
        errors = torch.tensor([r["error_mm"] if r["error_mm"] is not None else 999.0 for r in group])
        best = torch.tensor([r["best_of_candidates_mm"] if r["error_mm"] is not None else 999.0 for r in group])
        dices = [r["dice"] for r in group if r["dice"] is not None]
        grade_a = [r["dice"] for r in group if r["dice"] is not None and r["grade"] == "A"]
        sizes = [abs((r["mask_volume_ml"] / r["reference_ml"]) ** (1 / 3) - 1) for r in group if r["dice"]]
        report[name] = {
            "stacks": len(group),
            "median_mm": round(float(errors.quantile(0.5)), 2),
            "within_10_mm": round(float((errors <= 10).float().mean()), 3),
            "beyond_40_mm": round(float((errors > 40).float().mean()), 3),
            "no_object": sum(r["error_mm"] is None for r in group),
            "any_candidate_within_10_mm": round(float((best <= 10).float().mean()), 3),
            "median_dice_AB": round(float(torch.tensor(dices).median()), 3) if dices else None,
            "median_dice_A": round(float(torch.tensor(grade_a).median()), 3) if grade_a else None,
            "median_relative_size_error_AB": round(float(torch.tensor(sizes).median()), 3) if sizes else None,
            "cpu_s_per_stack": round(sum(r["seconds"] for r in group) / len(group), 2),
        }
    return report


def write(rows: list[dict], report: dict, arguments: argparse.Namespace) -> None:
    """Numbers as JSON, and the table that the pose stage reads."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"summary": report, "stacks": rows}
    (arguments.out / f"locate_{arguments.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    with (arguments.out / "locate_heldout.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "fold", "cx_mm", "cy_mm", "cz_mm", "mask_volume_ml", "score"])
        for r in rows:
            table.writerow([r["id"], r["fold"], *(r["center_mm"] or [""] * 3), r["mask_volume_ml"], r["score"]])


if __name__ == "__main__":
    main()
