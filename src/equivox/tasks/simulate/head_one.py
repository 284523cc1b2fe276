"""One simulated stack: from its seed to its files, and back from its files when a run is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equivox import __version__
from equivox.formats.atomic import write_json
from equivox.formats.fetal_templates import read_templates
from equivox.formats.nifti import write_volume
from equivox.geometry.rotations import euler_xyz_from_rotation, quaternion_from_rotation
from equivox.geometry.space import Volume
from equivox.simulate.stack import SimulatedStack, draw_stack, render_stack
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import HeadTemplates, prepare_templates

SCHEMA = "equivox.simulate.head/1"
IMAGES, LABELS, PARAMETERS = "img", "lab", "parameters"


@dataclass(frozen=True, slots=True)
class HeadJob:
    """One stack to make."""

    id: str
    fold: str
    """``training`` or ``validation``."""
    seed: int
    out: Path
    config: StackSimulation
    templates: str
    """Digest of the templates, so that a resumed run does not mix two sets."""

    @property
    def image(self) -> Path:
        """Where the stack goes."""
        return self.out / self.fold / IMAGES / f"{self.id}.nii.gz"

    @property
    def labels(self) -> Path:
        """Where its labels go."""
        return self.out / self.fold / LABELS / f"{self.id}.nii.gz"

    @property
    def sidecar(self) -> Path:
        """Where everything that was drawn goes; written last."""
        return self.out / PARAMETERS / f"{self.id}.json"

    @property
    def name(self) -> str:
        """As it is shown and recorded."""
        return self.id

    @property
    def entry(self) -> HeadJob:
        """Nothing is read but the templates: the job itself."""
        return self

    @property
    def traces(self) -> tuple[Path, ...]:
        """All three."""
        return self.image, self.labels, self.sidecar

    def key(self) -> dict[str, object]:
        """What a stack depends on."""
        return {
            "schema": SCHEMA, "version": __version__, "seed": self.seed, "fold": self.fold,
            "templates": self.templates, "config": self.config.as_dict(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class MadeHead:
    """What the tables say about one stack; all values are plain."""

    id: str
    row: Mapping[str, Any]
    """Columns of ``parameters.csv``."""


@dataclass(frozen=True, slots=True)
class Painter:
    """What a worker keeps: the templates, on the device where stacks are painted."""

    templates: HeadTemplates
    device: torch.device


def open_painter(folder: str | None, device: str) -> Painter:
    """Read the templates once per worker."""
    files = read_templates(folder)
    place = torch.device(device)
    return Painter(prepare_templates(files.atlases, files.epi).to(place), place)


def make_head(painter: Painter, job: HeadJob) -> MadeHead:
    """Draw, paint and write one stack."""
    drawn = draw_stack(job.seed, job.config, painter.templates)
    stack = render_stack(drawn, painter.templates, job.config, device=painter.device)
    write_volume(job.image, stack.image, dtype="int16")
    write_volume(job.labels, Volume(stack.labels[None].float(), stack.image.affine, job.id), dtype="uint8")
    row = _row(job, stack)
    write_json(job.sidecar, {**job.key(), "row": row, "drawn": drawn.as_dict()})
    return MadeHead(job.id, row)


def earlier_head(job: HeadJob) -> MadeHead | None:
    """The stack of an earlier run, if its files are there and it was made from the same seed, ranges and templates."""
    if not (job.image.is_file() and job.labels.is_file() and job.sidecar.is_file()):
        return None
    try:
        found = json.loads(job.sidecar.read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(job.key()))
        if any(found.get(name) != value for name, value in wanted.items()):
            return None
        return MadeHead(job.id, dict(found["row"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def array_angles_deg(stack_affine_direction: torch.Tensor, world_from_head: torch.Tensor) -> tuple[float, float, float]:
    """Angles of the annotation table: array axes to head axes, about the fixed axes x, y, z.

    Where the array is stored left-handed no rotation does this; the head's left-right axis changes sign then, as
    ``equivox pose train`` expects.
    """
    head_from_array = world_from_head.mT.double() @ stack_affine_direction.double()
    if float(torch.linalg.det(head_from_array)) < 0:
        head_from_array = head_from_array * torch.tensor([[-1.0], [1.0], [1.0]], dtype=torch.float64)
    x, y, z = torch.rad2deg(euler_xyz_from_rotation(head_from_array)).tolist()
    return (x, y, z)


def _row(job: HeadJob, stack: SimulatedStack) -> dict[str, Any]:
    """The columns of ``parameters.csv``, rounded."""
    subject, womb, scan = stack.drawn.subject, stack.drawn.surroundings, stack.drawn.acquisition
    angles = array_angles_deg(stack.image.direction, stack.world_from_head)
    quaternion = quaternion_from_rotation(stack.world_from_head).tolist()
    center = stack.center_mm.tolist()
    turns = stack.drawn.as_dict()["motion"]
    voxel_ml = float(torch.linalg.det(stack.image.affine[:3, :3]).abs()) / 1000.0
    values: dict[str, Any] = {
        "frame_id": job.id,
        "fold": job.fold,
        "seed": job.seed,
        "rot_x": angles[0], "rot_y": angles[1], "rot_z": angles[2],
        "qx": quaternion[0], "qy": quaternion[1], "qz": quaternion[2], "qw": quaternion[3],
        "tx": center[0], "ty": center[1], "tz": center[2],
        "mode": subject.mode,
        "geometry": subject.geometry,
        "ga_weeks": subject.gestational_age_weeks,
        "brain_volume_ml": subject.brain_volume_ml,
        "brain_seen_ml": float((stack.labels == 1).sum()) * voxel_ml,
        "scale": subject.scale,
        "warp_rms_mm": subject.warp_rms_mm,
        "texture_sd": subject.texture_sd,
        "eye_left_intensity": subject.eye_left_intensity,
        "eye_right_intensity": subject.eye_right_intensity,
        "eye_diameter_mm": subject.eye_diameter_mm,
        "skull_mm": subject.skull_mm,
        "skull_intensity": subject.skull_intensity,
        "limbs": len(subject.limbs),
        "fluid_share": womb.fluid_share,
        "fluid_intensity": womb.fluid_intensity,
        "crescents": int(womb.crescents),
        "placenta": int(womb.placenta),
        "coil": womb.coil,
        "nx": scan.shape[0], "ny": scan.shape[1], "nz": scan.shape[2],
        "dx": scan.voxel_mm[0], "dy": scan.voxel_mm[1], "dz": scan.voxel_mm[2],
        "stored_as": scan.stored_as,
        "obliquity_deg": scan.obliquity_deg,
        "order": scan.order,
        "cut_allowed": int(scan.cut_allowed),
        "plane_fwhm_mm": scan.plane_fwhm_mm,
        "slice_fwhm_mm": scan.slice_fwhm_mm,
        "pass_jump_deg": scan.pass_jump_deg,
        "pass_jump_mm": scan.pass_jump_mm,
        "jerk_deg": scan.jerk_deg,
        "jerk_mm": scan.jerk_mm,
        "largest_turn_deg": max(turns["turn_from_label_deg"]) if isinstance(turns, dict) else 0.0,
        "bias_ratio": scan.bias_ratio,
        "slice_gain_sd": scan.slice_gain_sd,
        "second_pass": scan.second_pass,
        "distortion_mm": scan.distortion_mm,
        "dropouts": len(scan.dropouts),
        "ghost": scan.ghost,
        "noise_ratio": scan.noise_ratio,
        "noise_floor": scan.noise_floor,
        "brain_level": scan.brain_level,
    }  # fmt: skip
    digits = {"qx": 9, "qy": 9, "qz": 9, "qw": 9, "rot_x": 6, "rot_y": 6, "rot_z": 6}
    return {
        name: round(value, digits.get(name, 4)) + 0.0 if isinstance(value, float) else value
        for name, value in values.items()
    }
