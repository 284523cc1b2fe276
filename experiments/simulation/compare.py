"""Table of statistics, real against simulated stacks, and the two-sample classifier.

python experiments/simulation/compare.py --data ../shared/data/fetal --count 200 --out experiments/simulation/results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy
from measure import JUDGED, Case, real_cases, simulated_cases, statistics
from scipy import ndimage
from scipy.stats import ks_2samp

from equivox.simulate.stack_config import StackSimulation

CUBE_MM, CUBE_SIDE = 96.0, 32


def head_cube(case: Case) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The 96 mm around the brain's centre at 3 mm along the world's axes, and its brain, relative to the brain."""
    axis = (numpy.arange(CUBE_SIDE) - (CUBE_SIDE - 1) / 2) * (CUBE_MM / CUBE_SIDE)
    world = numpy.stack(numpy.meshgrid(axis, axis, axis, indexing="ij"), -1) + case.center_mm
    index = (world - case.affine[:3, 3]) @ numpy.linalg.inv(case.affine[:3, :3]).T
    places = index.reshape(-1, 3).T
    level = numpy.median(case.image[case.brain])
    image = ndimage.map_coordinates(case.image / level, places, order=1, mode="constant")
    brain = ndimage.map_coordinates(case.brain.astype(float), places, order=1, mode="constant") > 0.5
    return image.reshape(world.shape[:3]), brain.reshape(world.shape[:3])


def features(case: Case) -> numpy.ndarray:
    """16 rings of the log power spectrum, 24 bins of the histogram, 8 shells outward from the brain's surface."""
    cube, brain = head_cube(case)
    window = numpy.hanning(CUBE_SIDE)
    tapered = (cube - cube.mean()) * window[:, None, None] * window[None, :, None] * window[None, None, :]
    power = numpy.abs(numpy.fft.fftn(tapered)) ** 2
    frequency = numpy.fft.fftfreq(CUBE_SIDE)
    radius = numpy.sqrt(sum(f**2 for f in numpy.meshgrid(frequency, frequency, frequency, indexing="ij")))
    rings = numpy.minimum((radius / 0.5 * 16).astype(int), 15)
    spectrum = numpy.log([power[rings == ring].mean() + 1e-9 for ring in range(16)])
    histogram = numpy.histogram(cube.clip(0, 3), bins=24, range=(0, 3), density=True)[0]
    outside = ndimage.distance_transform_edt(~brain) * (CUBE_MM / CUBE_SIDE)
    shells = [cube[(outside > 2 * n) & (outside <= 2 * n + 3)] for n in range(8)]
    profile = [float(numpy.median(shell)) if shell.size else 0.0 for shell in shells]
    return numpy.concatenate([spectrum, histogram, profile])


def two_sample_auc(real: list[numpy.ndarray], groups: list[str], made: list[numpy.ndarray], seed: int) -> list[float]:
    """Area under the curve of a logistic regression, grouped 5-fold, over five re-shufflings of the groups."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = numpy.stack([*real, *made])
    y = numpy.array([1] * len(real) + [0] * len(made))
    names = numpy.array([*groups, *(f"s{n}" for n in range(len(made)))])
    found = []
    for repeat in range(5):
        score = numpy.zeros(len(y))
        for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed + repeat).split(x, y, names):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000, class_weight="balanced"))
            score[test] = model.fit(x[train], y[train]).decision_function(x[test])
        found.append(float(roc_auc_score(y, score)))
    return found


def table(real: list[dict[str, float]], made: list[dict[str, float]]) -> list[dict[str, object]]:
    """One row per statistic: percentiles, distance, and whether the goals are met."""
    rows: list[dict[str, object]] = []
    for name in real[0]:
        a, b = (numpy.array([one[name] for one in both]) for both in (real, made))
        a, b = a[numpy.isfinite(a)], b[numpy.isfinite(b)]
        low, high = numpy.percentile(a, [5, 95])
        distance = float(ks_2samp(a, b).statistic)
        rows.append(
            {
                "statistic": name,
                "real": [round(float(v), 3) for v in numpy.percentile(a, [5, 50, 95])],
                "simulated": [round(float(v), 3) for v in numpy.percentile(b, [5, 50, 95])],
                "ks": round(distance, 2),
                "median_in_range": bool(low <= numpy.median(b) <= high),
                "ks_goal": bool(distance <= 0.35) if name in JUDGED else None,
            }
        )
    return rows


Measured = tuple[str, dict[str, float], numpy.ndarray]


def measured(cases: Iterable[Case], cache: Path | None) -> list[Measured]:
    """Group, statistics and features: those of the cache, then those of the cases, which are added to it."""
    lines = cache.read_text().splitlines() if cache and cache.exists() else []
    found: list[Measured] = []
    for line in lines:
        group, numbers, vector = json.loads(line)
        found.append((group, {k: float("nan") if v is None else v for k, v in numbers.items()}, numpy.array(vector)))
    for case in cases:
        one = (case.group, statistics(case), features(case))
        found.append(one)
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
            plain = {k: None if numpy.isnan(v) else v for k, v in one[1].items()}
            with cache.open("a") as file:
                file.write(json.dumps([one[0], plain, one[2].tolist()]) + "\n")
    return found


def _lines(cache: Path | None) -> int:
    return len(cache.read_text().splitlines()) if cache and cache.exists() else 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fetal"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--realistic", action="store_true", help="leave the all-random mode out")
    parser.add_argument("--cache", type=Path, default=None, help="folder of numbers measured before, to go on from")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    config = StackSimulation()
    if arguments.realistic:
        config = StackSimulation(mode_weights=(0.35, 0.25, 0.20, 0.0))
    real_cache, made_cache = (arguments.cache / f"{n}.jsonl" if arguments.cache else None for n in ("real", "made"))
    truth = measured(() if _lines(real_cache) else real_cases(arguments.data), real_cache)
    simulated = measured(
        simulated_cases(arguments.count, config, seed=arguments.seed, first=_lines(made_cache)), made_cache
    )
    real, made = [one[1] for one in truth], [one[1] for one in simulated]
    groups, real_features = [one[0] for one in truth], [one[2] for one in truth]
    made_features = [one[2] for one in simulated]
    rows = table(real, made)
    moving = float(numpy.mean([one["motion_index"] > 1 for one in made]))
    auc = two_sample_auc(real_features, groups, made_features, arguments.seed)
    print(f"| statistic | real 5 / 50 / 95 % | simulated 5 / 50 / 95 % | KS | median within |\n{'| --- ' * 5}|")
    for row in rows:
        real_text, made_text = (" / ".join(f"{v:.2f}" for v in row[key]) for key in ("real", "simulated"))  # type: ignore[attr-defined]
        print(f"| {row['statistic']} | {real_text} | {made_text} | {row['ks']} | {row['median_in_range']} |")
    print(f"motion index above 1: {moving:.0%}; two-sample AUC {numpy.mean(auc):.3f} (SD {numpy.std(auc):.3f})")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = "statistics_realistic.json" if arguments.realistic else "statistics.json"
        document = {
            "real_stacks": len(real), "simulated_stacks": len(made), "seed": arguments.seed, "rows": rows,
            "motion_above_1": moving, "two_sample_auc": auc, "config": config.as_dict(),
        }  # fmt: skip
        (arguments.out / name).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
