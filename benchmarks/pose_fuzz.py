"""Damaged files: every mutated scan gets an answer or one sentence, every mutated transform is read or refused in one.

    python benchmarks/pose_fuzz.py [--scans 300] [--transforms 300] [--seed 0] [--model fetal-head-epi] [--json FILE]

Scans are small NIfTI-1, NIfTI-2, compressed, 4D and MGH files whose header fields, header bytes, bodies, ends or
compression are changed, seeded; `equivox pose predict` gets them all at once in a process of its own. It must end, with
an answer or a sentence for each, without "bug" in any, under 3 GB. Transforms are our own ITK, LTA, FSL, X5, HDF5,
json, npy and csv files, changed byte by byte, line by line, or cut.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import torch

LIMIT_GB = 3.0
FIELDS = {
    "dim": (40, "<i2", 8), "datatype": (70, "<i2", 1), "bitpix": (72, "<i2", 1), "pixdim": (76, "<f4", 8),
    "vox_offset": (108, "<f4", 1), "scl": (112, "<f4", 2), "units": (123, "<u1", 1), "codes": (252, "<i2", 2),
    "quaternion": (256, "<f4", 6), "srow": (280, "<f4", 12), "sizeof_hdr": (0, "<i4", 1), "magic": (344, "<u1", 4),
}  # fmt: skip
"""NIfTI-1 fields: offset, type, count."""
EXTREMES = (0.0, -1.0, 1.0, 2.0, 7.0, 255.0, 32767.0, -32768.0, 1e-30, 1e30, float("nan"), float("inf"), -1e-5, 0.5)


def base_scans() -> dict[str, bytes]:
    """Whole files to begin with."""
    random = np.random.default_rng(7)
    volume = (random.random((12, 13, 11)) * 900).astype(np.int16)
    affine = np.diag([3.0, 3.0, 4.0, 1.0])
    series = np.stack([volume, volume[::-1], volume], axis=-1).astype(np.float32)
    made = {
        "one.nii": nibabel.Nifti1Image(volume, affine).to_bytes(),
        "two.nii": nibabel.Nifti2Image(volume.astype(np.float64), affine).to_bytes(),
        "series.nii": nibabel.Nifti1Image(series, affine).to_bytes(),
        "plain.mgh": nibabel.MGHImage(volume.astype(np.float32), affine).to_bytes(),
    }
    made["packed.nii.gz"] = gzip.compress(made["one.nii"], mtime=0)
    made["packed_series.nii.gz"] = gzip.compress(made["series.nii"], mtime=0)
    return made


def mutate_scan(name: str, content: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the changed file."""
    packed = name.endswith(".gz")
    kind = str(random.choice(["field", "field", "field", "header bytes", "body", "cut", "grown", "container"]))
    if kind == "container" and packed:
        raw = bytearray(content)
        for _ in range(int(random.integers(1, 6))):
            raw[int(random.integers(len(raw)))] = int(random.integers(256))
        return "compressed bytes", bytes(raw)
    raw = bytearray(gzip.decompress(content) if packed else content)
    start = 284 if name.endswith(".mgh") else 540 if name == "two.nii" else 348
    if kind == "field" and start == 348:
        field = str(random.choice(list(FIELDS)))
        offset, code, count = FIELDS[field]
        kind = f"field {field}"
        place = offset + int(random.integers(count)) * np.dtype(code).itemsize
        value = np.array(random.choice(EXTREMES))
        with np.errstate(all="ignore"):
            raw[place : place + np.dtype(code).itemsize] = value.astype(code).tobytes()
    elif kind == "cut":
        raw = raw[: int(random.integers(1, len(raw)))]
    elif kind == "grown":
        raw += bytes(random.integers(0, 256, int(random.integers(1, 2000)), dtype=np.uint8))
    elif kind == "body":
        for _ in range(int(random.integers(1, 40))):
            raw[int(random.integers(start, len(raw)))] = int(random.integers(256))
    else:
        kind = "header bytes"
        for _ in range(int(random.integers(1, 8))):
            raw[int(random.integers(start))] = int(random.integers(256))
    return kind, gzip.compress(bytes(raw), mtime=0) if packed else bytes(raw)


def write_scans(folder: Path, count: int, seed: int) -> dict[str, str]:
    """``count`` mutated files and what was done to each."""
    random, bases = np.random.default_rng(seed), base_scans()
    done = {}
    for number in range(count):
        name = str(random.choice(list(bases)))
        kind, content = mutate_scan(name, bases[name], random)
        path = folder / f"{number:04d}-{name}"
        path.write_bytes(content)
        done[path.name] = kind
    return done


def predict_command(scans: Path, out: Path, model: str) -> list[str]:
    """One run over all files."""
    names = sorted(str(path) for path in scans.iterdir())
    return [sys.executable, "-m", "equivox", "pose", "predict", *names, "--out", str(out), "--model", model,
            "--no-report", "--viewer", "none", "--device", "cpu", "--threads", "1", "--quiet"]  # fmt: skip


