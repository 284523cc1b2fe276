"""Orientations of 10,000 particles of 64² px on two cores: CPU seconds, wall seconds, and whether memory stays flat.

Writes a stack of simulated particles (200, repeated), runs ``equivox orient predict --workers 2`` in a process of its
own, and samples
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

import numpy as np
import psutil

from equivox.formats.mrc import read_mrc, write_mrc
from equivox.formats.star import read_star, write_star

DISTINCT = 200
"""Simulated particles; the stack repeats them, which costs the program the same."""


def repeat(folder: Path, count: int) -> None:
    """Make the stack and its table as long as asked for, every image its own."""
    images = np.array(read_mrc(folder / "particles.mrcs").data)
    order = np.arange(count) % len(images)
    write_mrc(folder / "particles.mrcs", images[order], pixel_size_angstrom=2.0, kind="stack")
    star = read_star(folder / "particles.star")
    block = star.block("particles").select(order.tolist())
    names = [f"{index + 1:06d}@particles.mrcs" for index in range(count)]
    write_star(folder / "particles.star", star.with_block(block.with_columns({"rlnImageName": names})))


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
            [sys.executable, str(sample), str(given.structure), "--count", str(DISTINCT), "--out", str(folder)],
            check=True, capture_output=True,
        )  # fmt: skip
        repeat(folder, given.particles)
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
