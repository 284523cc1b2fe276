"""Put the model folder ``fetal-head-epi`` together from the final weights and the held-out results.

    python experiments/pose/build_model.py --rotate W/final/last.pt --locate L/find_-1.safetensors \\
        --template T/template_-1.safetensors --finetuned rotate_finetuned --located locate_find.json
    python experiments/pose/confidence_fit.py --write

The fallback confidence (for a model without a read-out) is a logistic function of spread and smallest singular value,
fitted to the held-out answers of the fine-tuned networks (oracle and pipeline crops of all 29 stacks; "good" is an
error below 30 degrees).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from certify import certificate
from locate_train import ARCHITECTURE as FINDER
from rotate_data import load_stacks
from rotate_train import DATA, RESULTS, load_network, read_located, volume_correction
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from template import load_template

from equivox.tasks.pose.anatomy import load_head_anatomy
from equivox.tasks.pose.register import RegisterConfig
from equivox.tasks.pose.rotate import CropConfig
from equivox.weights.folder import write_model_folder

OUT = Path(__file__).parents[2] / "src" / "equivox" / "models" / "fetal-head-epi"
HERE = Path(__file__).parent
GOOD_DEG = 30.0


def fit_confidence(rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Intercept, weight per degree of spread, weight per unit of the smallest singular value."""
    features = numpy.array([[min(r["spread_deg"], 60.0), r["singular_values"][2]] for r in rows])
    good = numpy.array([r["error_deg"] < GOOD_DEG for r in rows])
    scale = features.std(0)
    model = LogisticRegression(C=1.0).fit(features / scale, good)
    weights = model.coef_[0] / scale
    # more spread never makes an answer better, a larger singular value never worse
    spread, value = min(float(weights[0]), 0.0), max(float(weights[1]), 0.0)
    rest = features @ numpy.array([spread, value])
    intercept = float(LogisticRegression(C=1e6).fit(numpy.ones((len(rows), 1)), good).intercept_[0])
    low, high = -20.0, 20.0
    for _ in range(60):  # the mean probability equals the share of good answers
        intercept = (low + high) / 2
        low, high = (
            (intercept, high) if (1 / (1 + numpy.exp(-rest - intercept))).mean() < good.mean() else (low, intercept)
        )
    return round(intercept, 4), round(spread, 5), round(value, 4)


def numbers(oracle: dict[str, Any], pipeline: dict[str, Any]) -> str:
    """The card's table: held-out, primary stacks."""
    lines = [
        "5-fold over whole fetuses, 25 primary stacks, each judged by networks that saw no stack of its fold:\n",
        "| crop | median | mean | < 20 | < 30 | > 90 (flips) | mean over fetuses |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, content in (("true centre and size", oracle), ("found centre and size (the whole pipeline)", pipeline)):
        found = content["summary"]
        lines.append(
            f"| {name} | {found['median']:.1f} | {found['mean']:.1f} | {100 * found['below_20']:.0f} % | "
            f"{100 * found['below_30']:.0f} % | {100 * found['flips']:.0f} % | {found['fetus_mean']:.1f} |"
        )
    errors = [row["center_error_mm"] for row in pipeline["stacks"] if row["primary"]]
    within = sum(e <= 10 for e in errors) / len(errors)
    lines.append(
        f"\nCentre (same stacks): median {sorted(errors)[len(errors) // 2]:.1f} mm, within 10 mm {100 * within:.0f} %, "
        f"largest {max(errors):.0f} mm. Command: `experiments/pose/template.py evaluate`."
    )
    return "\n".join(lines)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rotate", nargs="+", required=True)
    parser.add_argument("--locate", required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--segment")
    parser.add_argument("--finetuned", default="rotate_finetuned")
    parser.add_argument("--networks-alone", default="rotate_pipeline")
    parser.add_argument("--oracle", default="template_oracle")
    parser.add_argument("--pipeline", default="template_pipeline")
    parser.add_argument("--located", default="locate_find.json")
    parser.add_argument("--least-confidence", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    finetuned, alone, oracle, pipeline = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in (args.finetuned, args.networks_alone, args.oracle, args.pipeline)
    )
    located = read_located(RESULTS / args.located)
    weights = fit_confidence(finetuned["stacks"] + alone["stacks"])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "fold", "rotation_error_deg", "center_error_mm"])
    for row in pipeline["stacks"]:
        errors = ["" if math.isnan(row[key]) else f"{row[key]:.1f}" for key in ("error_deg", "center_error_mm")]
        writer.writerow([row["id"], row["fold"], *errors])
    networks: dict[str, dict[str, object]] = {"locate": {"architecture": "finder", **FINDER}}
    states = {"locate": load_file(args.locate)}
    if args.segment:
        networks["segment"], states["segment"] = {"architecture": "finder", **FINDER}, load_file(args.segment)
    for number, path in enumerate(args.rotate):
        name = "rotate" if number == 0 else f"rotate_{number + 1}"
        fields = torch.load(path, weights_only=True)["settings"]["network"]
        networks[name] = {"architecture": "head_pose", **fields}
        states[name] = load_network(path).state_dict()
    template = load_template(args.template)
    networks["template"], states["template"] = {"architecture": "head_template"}, template.state_dict()
    anatomy = load_head_anatomy(DATA / "templates")
    card = (HERE / "model_card.md").read_text().replace("{numbers}", numbers(oracle, pipeline))
    folder = write_model_folder(
        OUT, name="fetal-head-epi", task="pose", behaviour="equivox", networks=networks, weights=states,
        card=card, certificate=certificate(load_network(args.rotate[0]), anatomy, template),
        license_text=(HERE / "model_license.txt").read_text(),
        extra={
            "input": {"what": "a stack of fetal EPI, any orientation and voxel size", "working_voxel_size_mm": 3.0},
            "output": {"pose": "world_from_head", "frame": "A: x right, y anterior raised by 30 degrees, z superior"},
            "settings": {
                "crop": asdict(CropConfig()), "views": 4, "register": asdict(RegisterConfig()),
                "volume_correction": round(volume_correction(load_stacks(DATA / "epi"), located), 4),
                "confidence_weights": list(weights), "least_confidence": args.least_confidence,
            },
            "provenance": {
                "data": "data/fetal/epi (29 stacks, 13 fetuses); 11 of data/fetal/templates through the simulator",
                "held_out": "heldout.csv holds 5-fold errors; the weights here were trained on all folds",
                "experiments": "docs/experiments/pose.md",
            },
            "license": "Apache-2.0",
        },
        files={"heldout.csv": table.getvalue()}, overwrite=True,
    )  # fmt: skip
    print(folder.path, sum(f.stat().st_size for f in folder.path.iterdir()), "bytes")


if __name__ == "__main__":
    main()