def judge_rows(out: Path, expected: int) -> tuple[Counter[str], list[str]]:
    """Answers by status, and everything that breaks the promise."""
    with (out / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    statuses = Counter(row["status"] for row in rows)
    wrong = [f"{row['input']}: {row['reason']}" for row in rows if "bug" in row["reason"] or "\n" in row["reason"]]
    wrong += [
        f"{row['input']}: no reason" for row in rows if row["status"] in ("failed", "no_object") and not row["reason"]
    ]
    if len({row["input"] for row in rows}) != expected:
        wrong.append(f"{len({row['input'] for row in rows})} of {expected} inputs have a row")
    return statuses, wrong


def base_transforms(folder: Path) -> list[Path]:
    """One whole file of every format."""
    from equivox.formats.poses import PoseRow, write_poses_csv
    from equivox.formats.transforms.files import TransformSet, write_transforms
    from equivox.formats.transforms.grid import Grid
    from equivox.geometry.rotations import Pose, rotation_about

    pose = Pose(rotation_about("x", 30.0), torch.tensor([1.0, 2.0, 3.0]).double(), source="head", target="world")
    grid = Grid(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]).double()), (10, 10, 10), "grid")
    found = TransformSet(folder / "made", "json", (pose.matrix(),))
    paths = []
    for name, kind in (("a.tfm", "itk"), ("b.mat", "itk"), ("c.h5", "itk"), ("d.lta", "lta"), ("e.mat", "fsl"),
                       ("f.x5", "x5"), ("g.json", "json"), ("h.npy", "npy")):  # fmt: skip
        write_transforms(folder / name, found, format=kind, fixed=grid, moving=grid)
        paths.append(folder / name)
    write_poses_csv(folder / "i.csv", [PoseRow("scan.nii", 0, "ok", world_from_head=pose, confidence=1.0)])
    return [*paths, folder / "i.csv"]


def mutate_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes, a line, or the end."""
    raw = bytearray(content)
    kind = int(random.integers(4))
    if kind == 0:
        return bytes(raw[: int(random.integers(len(raw)))])
    if kind == 1:
        lines = content.split(b"\n")
        index = int(random.integers(len(lines)))
        lines[index] = random.choice([b"", b"nan nan nan", b"1e999", b"\xff\xfe", lines[index] * 2, b"0 0 0 0"])
        return b"\n".join(lines)
    for _ in range(int(random.integers(1, 12))):
        raw[int(random.integers(len(raw)))] = int(random.integers(256))
    return bytes(raw)


def fuzz_transforms(folder: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Read mutated transforms: how many were read and refused, and what broke the promise."""
    from equivox.errors import EquivoxError
    from equivox.formats.transforms.files import read_transforms
    from equivox.formats.transforms.grid import Grid

    random = np.random.default_rng(seed)
    grid = Grid(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]).double()), (10, 10, 10), "grid")
    bases = [(path.name, path.read_bytes()) for path in base_transforms(folder)]
    ends: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        name, content = bases[int(random.integers(len(bases)))]
        path = folder / f"{number:04d}-{name}"
        path.write_bytes(mutate_bytes(content, random))
        try:
            read_transforms(path, fixed=grid, moving=grid, row="scan.nii").poses()
            ends["read"] += 1
        except EquivoxError as error:
            ends["refused"] += 1
            if "\n" in str(error) or not str(error).rstrip().endswith((".", "?")):
                wrong.append(f"{path.name}: not one sentence: {error!r}")
        except Exception as error:
            wrong.append(f"{path.name}: {type(error).__name__}: {error}")
        path.unlink()
    return ends, wrong


def main() -> None:
    """Run both and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--transforms", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fetal-head-epi")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "scans").mkdir()
        (folder / "transforms").mkdir()
        kinds = write_scans(folder / "scans", options.scans, options.seed)
        begin = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = predict_command(folder / "scans", folder / "out", options.model)
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        statuses, wrong = judge_rows(folder / "out", options.scans)
        ends, wrong_transforms = fuzz_transforms(folder / "transforms", options.transforms, options.seed)
    traceback = "Traceback" in finished.stderr
    report = {
        "seed": options.seed, "scans": options.scans, "mutations": dict(Counter(kinds.values())),
        "rows": dict(statuses), "exit_code": finished.returncode, "traceback": traceback,
        "seconds": round(time.perf_counter() - begin, 1), "peak_gb": round(peak, 2),
        "transforms": options.transforms, "transform_ends": dict(ends), "wrong": wrong + wrong_transforms,
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if traceback:
        print(io.StringIO(finished.stderr).read()[-3000:], file=sys.stderr)
    kept = finished.returncode in (0, 1, 3) and not traceback and not report["wrong"] and peak <= LIMIT_GB
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
