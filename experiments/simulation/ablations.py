"""What each part of the simulator does to the statistics, and to how well simulated stacks are told from real ones.

python experiments/simulation/ablations.py --count 24 --cache build/ablations --out experiments/simulation/results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy
from compare import measured, real_cases, simulated_cases, two_sample_auc

from equivox.simulate.stack_config import StackSimulation

CASES = {
    "whole": StackSimulation(),
    "no motion": StackSimulation(motion=False),
    "no surroundings": StackSimulation(surroundings=False),
    "no shading": StackSimulation(bias=False),
    "epi only": StackSimulation(mode_weights=(1.0, 0.0, 0.0, 0.0)),
    "atlas only": StackSimulation(mode_weights=(0.0, 1.0, 0.0, 0.0)),
    "procedural only": StackSimulation(mode_weights=(0.0, 0.0, 1.0, 0.0)),
    "random only": StackSimulation(mode_weights=(0.0, 0.0, 0.0, 1.0)),
}
SHOWN = ("motion_index", "bias", "surroundings", "fluid_p95", "skull_shell", "texture")


def main() -> None:
    """Measure every case and write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fetal"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=50)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    real_cache = arguments.cache / "real.jsonl"
    real = measured(() if real_cache.exists() else real_cases(arguments.data), real_cache)
    rows = []
    for name, config in CASES.items():
        cache = arguments.cache / f"{name.replace(' ', '_')}.jsonl"
        done = len(cache.read_text().splitlines()) if cache.exists() else 0
        made = measured(simulated_cases(arguments.count, config, seed=arguments.seed, first=done), cache)
        auc = two_sample_auc([one[2] for one in real], [one[0] for one in real], [one[2] for one in made], 0)
        medians = {key: round(float(numpy.nanmedian([one[1][key] for one in made])), 3) for key in SHOWN}
        rows.append({"case": name, "stacks": len(made), **medians, "auc": round(float(numpy.mean(auc)), 3)})
    print(f"| case | stacks | {' | '.join(SHOWN)} | AUC |\n{'| --- ' * (len(SHOWN) + 3)}|")
    for row in rows:
        print(f"| {row['case']} | {row['stacks']} | {' | '.join(str(row[key]) for key in SHOWN)} | {row['auc']} |")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "ablations.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
