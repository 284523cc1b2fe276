"""What `equivox encode demo` does: encode the samples, turn one by a known rotation, find that rotation again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.formats.atomic import require_absent, require_folder
from equivox.formats.nifti import open_scan, without_ending, write_volume
from equivox.geometry.rotations import geodesic_angle, rotation_from_vector
from equivox.geometry.space import Volume, grid_points_mm, sample_at
from equivox.geometry.splines import CubicSampler
from equivox.run.batch import RunChoice
from equivox.samples import ixi_brains_folder, mni152_template
from equivox.tasks.encode.align import AlignConfig, Alignment, align_scans
from equivox.tasks.encode.config import EmbedConfig
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.embed import EmbedRun, Progress, embed_scans

AXIS_ANGLE = (1.1, -0.7, 1.6)
"""Rotation vector [rad] of the turned copy: 118 degrees about an axis of no symmetry."""
SHIFT_MM = (12.0, -20.0, 8.0)
SIDE = 104
"""Voxels of 2 mm along each edge of the turned copy."""


@dataclass(frozen=True)
class DemoResult:
    """What came out."""

    embedded: EmbedRun
    alignment: Alignment
    name: str
    true_angle_deg: float
    error_deg: float
    error_mm: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The document of ``--json`` (schema ``equivox.encode.demo/1``)."""
        return {
            "schema": "equivox.encode.demo/1",
            "run": self.embedded.as_dict(),
            "aligned": {
                "scan": self.name,
                "true_angle_deg": round(self.true_angle_deg, 4),
                "found_angle_deg": round(self.alignment.angle_deg, 4),
                "error_deg": round(self.error_deg, 4),
                "error_mm": round(self.error_mm, 4),
                "confidence": round(self.alignment.confidence, 4),
            },
            "warnings": list(self.notes),
            "errors": [],
        }


def run_demo(
    out: Path,
    model: str,
    *,
    with_template: bool = True,
    overwrite: bool,
    command: Sequence[str],
    progress: Progress | None = None,
) -> DemoResult:
    """Run it.

    Raises
    ------
    OutputError
        If results are there already.
    ModelFolderError
        If the model is missing.
    """
    samples = ixi_brains_folder()
    template = mni152_template() if with_template else None
    require_folder(out)
    require_absent([out / "codes", out / "aligned", out / "turned.nii.gz"], overwrite=overwrite)
    inputs: list[str | Path] = [samples, *([] if template is None else [template])]
    embedded = embed_scans(
        inputs, out / "codes", EmbedConfig(model=model, verify=True), RunChoice(overwrite=overwrite),
        command=command, progress=progress,
    )  # fmt: skip
    scan = samples / "IXI334-HH-1907_t1.nii.gz"
    turned, moving_from_fixed = turned_copy(scan)
    write_volume(out / "turned.nii.gz", turned)
    found = align_scans(
        scan, out / "turned.nii.gz", out / "aligned", AlignConfig(model), overwrite=overwrite, command=command
    )
    truth = torch.linalg.inv(moving_from_fixed)
    centre = moving_from_fixed[:3, :3] @ open_brain(scan).centroid_mm + moving_from_fixed[:3, 3]
    off = (found.fixed_from_moving - truth)[:3, :3] @ centre + (found.fixed_from_moving - truth)[:3, 3]
    notes = ["The encoder may have seen these brains in training: the numbers say nothing about new scans."]
    if template is None and with_template:
        notes.append("nilearn is not installed, so the MNI152 template was left out.")
    return DemoResult(
        embedded,
        found,
        without_ending(scan.name),
        math.degrees(torch.tensor(AXIS_ANGLE).norm().item()),
        math.degrees(float(geodesic_angle(found.fixed_from_moving[:3, :3], truth[:3, :3]))),
        float(off.norm()),
        tuple(notes),
    )


def turned_copy(scan: Path) -> tuple[Volume, Float[Tensor, "4 4"]]:
    """A scan resampled in another orientation and place, on a grid of its own, and the matrix that did it.

    Intensities by cubic splines, the brain's outline by its own interpolated mask, as if it had been extracted there.
    """
    volume = open_scan(scan).frame(0)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_from_vector(torch.tensor(AXIS_ANGLE, dtype=torch.float64))
    centre = open_brain(scan).centroid_mm
    matrix[:3, 3] = centre + torch.tensor(SHIFT_MM, dtype=torch.float64) - matrix[:3, :3] @ centre
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = centre + torch.tensor(SHIFT_MM, dtype=torch.float64) - (SIDE - 1.0)
    points = grid_points_mm(affine, (SIDE,) * 3)
    back = torch.linalg.inv(matrix)
    there = points @ back[:3, :3].mT + back[:3, 3]
    brain = sample_at(Volume((volume.data > 0).float(), volume.affine, volume.name), there) > 0.5
    values = CubicSampler(volume)(there).clamp_min(float(volume.data[volume.data > 0].min())) * brain
    return Volume(values, affine, "turned"), matrix
