"""Time and memory that one more volume costs with the shipped model: the command on few and on many copies of a stack.

    python benchmarks/pose_shipped.py [--few 2] [--many 8] [--json out.json]

CPU seconds of the child process, viewers off, one thread; the difference is divided by the number of further volumes,
so start and imports fall out. Goals: at most 3 CPU s and 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import equivox

SAMPLE = Path(equivox.__file__).parent / "samples" / "fetal_epi" / "fet-05_run-1_epi.nii.gz"


def cpu_s_of(folder: Path, count: int) -> float:
    """CPU seconds of `equivox pose predict` over ``count`` copies of the sample."""
    scans = folder / f"scans_{count}"
    scans.mkdir()
    for index in range(count):
        shutil.copyfile(SAMPLE, scans / f"copy-{index:02d}.nii.gz")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        "pose",
        "predict",
        str(scans),
        "--out",
        str(folder / f"out_{count}"),
        "--viewer",
        "none",
        "--device",
        "cpu",
    ]
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    subprocess.run([sys.executable, "-m", "equivox", *command], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = cpu_s_of(Path(folder), options.few)
        many = cpu_s_of(Path(folder), options.many)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    numbers = {
        f"{options.few}_volumes_cpu_s": round(few, 2),
        f"{options.many}_volumes_cpu_s": round(many, 2),
        "further_volume_cpu_s": round((many - few) / (options.many - options.few), 2),
        "peak_gb": round(peak, 2),
    }
    for name, value in numbers.items():
        print(f"{name:<24}{value:>8.2f}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
