"""The heavy form of the cluster tests: `dask scheduler`, `dask worker`, and clients and workers that are killed.

    python benchmarks/pose_cluster.py [--count 60] [--model quick] [--json FILE]

60 small volumes (a quarter of the sample's resolution, shifted) in one process; on two workers; on three of which one
is killed over its items after ten results; by a client that is sent SIGINT after ten results and started again with
--resume; and with one volume more, whose reading ends the process. Every run must give the files of the first, and the
resumed one must keep what was finished. The default model is two untrained networks that take some 50 ms for a volume:
what is tried here is how the work is run. ``--model fetal-head-epi`` takes many times as long.
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
from collections.abc import Callable
from pathlib import Path

import distributed
import nibabel
import numpy as np

from pose_series import middle, quick_model

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
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
"""Dask gives an item up at the second death instead of the fourth: fewer workers have to be started again."""
PATIENCE_S = 900
STOP_AFTER = 10


def dask(*arguments: str) -> subprocess.Popen[bytes]:
    """A scheduler or a worker, quiet."""
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def client(scans: Path, out: Path, model: str, *more: str) -> subprocess.Popen[bytes]:
    """`pose predict` over the folder."""
    command = [sys.executable, "-m", "equivox", "pose", "predict", str(scans), "--out", str(out), "--model", model,
               "--no-report", "--viewer", "none", "--write-mask", "--device", "cpu", "--quiet", *more]  # fmt: skip
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(true: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for something while a process goes on; longer than a quarter of an hour is a hang."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{what} did not happen; the process: {process.poll()}")
        time.sleep(0.02)


def finished(out: Path) -> dict[str, int]:
    """When each input's marker was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "items").glob("*.json")}


def files(out: Path) -> dict[str, bytes]:
    """Results without times, and without the volume that crashes."""
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".npy", ".tfm", ".gz")}
    lines = [line for line in (out / "poses.csv").read_bytes().splitlines() if b"crash" not in line]
    return {**found, "poses.csv": b"\n".join(line.rpartition(b",")[0] for line in lines)}


class Cluster:
    """A scheduler and two workers, each a process of its own, and who looks at them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        (folder / "crash_on_purpose.py").write_text(CRASH)
        self._worker = ("worker", self.address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder),
                        "--preload", str(folder / "crash_on_purpose.py"))  # fmt: skip
        self._running = [dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
        self._running += [dask(*self._worker), dask(*self._worker)]
        self.view = distributed.Client(self.address, timeout=60, set_as_default=False)
        self.view.wait_for_workers(2, timeout=120)

    def add_mortal(self) -> subprocess.Popen[bytes]:
        """A third worker that nobody starts again."""
        self._running.append(dask(*self._worker, "--no-nanny", "--name", "mortal"))
        self.view.wait_for_workers(3, timeout=120)
        return self._running[-1]

    def held_by_mortal(self) -> int:
        """Items that wait for it or are being worked on by it."""
        workers = self.view.scheduler_info(n_workers=-1)["workers"]
        own = [address for address, facts in workers.items() if facts["name"] == "mortal"]
        return sum(len(keys) for address, keys in self.view.processing().items() if address in own)

    def close(self) -> None:
        """End all of it, the scheduler last: a worker that cannot say goodbye waits for minutes."""
        self.view.close()
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_all(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """The five runs and what they have to have in common."""
    report: dict[str, object] = {"volumes": options.count, "model": options.model}
    seconds: dict[str, float] = {}
    model = str(quick_model(folder / "quick")) if options.model == "quick" else options.model
    scans = folder / "scans"
    scans.mkdir()
    image = middle(4)
    for index in range(options.count):
        moved = np.roll(np.asarray(image.dataobj), (index % 5, index // 5 % 5, 0), axis=(0, 1, 2))
        nibabel.save(nibabel.Nifti1Image(moved, image.affine), scans / f"scan-{index:02d}.nii.gz")

    def ended(name: str, process: subprocess.Popen[bytes], begin: float) -> int:
        code = process.wait(PATIENCE_S)
        seconds[name] = round(time.monotonic() - begin, 1)
        print(f"{name}: exit code {code} after {seconds[name]} s", file=sys.stderr, flush=True)
        return code

    begin = time.monotonic()
    assert ended("one process", client(scans, folder / "one", model, "--threads", "1"), begin) in (0, 1)
    wanted = files(folder / "one")
    cluster = Cluster(folder, options.port)
    on_cluster = ("--scheduler", cluster.address)
    try:
        begin = time.monotonic()
        assert ended("two workers", client(scans, folder / "two", model, *on_cluster), begin) in (0, 1)
        report["two_workers_give_the_same"] = files(folder / "two") == wanted

        mortal, out, begin = cluster.add_mortal(), folder / "killed", time.monotonic()
        killed = client(scans, out, model, *on_cluster)
        until(lambda: len(finished(out)) >= STOP_AFTER and cluster.held_by_mortal() > 0, "work on the mortal", killed)
        report["items_held_by_the_killed_worker"] = cluster.held_by_mortal()
        mortal.send_signal(signal.SIGKILL)
        report["finished_before_the_kill"] = len(finished(out))
        assert ended("a worker killed", killed, begin) in (0, 1)
        report["a_killed_worker_costs_nothing"] = files(out) == wanted

        out, begin = folder / "stopped", time.monotonic()
        stopped = client(scans, out, model, *on_cluster)
        until(lambda: len(finished(out)) >= STOP_AFTER, f"{STOP_AFTER} results", stopped)
        stopped.send_signal(signal.SIGINT)
        report["the_interrupted_client_says_so"] = ended("client interrupted", stopped, begin) == 130
        time.sleep(2)  # an item that a worker has begun is finished after the client left
        before, begin = finished(out), time.monotonic()
        ended("resumed", client(scans, out, model, *on_cluster, "--resume"), begin)
        record = json.loads((out / "run.json").read_text())
        kept = [entry["stem"] for entry in record["inputs"] if entry["resumed"]]
        after = finished(out)
        report |= {
            "finished_before_the_resume": len(before), "kept_by_resume": len(kept),
            "all_finished_were_kept_untouched": all(after[name] == when for name, when in before.items()),
            "some_were_left_for_the_resume": len(before) < options.count,
            "resumed_gives_the_same": files(out) == wanted,
        }  # fmt: skip

        out, begin = folder / "crashed", time.monotonic()
        nibabel.save(image, scans / "crash.nii.gz")
        ended("a volume that crashes", client(scans, out, model, *on_cluster), begin)
        record = json.loads((out / "run.json").read_text())
        report["only_the_crashing_volume_failed"] = [f["code"] for f in record["failures"]] == ["EQV-WORKER"]
        report["the_others_are_the_same"] = files(out) == wanted
    finally:
        cluster.close()
    return {**report, "seconds": seconds}


def main() -> None:
    """Run all and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--model", default="quick")
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
    with tempfile.TemporaryDirectory() as text:
        report = run_all(Path(text), options)
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(0 if all(value for value in report.values() if isinstance(value, bool)) else 1)


if __name__ == "__main__":
    main()
