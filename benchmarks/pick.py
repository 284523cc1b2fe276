"""From a micrograph of 4096 x 4096 pixels (MRC) to RELION's STAR files on one core: CPU seconds and peak memory.

    python benchmarks/pick.py --repeats 3

Each run is a process of its own, so imports count. The particle has a radius of 72 Å at 1 Å a pixel: the network sees
512 x 512 pixels of 8 Å. Prints a table; ``--json`` writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from equivox.formats.mrc import write_mrc

SIDE, RADIUS_ANGSTROM = 4096, 72.0
GOALS = {"d4opt-16": (4.0, 0.6), "d4opt-64": (8.0, 0.7)}
"""CPU seconds and GB."""


def make_micrograph(path: Path) -> None:
    """White noise with 300 dark discs."""
    draw = np.random.default_rng(0)
    image = draw.normal(0.0, 1.0, (SIDE, SIDE)).astype(np.float32)
    rows, columns = np.mgrid[-80:81, -80:81]
    disc = np.hypot(rows, columns) < RADIUS_ANGSTROM
    for y, x in draw.integers(100, SIDE - 100, (300, 2)):
        image[y - 80 : y + 81, x - 80 : x + 81][disc] -= 0.5
    write_mrc(path, image, pixel_size_angstrom=1.0)


def once(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory [GB] of a process."""
    script = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss, done.returncode)\n"
        "sys.stderr.write(done.stderr.decode())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, env=environment, check=True
    )
    cpu, peak, code = done.stdout.split()
    if code != "0":
        raise SystemExit(done.stderr)
    return float(cpu), float(peak) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="particles")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grids", nargs="+", default=list(GOALS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        micrograph = Path(folder) / "mic.mrc"
        make_micrograph(micrograph)
        for grid in chosen.grids:
            for page in (False, True):
                command = [
                    sys.executable, "-m", "equivox", "pick", "predict", str(micrograph), "--model", chosen.model,
                    "--radius-angstrom", str(RADIUS_ANGSTROM), "--grid", grid, "--threads", "1", "--quiet",
                    "--out", str(Path(folder) / "out"), "--overwrite",
                    *([] if page else ["--formats", "relion", "--no-page"]),
                ]  # fmt: skip
                runs = [once(command) for _ in range(chosen.repeats)]
                cpu, peak = (statistics.median(values) for values in zip(*runs, strict=True))
                rows.append({"grid": grid, "page": page, "cpu_s": round(cpu, 2), "peak_gb": round(peak, 3)})
                goal = GOALS.get(grid, (float("nan"),) * 2)
                what = "every format and the page" if page else "STAR"
                print(
                    f"{grid:10} {what:26} {cpu:6.2f} CPU s (goal {goal[0]:g})  {peak:5.2f} GB (goal {goal[1]:g})",
                    flush=True,
                )
    if chosen.json:
        chosen.json.write_text(json.dumps({"repeats": chosen.repeats, "model": chosen.model, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
