"""All rows of the protocol from the results of ``rotate_train.py evaluate``: tables for docs/experiments/pose.md.

    python experiments/pose/rotate_report.py rotate_zero_shot rotate_finetuned rotate_pipeline

Random and mean rotation, principal axes of the pseudo-masks with oracle signs, then each named result: raw and
offset-calibrated, with 95 % intervals over leak groups, strata and errors per fetus.
"""

from __future__ import annotations

import argparse
import csv
import json
from typing import Any

import nibabel
import numpy
import torch
from rotate_data import PRIMARY_EXCLUDES
from rotate_train import DATA, RESULTS
from torch import Tensor

from equivox.geometry.rotations import rotation_from_quaternion
from equivox.geometry.space import Volume
from equivox.metrics.pose import PoseErrors, calibrate_by_fold, pose_errors, summarize_errors
from equivox.metrics.pose_baselines import mean_rotation_by_fold, principal_axes_oracle, uniform_rotation_numbers

HEAD = (
    "| row | stacks | median | mean | p95 | < 10 | < 20 | < 30 | > 90 | pitch, roll, yaw | fetus mean [95 %] |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def share(values: Tensor, test: Tensor) -> str:
    """Per cent."""
    return f"{100 * float(test.float().mean()):.0f} %"


def table_row(name: str, errors: PoseErrors, rows: list[dict[str, str]]) -> str:
    """One line of the main table."""
    angle = errors.rotation_deg
    summary = summarize_errors(
        errors, [r["fetus"] for r in rows], [r["leak_group"] for r in rows], generator=torch.Generator().manual_seed(0)
    )
    by_fetus = summary.by_subject
    key = next(k for k in by_fetus if "rotation" in k and "mean" in k)
    mean = by_fetus[key]
    axes = ", ".join(f"{float(v.nanmedian()):.0f}" for v in (errors.pitch_deg, errors.roll_deg, errors.yaw_deg))
    return (
        f"| {name} | {len(angle)} | {float(angle.nanquantile(0.5)):.1f} | {float(angle.nanmean()):.1f} | "
        f"{float(angle.nanquantile(0.95)):.0f} | {share(angle, angle < 10)} | {share(angle, angle < 20)} | "
        f"{share(angle, angle < 30)} | {share(angle, angle > 90)} | {axes} | "
        f"{mean.value:.1f} [{mean.low:.0f}, {mean.high:.0f}] |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(csv.DictReader((DATA / "epi" / "poses.csv").open()))
    truth = rotation_from_quaternion(
        torch.tensor([[float(r[k]) for k in ("qx", "qy", "qz", "qw")] for r in rows], dtype=torch.float64)
    )
    centers = torch.tensor([[float(r[k]) for k in ("tx", "ty", "tz")] for r in rows], dtype=torch.float64)
    primary = torch.tensor([not any(f in r["flags"] for f in PRIMARY_EXCLUDES) for r in rows])
    chosen = [r for r, keep in zip(rows, primary.tolist(), strict=True) if keep]
    folds = [r["fold"] for r in rows]
    print(HEAD)
    guess = uniform_rotation_numbers()
    print(
        f"| uniformly random (exact) | | {guess.median_deg:.1f} | {guess.mean_deg:.1f} | {guess.p95_deg:.0f} | "
        f"{100 * guess.share_below_10_deg:.1f} % | {100 * guess.share_below_20_deg:.1f} % | "
        f"{100 * guess.share_below_30_deg:.1f} % | {100 * guess.share_flipped:.0f} % | | |"
    )
    constant = pose_errors(mean_rotation_by_fold(truth, folds), truth, centers, centers)
    print(table_row("constant: mean rotation of the other folds", constant.select(primary), chosen))
    graded = torch.tensor([r["mask_grade"] in "AB" for r in rows]) & primary
    axes = torch.full_like(truth, torch.nan)
    for index in graded.nonzero()[:, 0].tolist():
        axes[index] = principal_axes_oracle(_mask(rows[index]), truth[index])
    oracle = pose_errors(axes, truth, centers, centers)
    some = [r for r, keep in zip(rows, graded.tolist(), strict=True) if keep]
    print(table_row("principal axes of the pseudo-mask (A, B), oracle signs", oracle.select(graded), some))
    details: list[str] = []
    for name in args.names:
        content = json.loads((RESULTS / f"{name}.json").read_text())
        found: dict[str, Any] = {s["id"]: s for s in content["stacks"]}
        predicted = torch.tensor([found[r["id"]]["rotation"] for r in rows], dtype=torch.float64)
        raw = pose_errors(predicted, truth, centers, centers)
        shifted, offsets = calibrate_by_fold(predicted, truth, folds, primary)
        print(table_row(f"{name}, raw", raw.select(primary), chosen))
        print(
            table_row(
                f"{name}, offset-calibrated", pose_errors(shifted, truth, centers, centers).select(primary), chosen
            )
        )
        print(table_row(f"{name}, raw, all 29", raw, rows))
        details.append(
            f"\n{name}: offsets per held-out fold { ({k: round(v, 1) for k, v in offsets.items()}) } degrees"
        )
        details.extend(strata(name, raw, rows, primary))
        details.append(per_fetus(raw, rows, primary))
    print("\n".join(details))


def strata(name: str, errors: PoseErrors, rows: list[dict[str, str]], primary: Tensor) -> list[str]:
    """Median, share below 30 and flips in the protocol's strata (primary stacks)."""
    motion = torch.tensor([float(r["motion_index"]) for r in rows])
    slices = torch.tensor([float(r["dz"]) for r in rows])
    weeks = torch.tensor([float(r["ga_weeks"]) for r in rows])
    groups = {
        "motion_index <= 1": motion <= 1, "motion_index > 1": motion > 1, "3 mm slices": slices < 4,
        "4.5 mm slices": slices > 4, "GA < 30": weeks < 30, "GA >= 30": weeks >= 30,
    }  # fmt: skip
    lines = [f"\n| {name}: stratum | stacks | median | < 30 | > 90 |", "|---|---|---|---|---|"]
    for label, group in groups.items():
        angle = errors.rotation_deg[group & primary]
        lines.append(
            f"| {label} | {len(angle)} | {float(angle.nanquantile(0.5)):.1f} | {share(angle, angle < 30)} | "
            f"{int((angle > 90).sum())} |"
        )
    return lines


def per_fetus(errors: PoseErrors, rows: list[dict[str, str]], primary: Tensor) -> str:
    """Errors of every stack, one line per fetus; secondary stacks in brackets."""
    lines = ["\n| fetus | fold | errors (degrees; secondary stacks in brackets) |", "|---|---|---|"]
    for fetus in dict.fromkeys(r["fetus"] for r in rows):
        shown = [
            f"{float(errors.rotation_deg[i]):.0f}" if bool(primary[i]) else f"({float(errors.rotation_deg[i]):.0f})"
            for i, r in enumerate(rows)
            if r["fetus"] == fetus
        ]
        fold = next(r["fold"] for r in rows if r["fetus"] == fetus)
        lines.append(f"| {fetus} | {fold} | {', '.join(shown)} |")
    return "\n".join(lines)


def _mask(row: dict[str, str]) -> Volume:
    image = nibabel.load(DATA / "epi" / "mask_pseudo" / f"{row['id']}_mask.nii.gz")
    data = torch.from_numpy(numpy.asarray(image.dataobj).astype(numpy.float32))[None]
    return Volume(data, torch.from_numpy(image.affine.astype(numpy.float64)), row["id"])


if __name__ == "__main__":
    main()
