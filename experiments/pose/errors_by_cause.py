"""What the remaining error comes from: the same simulated heads with one nuisance left out or turned up at a time.

    python experiments/pose/errors_by_cause.py --count 16

Stacks of the simulator whose brains are the median EPI head (``mode_weights`` 1, 0, 0, 0), so that the contrast is the
template's; the same seeds in every row. Given to the shipped model's template at the true centre and size, and to the
whole shipped model. The template has seen the stacks that the median head was made of: read the rows against each
other, not as errors on new heads. One thread; about 4 CPU seconds a stack.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from typing import Any

import torch
from rotate_train import RESULTS

from equivox.formats.fetal_templates import read_templates
from equivox.geometry.rotations import geodesic_angle
from equivox.nets.head_template import HeadTemplate
from equivox.simulate.stack import simulate_stacks
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import prepare_templates
from equivox.tasks.pose.estimator import HeadEstimator
from equivox.tasks.pose.register import RegisterConfig, register_head
from equivox.tasks.pose.rotate import head_cube
from equivox.weights.folder import find_model

WHOLE = StackSimulation(mode_weights=(1.0, 0.0, 0.0, 0.0), cut_head=0.0)
CASES = {
    "as simulated, head inside the field of view": WHOLE,
    "no motion": replace(WHOLE, motion=False),
    "strong motion between the passes (20 degrees, 8 mm)": replace(
        WHOLE, pass_jump_deg=20.0, pass_jump_mm=8.0, still=0.0, jerk=0.5
    ),
    "no shading": replace(WHOLE, bias=False),
    "strong shading (ratio 2.5 to 3)": replace(WHOLE, bias_ratio=(2.5, 3.0)),
    "uniform surroundings, no fluid": replace(WHOLE, surroundings=False),
    "wall at the scalp, fluid in crescents": replace(WHOLE, crescents=1.0),
    "field of view may cut the head": replace(WHOLE, cut_head=1.0),
}


def numbers(errors: list[float]) -> dict[str, float]:
    """Of one row."""
    found = torch.tensor(errors)
    return {
        "median_deg": round(float(found.quantile(0.5)), 2), "mean_deg": round(float(found.mean()), 2),
        "above_20": int((found > 20).sum()), "above_90": int((found > 90).sum()),
    }  # fmt: skip


def main() -> None:
    """Every case; a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seed", type=int, default=900)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = read_templates(None)
    estimator, templates = (
        HeadEstimator.from_folder(find_model("fetal-head-epi")),
        prepare_templates(files.atlases, files.epi),
    )
    template = estimator.template
    assert isinstance(template, HeadTemplate)
    rows: list[dict[str, Any]] = []
    for name, config in CASES.items():
        given, whole, lost = [], [], 0
        for seed in range(args.seed, args.seed + args.count):
            (stack,) = simulate_stacks([seed], templates=templates, config=config)
            volume_ml = float((stack.labels == 1).sum()) * math.prod(stack.image.voxel_size_mm) / 1000
            if config.cut_head:
                volume_ml = max(volume_ml, 150.0)
            cube, known = head_cube(stack.image, stack.center_mm)
            found = register_head(template, cube, known, volume_ml, torch.zeros(0, 3, 3), RegisterConfig())
            given.append(math.degrees(float(geodesic_angle(found.rotation, stack.world_from_head.double()))))
            answer = estimator.estimate(stack.image)
            if answer.world_from_head is None:
                lost += 1
                continue
            rotation = answer.world_from_head.rotation.double()
            whole.append(math.degrees(float(geodesic_angle(rotation, stack.world_from_head.double()))))
        rows.append({"case": name, "stacks": args.count, "given_centre_and_size": numbers(given),
                     "whole_model": {**numbers(whole or [180.0]), "refused": lost}})  # fmt: skip
        print(rows[-1], flush=True)
    content = {"settings": vars(args), "rows": rows}
    (RESULTS / "errors_by_cause.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
