"""Print the tables of docs/experiments/orient.md from the results in experiments/orient/results.

python experiments/orient/report.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "mixture": "ours: mixture, 24 → 4,608", "hard": "hard loss, R = 24", "unimodal": "unimodal, R = 24",
    "conv2d": "plain Conv2D", "template": "nearest template",
}  # fmt: skip
ORDER = ("conv2d", "unimodal", "hard", "mixture", "template")


def main() -> None:
    rows: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
    for path in sorted(RESULTS.glob("*_seed*.json")):
        found = json.loads(path.read_text())
        method = found["method"] if found["method"] != "template" else f"template {found['grid']}"
        rows[(found["object"], found["train"], method)].append(found)
    print(
        "| object | method | parameters | trained on | tested on | mean [rad] | median [rad] | within 10° "
        "| seeds | epochs | CPU s |\n| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for (name, train, method), runs in sorted(
        rows.items(), key=lambda item: (item[0][0], item[0][1] != "uniform", ORDER.index(item[0][2].split()[0]))
    ):
        shown = NAMES[method.split()[0]] + (f", {method.split()[1]}" if " " in method else "")
        for views in runs[0]["errors"]:
            cells = {
                key: spread([run["errors"][views][key] for run in runs], digits)
                for key, digits in (("mean_rad", 4), ("median_rad", 4), ("near", 3))
            }
            cpu = mean(run["cpu_s_training"] for run in runs)
            print(
                f"| {name} ({runs[0]['symmetry']}) | {shown} | {runs[0]['parameters']:,} | {train} | {views} | "
                f"{cells['mean_rad']} | {cells['median_rad']} | {cells['near']} | {len(runs)} | {runs[0]['epochs']} | "
                f"{cpu:.0f} |"
            )
    print()
    print(
        "| object | trained on | tested on | calibration error | right ranks above wrong "
        "| bins: confidence → share (count) |\n| --- | --- | --- | ---: | ---: | --- |"
    )
    for (name, train, method), runs in sorted(rows.items()):
        for views, errors in runs[0]["errors"].items():
            told = errors.get("reliability")
            if method != "mixture" or told is None:
                continue
            bins = ", ".join(
                f"{sure:.2f} → {share:.2f} ({count})"
                for sure, share, count in zip(told["confidence"], told["share"], told["count"], strict=True)
            )
            area = "–" if told["area"] is None else f"{told['area']:.3f}"
            print(f"| {name} | {train} | {views} | {told['error']:.3f} | {area} | {bins} |")


def spread(values: list[float], digits: int) -> str:
    """Mean, and with several seeds the standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
