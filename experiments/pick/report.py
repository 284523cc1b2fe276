"""The tables of docs/experiments/pick.md from what was recorded: ``python experiments/pick/report.py``."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> Any:
    """A file of results, or nothing."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else None


def real() -> None:
    """One row per arm and set; several seeds as mean and SD."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in read("real.json") or []:
        groups[row["set"], row["arm"]].append(row)
    print("| set | picker | parameters | seeds | AP | 95 % | best F1 (precision / recall) | CPU s, training |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, arm), rows in groups.items():
        areas = [row["ap"] for row in rows]
        area = f"{statistics.mean(areas):.3f}" + (f" ± {statistics.stdev(areas):.3f}" if len(areas) > 1 else "")
        first = rows[0]
        print(
            f"| {name} | {arm} | {first['parameters']:,} | {len(rows)} | {area} | {first['ap_low']:.3f}–"
            f"{first['ap_high']:.3f} | {first['f1']:.3f} ({first['precision']:.2f} / {first['recall']:.2f}) | "
            f"{first['training_cpu_s']:.0f} |"
        )
    shipped = read("ship.json") or {}
    for name in ("bgal_10017", "apoferritin_10146"):
        if name in shipped:
            row = shipped[name]
            line(name, "shipped `particles`", shipped["parameters"], row, (row["ap_low"], row["ap_high"]))
    peer = read("topaz.json")
    if peer:
        found = {**peer["best_f1"], "ap": peer["average_precision"]}
        line("bgal_10017", "topaz, pretrained", 1_310_913, found, peer["average_precision_95"])
    peer = read("topaz_trained.json")
    if peer:
        found = {**peer["best_f1"], "ap": peer["average_precision"]}
        name = f"topaz, trained for {peer['training_cpu_s']} CPU s"
        line("bgal_10017", name, peer["parameters"], found, peer["average_precision_95"])


def line(name: str, arm: str, parameters: int, row: dict[str, Any], band: Any) -> None:
    """One row of a picker that was not trained here, or is shipped."""
    best = f"{row['f1']:.3f} ({row['precision']:.2f} / {row['recall']:.2f})"
    print(f"| {name} | {arm} | {parameters:,} | 1 | {row['ap']:.3f} | {band[0]:.3f}–{band[1]:.3f} | {best} | – |")


def crops(name: str) -> None:
    """One row per set, level of noise, number of crops and arm; several seeds as mean and SD, each beside it."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in read(name) or []:
        groups[row["set"], row.get("snr", "–"), row["crops"], row["arm"], row["epochs"]].append(row)
    print("\n| set | SNR | crops | network | parameters | epochs | AUPR | each seed | BCE | accuracy | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (kind, snr, crops, arm, epochs), rows in sorted(groups.items(), key=lambda group: group[0][:3]):
        each = ", ".join(f"{row['ap']:.3f}" for row in sorted(rows, key=lambda row: int(row["seed"])))
        cost = statistics.mean(row["training_cpu_s"] for row in rows)
        print(
            f"| {kind} | {snr} | {crops:,} | {arm.replace(', longer', '')} | {rows[0]['parameters']:,} | {epochs} | "
            f"{spread(rows, 'ap')} | {each} | {spread(rows, 'bce')} | {spread(rows, 'accuracy')} | {cost:.0f} |"
        )


def spread(rows: list[dict[str, Any]], name: str) -> str:
    """Mean, and with several seeds the standard deviation."""
    values = [row[name] for row in rows]
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    real()
    crops("crops.json")
    crops("simulated.json")
