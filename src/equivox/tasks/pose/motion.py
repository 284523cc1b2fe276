"""How much an object moves in a series: displacement of its surface, frame by frame, against a reference pose.

A pose's rotation and shift alone do not say how much an image is spoilt; how far the brain's surface has moved does.
Its points are those of the mask of one frame, carried along rigidly by the poses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from equivox.formats.atomic import write_json, write_text
from equivox.formats.tables import records_as_csv
from equivox.geometry.rotations import Pose, geodesic_angle, rotation_vector
from equivox.geometry.space import Volume
from equivox.tasks.pose.smooth import Smoothed, geometric_median, median_rotation

SCHEMA = "equivox.pose.motion/1"
Reference = Literal["first", "median"]
SURFACE_POINTS = 600
"""So many points of the surface are followed."""
MOTION_COLUMNS: Mapping[str, str] = {
    "frame": "number of the frame, from 0",
    "time_s": "its time from the series' start; empty where the file names no time between frames",
    "status": "of the frame's pose, as in poses.csv; without a pose the numbers are empty",
    "confidence": "of the pose, in [0, 1]",
    "turn_deg": "angle between the pose and the reference pose",
    "turn_x_deg": "the same as a rotation vector in the scanner's axes (x right, y anterior, z superior): its x",
    "turn_y_deg": "its y",
    "turn_z_deg": "its z",
    "shift_x_mm": "shift of the object's centre against the reference pose, in the scanner's axes: its x",
    "shift_y_mm": "its y",
    "shift_z_mm": "its z",
    "surface_mean_mm": "distance of the points of the object's surface from where the reference pose has them: mean",
    "surface_max_mm": "the same: maximum",
    "step_mean_mm": "distance from where the last frame with a pose had them: mean",
    "step_max_mm": "the same: maximum",
    "smoothing_deg": "how far --smooth has turned the pose of this frame; 0 without it",
    "smoothing_mm": "how far --smooth has shifted it",
}
"""Columns of ``<stem>_motion.csv`` and what they are."""


@dataclass(frozen=True, slots=True)
class Motion:
    """The table of a series, and what holds for all of it.

    Parameters
    ----------
    reference
        Which pose the displacements are against.
    surface
        Where the points come from.
    rows
        One per frame, keyed by :data:`MOTION_COLUMNS`; None where there is nothing to say.
    before_smoothing
        Per frame, where the series was smoothed: turn, shift and displacement of the pose as it was, against the same
        reference, and the pose itself (``world_from_head``); None without a pose.
    """

    reference: Reference
    surface: str
    rows: tuple[Mapping[str, Any], ...]
    before_smoothing: tuple[Mapping[str, Any] | None, ...] | None = None

    def summary(self) -> dict[str, Any]:
        """Over the frames with a pose: how many, mean and largest displacement, largest step [mm], largest turn."""
        posed = [row for row in self.rows if row["turn_deg"] is not None]
        steps = [row["step_mean_mm"] for row in posed if row["step_mean_mm"] is not None]

        def worst(name: str) -> float | None:
            return max((row[name] for row in posed), default=None)

        return {
            "frames": len(self.rows),
            "frames_with_pose": len(posed),
            "surface_mean_mm": round(sum(r["surface_mean_mm"] for r in posed) / len(posed), 4) if posed else None,
            "surface_max_mm": worst("surface_max_mm"),
            "step_mean_mm": round(sum(steps) / len(steps), 4) if steps else None,
            "step_max_mm": max((row["step_max_mm"] for row in posed if row["step_max_mm"] is not None), default=None),
            "turn_max_deg": worst("turn_deg"),
        }


def surface_points_mm(mask: Volume, world_from_head: Pose) -> Float[Tensor, "point 3"]:
    """Points of a mask's surface in the object's own frame, at most 600, evenly drawn; empty for an empty mask."""
    inside = mask.data[0].numpy() > 0.5
    inner = ndimage.binary_erosion(inside, border_value=0)
    index = torch.from_numpy(inside & ~inner).nonzero().double()
    step = max(1, math.ceil(len(index) / SURFACE_POINTS))
    return world_from_head.inverse().apply(mask.world_from_voxel(index[::step])).double()


def ball_points_mm(radius_mm: float) -> Float[Tensor, "point 3"]:
    """Points of a sphere about the origin (a golden spiral): what is followed where there is no mask."""
    count = SURFACE_POINTS
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height = 1 - 2 * index / count
    angle = math.pi * (1 + math.sqrt(5)) * index
    ring = (1 - height**2).sqrt()
    return radius_mm * torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)


def measure_motion(
    poses: Sequence[Pose | None],
    points_mm: Float[Tensor, "point 3"],
    *,
    statuses: Sequence[str],
    confidence: Sequence[float],
    smoothed: Smoothed | None = None,
    raw: Sequence[Pose | None] | None = None,
    seconds: float = 0.0,
    reference: Reference = "first",
    surface: str = "mask",
) -> Motion:
    """Displacements of the surface against the first pose, or against the median of all.

    Parameters
    ----------
    poses
        World from object, one per frame; None where there is none.
    points_mm
        The surface, in the object's frame.
    statuses, confidence
        Per frame, for the table.
    smoothed, raw
        What smoothing did, and the poses before it, where it was asked for.
    seconds
        From one frame to the next; 0 if not known.
    reference
        Against which pose.
    surface
        Words for where the points come from.
    """
    known = [pose for pose in poses if pose is not None]
    rows: list[Mapping[str, Any]] = []
    origin = _reference(known, reference)
    at_origin = None if origin is None else origin.apply(points_mm)
    before: Tensor | None = None
    for frame, pose in enumerate(poses):
        row: dict[str, Any] = dict.fromkeys(MOTION_COLUMNS)
        row |= {"frame": frame, "status": statuses[frame], "confidence": round(confidence[frame], 4)}
        row["time_s"] = round(frame * seconds, 4) if seconds > 0 else None
        if pose is not None and origin is not None and at_origin is not None:
            moved = _double(pose).apply(points_mm)
            row |= _against(origin, pose)
            row["surface_mean_mm"], row["surface_max_mm"] = _distances(moved, at_origin)
            if before is not None:
                row["step_mean_mm"], row["step_max_mm"] = _distances(moved, before)
            row["smoothing_deg"] = 0.0 if smoothed is None else smoothed.moved_deg[frame]
            row["smoothing_mm"] = 0.0 if smoothed is None else smoothed.moved_mm[frame]
            before = moved
        rows.append(_rounded(row))
    earlier: list[Mapping[str, Any] | None] | None = None
    if raw is not None and origin is not None and at_origin is not None:
        earlier = []
        for pose in raw:
            if pose is None:
                earlier.append(None)
                continue
            mean, largest = _distances(_double(pose).apply(points_mm), at_origin)
            numbers = {**_against(origin, pose), "surface_mean_mm": mean, "surface_max_mm": largest}
            earlier.append({**_rounded(numbers), "world_from_head": pose.matrix().double().tolist()})
    return Motion(reference, surface, tuple(rows), None if earlier is None else tuple(earlier))


def write_motion(out: Path, stem: str, motion: Motion) -> list[str]:
    """``<stem>_motion.csv`` and ``.json``; the JSON also holds the summary and, after smoothing, what was before it."""
    names = [f"{stem}_motion.csv", f"{stem}_motion.json"]
    write_text(out / names[0], records_as_csv(motion.rows, list(MOTION_COLUMNS)))
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "reference": motion.reference,
        "surface": motion.surface,
        "columns": dict(MOTION_COLUMNS),
        "summary": motion.summary(),
        "frames": [dict(row) for row in motion.rows],
    }
    if motion.before_smoothing is not None:
        document["before_smoothing"] = [None if row is None else dict(row) for row in motion.before_smoothing]
    write_json(out / names[1], document)
    return names


def _reference(poses: Sequence[Pose], reference: Reference) -> Pose | None:
    """The pose that displacements are measured against, float64; None where there is none."""
    if not poses:
        return None
    rotations = torch.stack([pose.rotation.double() for pose in poses])
    shifts = torch.stack([pose.translation_mm.double() for pose in poses])
    names = {"source": poses[0].source, "target": poses[0].target}
    if reference == "first":
        return Pose(rotations[0], shifts[0], **names)
    even = torch.ones(len(poses), dtype=torch.float64)
    return Pose(median_rotation(rotations, even), geometric_median(shifts, even), **names)


def _double(pose: Pose) -> Pose:
    return Pose(pose.rotation.double(), pose.translation_mm.double(), source=pose.source, target=pose.target)


def _against(origin: Pose, pose: Pose) -> dict[str, float]:
    """Turn and shift of a pose against the reference, in the scanner's axes [degrees, mm]."""
    now = _double(pose)
    vector = torch.rad2deg(rotation_vector(now.rotation @ origin.rotation.mT)).tolist()
    shift = (now.translation_mm - origin.translation_mm).tolist()
    return {
        "turn_deg": math.degrees(float(geodesic_angle(origin.rotation[None], now.rotation[None])[0])),
        **{f"turn_{axis}_deg": value for axis, value in zip("xyz", vector, strict=True)},
        **{f"shift_{axis}_mm": value for axis, value in zip("xyz", shift, strict=True)},
    }


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) + 0.0 if isinstance(value, float) else value for key, value in row.items()}


def _distances(first: Float[Tensor, "point 3"], second: Float[Tensor, "point 3"]) -> tuple[float, float]:
    distance = (first - second).norm(dim=1)
    return float(distance.mean()), float(distance.max())
