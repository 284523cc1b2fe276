"""Orientations of 10,000 particles of 64² px on two cores: CPU seconds, wall seconds, and whether memory stays flat.

Writes a stack of simulated particles, runs ``equivox orient predict --workers 2`` in a process of its own, and samples
the memory of it and its children.

    python benchmarks/orient.py --model asparagine-synthetase --structure ../shared/data/cryoem/structures/11as.pdb.gz
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="asparagine-synthetase")
    parser.add_argument("--structure", type=Path, default=Path("../shared/data/cryoem/structures/11as.pdb.gz"))
    parser.add_argument("--particles", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orient-benchmark-"))
    sample = Path(__file__).resolve().parents[1] / "experiments" / "orient" / "make_sample.py"
    try:
        subprocess.run(
            [sys.executable, str(sample), str(given.structure), "--count", str(given.particles), "--out", str(folder)],
            check=True, capture_output=True,
        )  # fmt: skip
        command = [
            sys.executable, "-m", "equivox", "orient", "predict", str(folder / "particles.star"),
            "--model", given.model, "--workers", str(given.workers), "--out", str(folder / "out"), "--quiet",
        ]  # fmt: skip
        start, peaks, cpu = time.perf_counter(), [], {}
        running = psutil.Popen(command)
        while running.poll() is None:
            total = 0
            for process in [running, *running.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                    times = process.cpu_times()
                    cpu[process.pid] = times.user + times.system
                except psutil.Error:
                    continue
            peaks.append(total / 1e6)
            time.sleep(0.2)
        wall = time.perf_counter() - start
        quarter = max(1, len(peaks) // 4)
        found = {
            "particles": given.particles, "workers": given.workers, "exit_code": running.returncode,
            "wall_s": round(wall, 1), "cpu_s": round(sum(cpu.values()), 1),
            "cpu_s_per_1000": round(sum(cpu.values()) * 1000 / given.particles, 2),
            "peak_mb": round(max(peaks)), "peak_mb_second_quarter": round(max(peaks[quarter : 2 * quarter])),
            "peak_mb_last_quarter": round(max(peaks[-quarter:])),
        }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
