"""One brain of `equivox simulate atrophy`: read it and its labels, deform, write; this is what a worker runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from equivox import __version__
from equivox.errors import InputError
from equivox.formats.atomic import write_json
from equivox.formats.markers import marker_path, read_marker
from equivox.formats.nifti import SCAN_ENDINGS, open_scan, without_ending, write_volume
from equivox.formats.scans import ScanInput
from equivox.geometry.space import Volume
from equivox.run.record import file_sha256
from equivox.run.seeds import draw_uniform, generator_for
from equivox.simulate.atrophy import SEVERITIES, STRUCTURES, deform_brain

UNTOUCHED = -1
"""A copy without resampling: the control that severity 0 must not be told from."""
BINS = 24
MOST_SHIFT_VOXELS = 0.5
SCHEMA = "equivox.simulate.atrophy.item/1"
LABEL_ENDINGS = ("_seg", "_dseg", "_labels", "_label", "_aseg", "")
SCAN_MARKS = ("_t1", "_T1w", "_T1", "_brain", "_t1w")


@dataclass(frozen=True, slots=True)
class AtrophyJob:
    """One brain at one severity."""

    scan: ScanInput
    subject: str
    severity: int
    labels: str
    codes: Mapping[str, tuple[int, ...]]
    out: Path
    seed: int
    write_labels: bool
    digest: str

    @property
    def stem(self) -> str:
        """What its files begin with; always ends with ``_synthetic``."""
        part = "untouched" if self.severity == UNTOUCHED else f"severity{self.severity}"
        return f"{self.scan.stem}_{part}_synthetic"


@dataclass(frozen=True, slots=True)
class MadeBrain:
    """What was written for one job."""

    stem: str
    row: Mapping[str, Any]
    features: Mapping[str, tuple[float, ...]]
    files: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())


def make_brain(state: None, job: AtrophyJob) -> MadeBrain:
    """Deform one brain and write its files, the marker last."""
    if job.scan.problem:
        raise InputError(job.scan.problem)
    scan = open_scan(job.scan.path)
    if scan.is_series:
        raise InputError(f"{job.scan.path} holds {scan.frame_count} frames; give one brain-extracted volume.")
    volume = scan.frame(0)
    label_path = labels_of(job.scan, job.labels)
    labels_scan = open_scan(label_path)
    corner = (labels_scan.affine - volume.affine).abs().max()
    if labels_scan.shape != volume.shape or float(corner) > 1e-2:
        raise InputError(f"{label_path} lies on another grid than {job.scan.name}; resample it to the scan's.")
    labels = labels_scan.labels()
    image = volume.data[0]
    outside = float((image[labels == 0] != 0).double().mean()) if bool((labels == 0).any()) else 1.0
    if outside > 0.2:
        raise InputError(
            f"{job.scan.name} has its skull on, or is not extracted like its labels ({100 * outside:.0f} % of the "
            f"voxels without a label are not 0); extract the brain with the labels first."
        )
    untouched = job.severity == UNTOUCHED
    amounts = SEVERITIES[max(job.severity, 0)]
    draw = generator_for(job.seed, "shift", int(job.digest[:12], 16))
    limit = 0.0 if untouched else MOST_SHIFT_VOXELS
    shift = [draw_uniform(-limit, limit, generator=draw) if limit else 0.0 for _ in range(3)]
    sizes = volume.voxel_size_mm
    made = deform_brain(
        image * (labels > 0), labels, job.codes, sizes, amounts_mm=amounts, shift_voxels=(shift[0], shift[1], shift[2])
    )
    names = [f"{job.stem}.nii.gz"]
    whole = float(image.max()) <= 255 and bool((image == image.round()).all())
    write_volume(
        job.out / names[0],
        Volume(made.image[None].clamp(0, 255).round() if whole else made.image[None], volume.affine, job.stem),
        dtype="uint8" if whole else "float32",
    )
    if job.write_labels:
        names.append(f"{job.stem}_seg.nii.gz")
        write_volume(job.out / names[1], Volume(made.labels[None].float(), volume.affine, job.stem), dtype="int16")
    voxel_ml = abs(float(torch.linalg.det(volume.affine[:3, :3]))) / 1000
    volumes = {
        name: float(torch.isin(labels, torch.tensor(job.codes[name])).sum()) * voxel_ml * (1 + change)
        for name, change in made.volume_change.items()
    }
    row: dict[str, Any] = {
        "id": job.stem,
        "subject": job.subject,
        "file": names[0],
        "source": job.scan.name,
        "synthetic": 1,
        "severity": "untouched" if untouched else job.severity,
        "ventricles_mm": amounts[0],
        "hippocampus_mm": amounts[1],
        "shell_mm": amounts[2],
        "shift_mm": round(sum((one * size) ** 2 for one, size in zip(shift, sizes, strict=True)) ** 0.5, 4),
        "smallest_jacobian": round(made.smallest_jacobian, 4),
        "largest_displacement_mm": round(made.largest_displacement_mm, 4),
        "icv_ml": round(float((labels > 0).sum()) * voxel_ml, 3),
        **{f"{name}_change_percent": round(100 * made.volume_change.get(name, 0.0), 3) for name in STRUCTURES},
        **{f"{name}_ml": round(volumes.get(name, 0.0), 4) for name in STRUCTURES},
    }
    features = {"histogram": _histogram(made), "sharpness": (_sharpness(made),)}
    result = MadeBrain(job.stem, row, features, {name: file_sha256(job.out / name) for name in names}, scan.warnings)
    write_json(
        marker_path(job.out, job.stem),
        {"schema": SCHEMA, "version": __version__, "digest": job.digest, "row": dict(row),
         "features": {name: list(values) for name, values in features.items()}, "files": dict(result.files),
         "warnings": list(scan.warnings)},
    )  # fmt: skip
    return result


def _histogram(made: Any) -> tuple[float, ...]:
    """Intensities inside the brain (95th percentile 1) in 24 bins over [0, 1.5]."""
    inside = made.image[made.labels > 0].double()
    scaled = inside / inside.sort().values[int(0.95 * (len(inside) - 1))].clamp_min(1e-9)
    counts = torch.histc(scaled.clamp(0, 1.5).float(), bins=BINS, min=0, max=1.5)
    return tuple((counts / len(inside)).tolist())


def _sharpness(made: Any) -> float:
    """Mean difference of neighbours inside the brain over the mean intensity: what one more resampling lowers."""
    image, inside = made.image, made.labels > 0
    both = inside[1:] & inside[:-1]
    return float((image[1:] - image[:-1]).abs()[both].mean() / image[inside].mean())


def labels_of(scan: ScanInput, labels: str) -> Path:
    """The label map of a scan: the file given, or in the folder given one named after the scan.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    path = Path(labels).expanduser()
    if not path.is_dir():
        return path
    stem = without_ending(scan.path.name)
    stems = [stem, *(stem.removesuffix(mark) for mark in SCAN_MARKS if stem.endswith(mark))]
    for name in stems:
        for ending in LABEL_ENDINGS:
            for suffix in SCAN_ENDINGS:
                candidate = path / f"{name}{ending}{suffix}"
                if candidate.is_file() and candidate.resolve() != scan.path.resolve():
                    return candidate
    raise InputError(f"{path} holds no label map for {scan.name}; name it {stems[-1]}_seg.nii.gz.")


def earlier_brain(job: AtrophyJob) -> MadeBrain | None:
    """An earlier whole result of the same job."""
    return read_marker(marker_path(job.out, job.stem), SCHEMA, functools.partial(_as_brain, job))


def _as_brain(job: AtrophyJob, found: Any) -> MadeBrain | None:
    if found["digest"] != job.digest:
        return None
    if any(file_sha256(job.out / name) != digest for name, digest in found["files"].items()):
        return None
    features = {name: tuple(values) for name, values in found["features"].items()}
    return MadeBrain(job.stem, found["row"], features, found["files"], tuple(found["warnings"]))
