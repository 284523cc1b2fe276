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
    "conv2d": "plain Conv2D", "so2": "SO(2), R = 9", "template": "nearest template",
    "oracle": "the truth's nearest seen view", "seen": "the seen view that correlates best",
}  # fmt: skip
ORDER = ("conv2d", "so2", "unimodal", "hard", "mixture", "template", "oracle", "seen")
MORE = {"fresh": "new pictures every epoch"}
VIEWS = {"histogram": "measured"}
Key = tuple[str, str, float, str, int]


def main() -> None:
    rows: dict[Key, list[dict]] = defaultdict(list)
    for path in sorted(RESULTS.glob("*_seed*.json")):
        found = json.loads(path.read_text())
        method = found["method"] if found["method"] != "template" else f"template {found['grid']}"
        method += " fresh" if found.get("fresh") else ""
        rows[found["object"], found["train"], found.get("snr") or 0.0, method, found["epochs"]].append(found)
    clean = {key: runs for key, runs in rows.items() if not key[2]}
    errors(clean)
    print()
    confidences(clean)
    print()
    noisy(rows)


def errors(rows: dict[Key, list[dict]]) -> None:
    """Without noise."""
    print(
        "| object | method | parameters | trained on | tested on | mean [rad] | median [rad] | within 10° "
        "| seeds | epochs | CPU s |\n| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for (name, train, _, method, _), runs in sorted(rows.items(), key=place):
        for views in runs[0]["errors"]:
            cells = {
                key: spread([run["errors"][views][key] for run in runs], digits)
                for key, digits in (("mean_rad", 4), ("median_rad", 4), ("near", 3))
            }
            cpu = mean(run["cpu_s_training"] for run in runs)
            print(
                f"| {name} ({runs[0]['symmetry']}) | {shown(method)} | {runs[0]['parameters']:,} | "
                f"{VIEWS.get(train, train)} | {VIEWS.get(views, views)} | {cells['mean_rad']} | "
                f"{cells['median_rad']} | {cells['near']} | {len(runs)} | {runs[0]['epochs']} | {cpu:.0f} |"
            )


def confidences(rows: dict[Key, list[dict]]) -> None:
    """How honest the mixture's are, seed 0."""
    print(
        "| object | trained on | epochs | tested on | calibration error | right ranks above wrong "
        "| bins: confidence → share (count) |\n| --- | --- | ---: | --- | ---: | ---: | --- |"
    )
    for (name, train, _, method, epochs), runs in sorted(rows.items(), key=place):
        for views, found in runs[0]["errors"].items():
            told = found.get("reliability")
            if method != "mixture" or told is None:
                continue
            bins = ", ".join(
                f"{sure:.2f} → {share:.2f} ({count})"
                for sure, share, count in zip(told["confidence"], told["share"], told["count"], strict=True)
            )
            area = "–" if told["area"] is None else f"{told['area']:.3f}"
            print(
                f"| {name} | {VIEWS.get(train, train)} | {epochs} | {VIEWS.get(views, views)} | {told['error']:.3f} | "
                f"{area} | {bins} |"
            )


def noisy(rows: dict[Key, list[dict]]) -> None:
    """With noise and transfer, uniform views."""
    print(
        "| object | signal-to-noise | method | mean [rad] | median [rad] | within 10° | calibration error | seeds "
        "| epochs | CPU s |\n| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for (name, _, snr, method, epochs), runs in sorted(rows.items(), key=place):
        if not snr:
            continue
        found = [run["errors"]["uniform"] for run in runs]
        told = spread([row["reliability"]["error"] for row in found], 3) if method.startswith("mixture") else "–"
        print(
            f"| {name} ({runs[0]['symmetry']}) | {snr:g} | {shown(method)} | "
            f"{spread([row['mean_rad'] for row in found], 3)} | {spread([row['median_rad'] for row in found], 3)} | "
            f"{spread([row['near'] for row in found], 3)} | {told} | {len(runs)} | {epochs} | "
            f"{mean(run['cpu_s_training'] for run in runs):.0f} |"
        )


def place(item: tuple[Key, list[dict]]) -> tuple:
    """Where a row stands."""
    name, train, snr, method, epochs = item[0]
    return name, train != "uniform", train, -snr, ORDER.index(method.split()[0]), epochs


def shown(method: str) -> str:
    """Its name in the table."""
    name, _, more = method.partition(" ")
    return NAMES[name] + (f", {MORE.get(more, more)}" if more else "")


def spread(values: list[float], digits: int) -> str:
    """Mean, and with several seeds the standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
