"""The heavy form of the cluster tests: `dask scheduler`, `dask worker`, and clients that are killed.

    python benchmarks/pose_cluster.py [--count 60] [--model fetal-head-epi] [--json FILE]

60 small volumes (the sample stack at half its resolution, shifted) in one process; on two workers; on two workers
of which one is killed after ten results; and by a client that is sent SIGINT after ten results and started again
with --resume. Every run must give the files of the first, and the resumed one must keep what was finished.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

from pose_series import middle

CRASH = """
import os
import equivox.formats.nifti as nifti
import equivox.tasks.pose.predict_one as one


def open_scan(path):
    if "crash" in str(path):
        os._exit(11)
    return nifti.open_scan(path)


one.open_scan = open_scan
"""
"""Loaded into every worker: a volume of this name ends the process that reads it, as a crash in a C library would."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def dask(*arguments: str) -> subprocess.Popen[bytes]:
    """A scheduler or a worker, quiet."""
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def client(scans: Path, out: Path, model: str, *more: str) -> subprocess.Popen[bytes]:
    """`pose predict` over the folder."""
    command = [sys.executable, "-m", "equivox", "pose", "predict", str(scans), "--out", str(out), "--model", model,
               "--no-report", "--viewer", "none", "--write-mask", "--device", "cpu", "--quiet", *more]  # fmt: skip
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def wait_for(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many results are there."""
    while len(list((folder / "items").glob("*.json"))) < count:
        if process.poll() is not None:
            raise SystemExit(f"{folder} ended with {process.returncode} before {count} results were there")
        time.sleep(0.1)


def files(out: Path) -> dict[str, bytes]:
    """Results without times."""
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".npy", ".tfm", ".gz")}
    lines = (out / "poses.csv").read_bytes().splitlines()
    return {**found, "poses.csv": b"\n".join(line.rpartition(b",")[0] for line in lines)}


def main() -> None:
    """Run all four and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--model", default="fetal-head-epi")
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    address = f"tcp://127.0.0.1:{options.port}"
    report: dict[str, object] = {"volumes": options.count}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        scans = folder / "scans"
        scans.mkdir()
        image = middle(2)
        for index in range(options.count):
            moved = np.roll(np.asarray(image.dataobj), (index % 5, index // 5 % 5, 0), axis=(0, 1, 2))
            nibabel.save(nibabel.Nifti1Image(moved, image.affine), scans / f"scan-{index:02d}.nii.gz")
        (folder / "crash_on_purpose.py").write_text(CRASH)
        worker = ("worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder),
                  "--preload", str(folder / "crash_on_purpose.py"))  # fmt: skip
        running = [dask("scheduler", "--host", "127.0.0.1", "--port", str(options.port), "--no-dashboard")]
        time.sleep(3)
        running += [dask(*worker), dask(*worker)]
        try:
            assert client(scans, folder / "one", options.model, "--threads", "1").wait() in (0, 1)
            wanted = files(folder / "one")
            assert client(scans, folder / "two", options.model, "--scheduler", address).wait() in (0, 1)
            report["two_workers_give_the_same"] = files(folder / "two") == wanted
            running.append(dask("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"))
            killed = client(scans, folder / "killed", options.model, "--scheduler", address)
            wait_for(folder / "killed", 10, killed)
            running[-1].send_signal(signal.SIGKILL)
            killed.wait()
            report["a_killed_worker_costs_nothing"] = files(folder / "killed") == wanted
            stopped = client(scans, folder / "stopped", options.model, "--scheduler", address)
            wait_for(folder / "stopped", 10, stopped)
            stopped.send_signal(signal.SIGINT)
            report["interrupted_exit_code"] = stopped.wait()
            before = {path.name: path.stat().st_mtime_ns for path in (folder / "stopped" / "items").glob("*.json")}
            client(scans, folder / "stopped", options.model, "--scheduler", address, "--resume").wait()
            record = json.loads((folder / "stopped" / "run.json").read_text())
            kept = [entry["stem"] for entry in record["inputs"] if entry["resumed"]]
            items = folder / "stopped" / "items"  # a worker may have finished one more after the client left
            same = all((items / name).stat().st_mtime_ns == when for name, when in before.items())
            report |= {
                "finished_before_the_interrupt": len(before), "kept_by_resume": len(kept), "kept_untouched": same,
                "resumed_gives_the_same": files(folder / "stopped") == wanted,
            }  # fmt: skip
            bad = scans / "crash.nii.gz"
            nibabel.save(image, bad)
            client(scans, folder / "crashed", options.model, "--scheduler", address).wait()
            record = json.loads((folder / "crashed" / "run.json").read_text())
            report["only_the_crashing_volume_failed"] = [f["code"] for f in record["failures"]] == ["EQV-WORKER"]
            bad.unlink()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(0 if all(value for value in report.values() if isinstance(value, bool)) else 1)


if __name__ == "__main__":
    main()
