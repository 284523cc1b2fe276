"""What a 4D series gets beyond its frames' poses: smoothing, and the summary of its motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from equivox.formats.nifti import Scan
from equivox.formats.nifti_series import frame_seconds
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.motion import ball_points_mm, measure_motion, surface_points_mm, write_motion
from equivox.tasks.pose.outputs import FrameResult
from equivox.tasks.pose.smooth import smooth_poses

BALL_RADIUS_MM = 41.0
"""Of a sphere of 290 mL: the surface where no mask is known."""
LEAST_POINTS = 20
"""Fewer points are no surface."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Points of the object's surface in its own frame, from the mask of one frame."""

    points_mm: Float[Tensor, "point 3"]
    frame: int
    certain: bool


def surface_of(frame: FrameResult, before: Surface | None) -> Surface | None:
    """The surface that a series is followed by: of its first frame that is ``ok``, else of the first with a pose."""
    pose, mask = frame.estimate.world_from_head, frame.estimate.mask
    certain = frame.estimate.status == "ok"
    if pose is None or mask is None or (before is not None and (before.certain or not certain)):
        return before
    points = surface_points_mm(mask, pose)
    return before if len(points) < LEAST_POINTS else Surface(points, frame.index, certain)


def finish_series(
    out: Path, stem: str, scan: Scan, frames: Sequence[FrameResult], surface: Surface | None, config: PredictConfig
) -> tuple[list[FrameResult], list[str]]:
    """Smooth the frames' poses if asked, and write the motion table; the frames and the files' names.

    Status and confidence stay those of the frame itself; a frame without a pose stays without one.
    """
    raw = [frame.estimate.world_from_head for frame in frames]
    confidence = [frame.estimate.confidence for frame in frames]
    finished = list(frames)
    smoothed = None
    if config.smooth and any(pose is not None for pose in raw):
        smoothed = smooth_poses(raw, confidence, half_width=config.smooth_frames)
        for index, (frame, pose) in enumerate(zip(frames, smoothed.poses, strict=True)):
            if pose is not None:
                moved = {"smoothing_deg": smoothed.moved_deg[index], "smoothing_mm": smoothed.moved_mm[index]}
                estimate = replace(frame.estimate, world_from_head=pose, details={**frame.estimate.details, **moved})
                finished[index] = replace(frame, estimate=estimate)
    if all(pose is None for pose in raw):
        return finished, []
    if surface is None:
        points, words = ball_points_mm(BALL_RADIUS_MM), f"a sphere of {BALL_RADIUS_MM:g} mm: there is no mask"
    else:
        points, words = surface.points_mm, f"the mask of frame {surface.frame}"
    motion = measure_motion(
        [frame.estimate.world_from_head for frame in finished],
        points,
        statuses=[frame.estimate.status for frame in frames],
        confidence=confidence,
        smoothed=smoothed,
        raw=None if smoothed is None else raw,
        seconds=max(0.0, frame_seconds(scan)) if math.isfinite(frame_seconds(scan)) else 0.0,
        reference=config.motion_reference,
        surface=words,
    )
    return finished, write_motion(out, stem, motion)
