"""Volumes per CPU minute: the published pipeline's cost, imported checkpoints in our hands, and the shipped model.

    python benchmarks/pose_throughput.py [--few 1] [--many 4] [--published-cpu-s 20.3] [--json FILE]

The two commands run interleaved over copies of one sample stack, one thread; the difference between many and few
copies is the cost of a further volume. The original's code is not installable here: ``--published-cpu-s`` is its
measured cost of a volume without start and build (specification, section 12: 5.4 U-Net + 14.3 E(3)-CNN, autograd
on, + 0.6 reading and resampling), on another machine. Ratios with it are therefore rough; the goals are 2 with the
same checkpoints and 8 with the shipped model. The imported checkpoints hold formula weights: the cost does not
depend on them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pose_published import write_checkpoints
from pose_series import SAMPLE, measure


def command(scans: Path, out: Path, model: str) -> list[str]:
    """`pose predict` without pictures."""
    given = ["--out", str(out), "--model", model, "--no-report", "--viewer", "none", "--device", "cpu"]
    return [sys.executable, "-m", "equivox", "pose", "predict", str(scans), *given, "--threads", "1", "--quiet"]


def main() -> None:
    """Measure both models in turn and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1)
    parser.add_argument("--many", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--published-cpu-s", type=float, default=20.3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    further: dict[str, list[float]] = {"imported": [], "shipped": []}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        unet, pose = write_checkpoints(folder)
        imported = [sys.executable, "-m", "equivox", "model", "import", str(unet), str(pose)]
        given = ["--out", str(folder / "model"), "--thresholds", "-1", "-1", "-1"]
        subprocess.run([*imported, *given], check=True, stdout=subprocess.DEVNULL)
        for count in (options.few, options.many):
            (folder / f"in-{count}").mkdir()
            for index in range(count):
                shutil.copyfile(SAMPLE, folder / f"in-{count}" / f"copy-{index:02d}.nii.gz")
        for turn in range(options.repeats):
            for name, model in (("imported", str(folder / "model")), ("shipped", "fetal-head-epi")):
                cost = []
                for count in (options.few, options.many):
                    cpu_s, peak_mb = measure(command(folder / f"in-{count}", folder / f"{name}-{turn}-{count}", model))
                    cost.append(cpu_s)
                    peaks[name] = max(peaks.get(name, 0.0), peak_mb)
                further[name].append((cost[1] - cost[0]) / (options.many - options.few))
    results: dict[str, float] = {"published_cpu_s_elsewhere": options.published_cpu_s}
    for name, values in further.items():
        each = statistics.median(values)
        results |= {
            f"{name}_further_volume_cpu_s": round(each, 2), f"{name}_per_cpu_minute": round(60 / each, 1),
            f"published_over_{name}": round(options.published_cpu_s / each, 2), f"{name}_peak_mb": round(peaks[name]),
        }  # fmt: skip
    for name, value in results.items():
        print(f"{name:<36}{value:>10}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
