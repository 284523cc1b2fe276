"""Memory of `equivox pose predict` over time: 20 and 200 frames of a series, or 20 and 200 volumes.

    python benchmarks/pose_series.py series  [--few 20] [--many 200] [--model fetal-head-epi] [--json FILE]
    python benchmarks/pose_series.py volumes [--few 20] [--many 200]

Frames are the sample stack shifted by whole voxels (its middle part, so that 200 frames take minutes and not
hours). With `series` the run also smooths, writes masks and aligned volumes of 4 mm. Peak resident memory of the
child process; goal: at most 5 % more for ten times as many. CPU seconds and volumes per CPU minute are printed
beside it. ``--model quick`` takes two small untrained networks instead: all that surrounds them (reading, masks,
pictures, tables, the page) over a smaller base, in a fifth of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch

import equivox
from equivox.weights.folder import write_model_folder
from equivox.weights.registry import build_network

SAMPLE = Path(equivox.__file__).parent / "samples" / "fetal_epi" / "fet-05_run-1_epi.nii.gz"


def quick_model(folder: Path) -> Path:
    """Two small untrained networks, seeded; every voxel counts as object, so that both run."""
    fields: dict[str, dict[str, object]] = {
        "segment": {"architecture": "unet", "classes": 2, "levels": 2, "features": 4, "norm": "group"},
        "rotate": {"architecture": "pose_net", "poolings": 1, "kernel_size": 3, "multiplier": 1},
    }
    weights = {}
    for name, field in fields.items():
        torch.manual_seed(1)
        weights[name] = build_network(field).state_dict()
    write_model_folder(
        folder, name="quick", task="pose", behaviour="mended", networks=fields, weights=weights, card="# quick",
        certificate={"none": 0}, license_text="Apache-2.0",
        extra={
            "input": {"voxel_size_mm": 6.0, "size": 32},
            "settings": {"rotate_size": 16, "thresholds": [-1.0, -1.0]},
        },
    )  # fmt: skip
    return folder


def middle(shrink: int) -> nibabel.Nifti1Image:
    """The sample, every ``shrink``-th voxel: small enough to make many."""
    return nibabel.load(SAMPLE).slicer[::shrink, ::shrink, ::shrink]


def write_series(path: Path, image: nibabel.Nifti1Image, count: int) -> None:
    """Frames shifted to and fro by up to two voxels."""
    data = np.asarray(image.dataobj).astype(np.int16)
    shifts = np.round(2 * np.sin(np.arange(count) / 5)).astype(int)
    stacked = np.stack([np.roll(data, shift, axis=0) for shift in shifts], axis=-1)
    series = nibabel.Nifti1Image(stacked, image.affine)
    series.header.set_xyzt_units("mm", "sec")
    series.header.set_zooms((*image.header.get_zooms()[:3], 3.5))
    nibabel.save(series, path)


def measure(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak [MB] of one child."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Run few, then many, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["series", "volumes"])
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--shrink", type=int, default=2)
    parser.add_argument("--model", default="fetal-head-epi")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        image = middle(options.shrink)
        model = str(quick_model(folder / "quick")) if options.model == "quick" else options.model
        reference = folder / "grid.nii.gz"
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = -78.0
        nibabel.save(nibabel.Nifti1Image(np.eye(40, dtype=np.uint8)[None].repeat(40, 0), affine), reference)
        for count in (options.few, options.many):
            place = folder / f"in-{count}"
            place.mkdir()
            extra: list[str] = []
            if options.kind == "series":
                write_series(place / "series.nii.gz", image, count)
                extra = ["--smooth", "--write-mask", "--write-aligned", "--reference", str(reference)]
            else:
                for index in range(count):
                    nibabel.save(image, place / f"scan-{index:03d}.nii.gz")
            out = str(folder / f"out-{count}")
            command = [sys.executable, "-m", "equivox", "pose", "predict", str(place), "--out", out, "--quiet"]
            command += ["--model", model, "--viewer", "none", "--device", "cpu", "--threads", "1", *extra]
            cpu_s, peak_mb = measure(command)
            results |= {f"{count}_cpu_s": round(cpu_s, 1), f"{count}_peak_mb": round(peak_mb, 1)}
    few, many = options.few, options.many
    results["growth_percent"] = round(100 * (results[f"{many}_peak_mb"] / results[f"{few}_peak_mb"] - 1), 2)
    each = (results[f"{many}_cpu_s"] - results[f"{few}_cpu_s"]) / (many - few)
    results["further_one_cpu_s"] = round(each, 3)
    results["per_cpu_minute"] = round(60 / each, 1)
    for name, value in results.items():
        print(f"{name:<24}{value:>10}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
