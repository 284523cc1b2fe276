"""Fit and judge the two read-outs that say "no head" and "doubtful pose"; optionally put them into the shipped model.

    python experiments/pose/confidence_fit.py --rows experiments/pose/results/confidence_rows.csv --write

Judged by leaving out one fold of fetuses at a time (adult brains and noise are dealt to the folds by name); the shipped
weights are fitted to all rows. Thresholds: the object's is the smallest that refuses 98 % of the cross-fitted inputs
without a head (maternal parts, adult brains, noise); the pose's is 0.5. Ridge-penalised logistic regressions of
standardised numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from equivox.tasks.pose.evidence import CalibratedReadOut
from equivox.weights.folder import read_model_folder, read_weights, write_model_folder

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "src" / "equivox" / "models" / "fetal-head-epi"
MASK = ("score", "agreement", "certainty", "first_look", "log_volume", "roundness", "elongation")
TEMPLATE = ("template_correlation", "template_lead", "template_shift_mm", "template_resize", "axis_misfit_deg")
INTENSITY = ("shell_level", "shell_contrast", "inside_variation", "in_field_of_view")
OBJECT = (*MASK, *TEMPLATE, *INTENSITY)
VIEWS = ("spread_deg", "singular_value_1", "singular_value_3", "axis_misfit_deg", "shell_level", "in_field_of_view")
POSE = ("template_correlation", "template_lead", "template_turn_deg", "axis_misfit_deg", "in_field_of_view")
GOOD_DEG = 20.0
"""A pose is good below."""
FLIP_DEG = 90.0
FOUND_MM = 30.0
"""A head is found where the centre is nearer."""
NO_HEAD = ("maternal", "adult", "noise")
REFUSED_SHARE = 0.98
"""Of the inputs without a head; 0.95 would keep no stack more."""
LEAST_OBJECT = 0.2
"""The threshold is never below, however well the inputs without a head are refused."""
LEAST_VALID_SHARE = 0.6


def fit(
    features: np.ndarray, good: np.ndarray, names: tuple[str, ...], *, strength: float, balanced: bool, least: float
) -> CalibratedReadOut:
    """One read-out, standardised as it is used."""
    means, scales = features.mean(0), features.std(0) + 1e-9
    model = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=5000)
    model.fit(np.clip((features - means) / scales, -4, 4), good)
    rounded = [tuple(round(float(v), 5) for v in values) for values in (means, scales, model.coef_[0])]
    return CalibratedReadOut(names, *rounded, intercept=round(float(model.intercept_[0]), 5), least=least)


def cross_fit(rows: list[dict[str, str]], good: np.ndarray, names: tuple[str, ...], **how: Any) -> np.ndarray:
    """Probability of every row by a read-out that saw no row of its fold."""
    features = np.array([[float(row[name]) for name in names] for row in rows])
    fold = np.array([part_of(row) for row in rows])
    found = np.zeros(len(rows))
    for left_out in np.unique(fold):
        kept = fold != left_out
        readout = fit(features[kept], good[kept], names, least=0.5, **how)
        for index in np.flatnonzero(~kept):
            found[index] = readout.probability({name: float(rows[index][name]) for name in names})
    return found


def part_of(row: dict[str, str]) -> int:
    """The fold of a fetus; adult brains and noise are dealt by name."""
    return zlib.crc32(row["id"].encode()) % 5 if row["kind"] in ("adult", "noise") else int(row["fold"])


def auroc(bad: np.ndarray, confidence: np.ndarray) -> float | None:
    """Of telling bad answers by a low confidence."""
    return None if bad.all() or not bad.any() else round(float(roc_auc_score(bad, -confidence)), 3)


def judge_object(rows: list[dict[str, str]]) -> tuple[dict[str, Any], CalibratedReadOut]:
    """Rates of "a head" per kind at the chosen threshold, cross-fitted: from the mask alone, and with the template."""
    found = [row for row in rows if row["found"] == "1"]
    good = np.array([row["has_head"] == "1" and float(row["error_mm"]) < FOUND_MM for row in found])
    how = {"strength": 1.0, "balanced": True}
    without = sum(row["kind"] in NO_HEAD for row in rows)
    result: dict[str, Any] = {"no_head_inputs": without}
    for which, names in (("mask", MASK), ("mask_and_template", OBJECT)):
        sure = cross_fit(found, good, names, **how)
        named = np.sort([p for p, row in zip(sure, found, strict=True) if row["kind"] in NO_HEAD])[::-1]
        allowed = int((1 - REFUSED_SHARE) * without)
        least = round(float(named[allowed]) + 1e-3 if len(named) > allowed else 0.5, 3)
        least = max(least, LEAST_OBJECT)
        table = {}
        for kind in dict.fromkeys(row["kind"] for row in rows):
            mine = [index for index, row in enumerate(found) if row["kind"] == kind]
            table[kind] = {
                "inputs": sum(row["kind"] == kind for row in rows),
                "found": len(mine),
                "named": int((sure[mine] >= least).sum()) if mine else 0,
            }
        result[which] = {
            "auroc_among_found": round(float(roc_auc_score(good, sure)), 3), "least": least, "kinds": table,
            "refused": round(1 - sum(table[kind]["named"] for kind in NO_HEAD) / without, 3),
            "stacks_lost": [
                row["id"] for p, row in zip(sure, found, strict=True) if row["kind"] == "stack" and p < least
            ],
        }  # fmt: skip
    features = np.array([[float(row[name]) for name in OBJECT] for row in found])
    return result, fit(features, good, OBJECT, least=result["mask_and_template"]["least"], **how)


def judge_pose(rows: list[dict[str, str]]) -> tuple[dict[str, Any], CalibratedReadOut]:
    """AUROC of errors above 20 and 90 degrees per kind, cross-fitted, and the precision of "ok"."""
    posed = [row for row in rows if row["found"] == "1" and row["has_head"] == "1"]
    error = np.array([float(row["error_deg"]) for row in posed])
    how = {"strength": 0.3, "balanced": False}
    views = cross_fit(posed, error <= GOOD_DEG, VIEWS, **how)
    now = cross_fit(posed, error <= GOOD_DEG, POSE, **how)
    lead = np.array([float(row["template_lead"]) for row in posed])
    seen = np.array([float(row["in_field_of_view"]) for row in posed])
    kind = np.array([row["kind"] for row in posed])
    table: dict[str, Any] = {}
    for name in ("all", *dict.fromkeys(kind)):
        mine = np.ones(len(posed), dtype=bool) if name == "all" else kind == name
        kept = mine & (now >= 0.5) & (seen >= LEAST_VALID_SHARE)
        table[name] = {
            "answers": int(mine.sum()), "median_error_deg": round(float(np.median(error[mine])), 2),
            "above_20": int((error[mine] > GOOD_DEG).sum()), "above_90": int((error[mine] > FLIP_DEG).sum()),
            **{
                f"auroc_above_{limit:.0f}": {
                    "mask_and_views": auroc(error[mine] > limit, views[mine]),
                    "template_lead_alone": auroc(error[mine] > limit, lead[mine]),
                    "shipped": auroc(error[mine] > limit, now[mine]),
                }
                for limit in (GOOD_DEG, FLIP_DEG)
            },
            "called_ok": int(kept.sum()),
            "of_these_within_20": round(float((error[kept] <= GOOD_DEG).mean()), 3) if kept.any() else None,
            "of_these_above_90": int((error[kept] > FLIP_DEG).sum()),
        }  # fmt: skip
    bins = np.clip((now * 5).astype(int), 0, 4)
    table["calibration"] = [
        {"confidence": f"{b / 5:.1f} to {(b + 1) / 5:.1f}", "answers": int((bins == b).sum()),
         "mean_confidence": round(float(now[bins == b].mean()), 3),
         "within_20": round(float((error[bins == b] <= GOOD_DEG).mean()), 3)}
        for b in range(5) if (bins == b).any()
    ]  # fmt: skip
    features = np.array([[float(row[name]) for name in POSE] for row in posed])
    return table, fit(features, error <= GOOD_DEG, POSE, least=0.5, **how)


def ship(readouts: dict[str, CalibratedReadOut]) -> None:
    """Rewrite the model folder with the new settings; networks, certificate and licence stay."""
    folder = read_model_folder(MODEL)
    config = dict(folder.config)
    settings = {**config["settings"], **{name: one.as_dict() for name, one in readouts.items()}}
    settings["least_valid_share"] = LEAST_VALID_SHARE
    extra = {name: config[name] for name in ("input", "output", "provenance", "license")}
    write_model_folder(
        MODEL, name=config["name"], task=config["task"], behaviour=config["behaviour"], networks=config["networks"],
        weights=read_weights(folder), card=(MODEL / "README.md").read_text(), certificate=folder.certificate(),
        license_text=(MODEL / "LICENSE").read_text(), extra={**extra, "settings": settings},
        files={"heldout.csv": (MODEL / "heldout.csv").read_text()}, overwrite=True,
    )  # fmt: skip


def main() -> None:
    """Print, write results/confidence.json, and with --write the model's settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=HERE / "results" / "confidence_rows.csv")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "confidence.json")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with args.rows.open() as file:
        rows = list(csv.DictReader(file))
    found, object_readout = judge_object(rows)
    posed, pose_readout = judge_pose(rows)
    report = {"object": found, "pose": posed, "least_valid_share": LEAST_VALID_SHARE}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if args.write:
        ship({"object_readout": object_readout, "pose_readout": pose_readout})


if __name__ == "__main__":
    main()
