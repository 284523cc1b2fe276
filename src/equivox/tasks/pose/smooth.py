"""Robust smoothing of a series of poses: local lines on SO(3) and in space, deaf to flips and jumps of single frames.

Around every frame a line is fitted to its neighbours, weighted by their distance in time (tricube), their confidence
and how well they fit (Huber's weights first, then Tukey's, which leave out what lies far off altogether). Rotations are
taken as rotation vectors about the present estimate, so nothing wraps at 180 degrees and no quaternion has two signs.
The line starts at the neighbours' geodesic median, where a flipped minority has no say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import Pose, chordal_mean, rotation_from_vector, rotation_vector

HUBER, TUKEY = 1.345, 4.685
"""Usual tuning constants (95 % efficiency for normal errors), in units of the robust scale."""
LEAST_SCALE_DEG, LEAST_SCALE_MM = 0.5, 0.2
"""The robust scale never falls below: neighbours that agree by chance must not throw out the others."""
LEAST_CONFIDENCE = 0.05
ROUNDS = 8
"""Of re-weighting: half with Huber's weights, half with Tukey's."""


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A smoothed series.

    Parameters
    ----------
    poses
        One per frame; None where there was none (nothing is invented).
    moved_deg, moved_mm
        How far each frame's pose was moved; NaN where there was none.
    """

    poses: tuple[Pose | None, ...]
    moved_deg: tuple[float, ...]
    moved_mm: tuple[float, ...]


def smooth_poses(poses: Sequence[Pose | None], confidence: Sequence[float], *, half_width: int = 3) -> Smoothed:
    """Smooth poses between the same two frames, one per frame of a series at even times.

    Parameters
    ----------
    poses
        None for a frame without one.
    confidence
        In [0, 1] per frame: the weight of its pose.
    half_width
        Neighbours on either side. Motion much faster than twice this many frames is smoothed away.

    Raises
    ------
    ConfigError
        If ``half_width`` is below 1.

    References
    ----------
    .. [1] Cleveland, "Robust locally weighted regression and smoothing scatterplots", JASA 74 (1979), here on SE(3).
    """
    if half_width < 1:
        raise ConfigError(f"--smooth-frames is {half_width}; give the neighbours on either side, 1 or more.")
    present = [index for index, pose in enumerate(poses) if pose is not None]
    results: list[Pose | None] = [None] * len(poses)
    moved_deg, moved_mm = [math.nan] * len(poses), [math.nan] * len(poses)
    if not present:
        return Smoothed(tuple(results), tuple(moved_deg), tuple(moved_mm))
    kept = [pose for pose in poses if pose is not None]
    rotations = torch.stack([pose.rotation.double() for pose in kept])
    shifts = torch.stack([pose.translation_mm.double() for pose in kept])
    trust = torch.tensor([max(LEAST_CONFIDENCE, confidence[index]) for index in present], dtype=torch.float64)
    times = torch.tensor(present, dtype=torch.float64)
    for place, index in enumerate(present):
        near = (times - index).abs() <= half_width
        offset = times[near] - index
        weight = (1 - (offset.abs() / (half_width + 1)) ** 3) ** 3 * trust[near]
        rotation = _local_rotation(rotations[near], offset, weight)
        shift = _local_line(shifts[near], offset, weight, start=geometric_median(shifts[near], weight))
        first = kept[place]
        results[index] = Pose(rotation, shift, source=first.source, target=first.target)
        moved_deg[index] = math.degrees(float(rotation_vector(rotations[place].mT @ rotation).norm()))
        moved_mm[index] = float((shift - shifts[place]).norm())
    return Smoothed(tuple(results), tuple(moved_deg), tuple(moved_mm))


def median_rotation(rotations: Float[Tensor, "count 3 3"], weights: Float[Tensor, "count"]) -> Float[Tensor, "3 3"]:
    """Rotation with the smallest weighted sum of angles to the given ones (Weiszfeld's iteration in tangent space).

    Started at the given rotation that has the smallest sum, so that two camps never meet at a place between them.

    References
    ----------
    .. [1] Hartley, Aftab and Trumpf, "L1 rotation averaging using the Weiszfeld algorithm", CVPR 2011.
    """
    angles = rotation_vector(rotations[:, None].mT @ rotations[None]).norm(dim=-1)
    mean = rotations[int((angles * weights[:, None]).sum(0).argmin())]
    for _ in range(30):
        vectors = rotation_vector(mean.mT @ rotations)
        share = weights / vectors.norm(dim=-1).clamp_min(1e-6)
        step = (vectors * share[:, None]).sum(0) / share.sum()
        mean = mean @ rotation_from_vector(step)
        if float(step.norm()) < 1e-8:
            break
    return chordal_mean(mean[None])


def geometric_median(points: Float[Tensor, "count 3"], weights: Float[Tensor, "count"]) -> Float[Tensor, "3"]:
    """Point with the smallest weighted sum of distances to the given ones (Weiszfeld)."""
    distances = (points[:, None] - points[None]).norm(dim=-1)
    median = points[int((distances * weights[:, None]).sum(0).argmin())]
    for _ in range(30):
        share = weights / (points - median).norm(dim=-1).clamp_min(1e-6)
        moved = (points * share[:, None]).sum(0) / share.sum()
        if float((moved - median).norm()) < 1e-8:
            break
        median = moved
    return median


def _local_rotation(
    rotations: Float[Tensor, "count 3 3"], offset: Float[Tensor, "count"], weight: Float[Tensor, "count"]
) -> Float[Tensor, "3 3"]:
    """Rotation at offset 0 of the local line, re-anchored until it stands still."""
    anchor = median_rotation(rotations, weight)
    for _ in range(10):
        vectors = rotation_vector(anchor.mT @ rotations)
        step = torch.deg2rad(
            _local_line(
                torch.rad2deg(vectors), offset, weight, start=torch.zeros(3).double(), least_scale=LEAST_SCALE_DEG
            )
        )
        anchor = anchor @ rotation_from_vector(step)
        if float(step.norm()) < 1e-7:
            break
    return chordal_mean(anchor[None])


def _local_line(
    values: Float[Tensor, "count 3"],
    offset: Float[Tensor, "count"],
    weight: Float[Tensor, "count"],
    *,
    start: Float[Tensor, "3"],
    least_scale: float = LEAST_SCALE_MM,
) -> Float[Tensor, "3"]:
    """Value at offset 0 of a robust weighted line through values that are close to ``start`` but for outliers."""
    design = torch.stack([torch.ones_like(offset), offset], dim=1)
    line = torch.stack([start, torch.zeros_like(start)])
    scale = math.inf
    for turn in range(ROUNDS):
        residual = (values - design @ line).norm(dim=1)
        # it may only shrink: a line that leans towards outliers would widen it until they count
        scale = min(scale, max(1.4826 * float(residual.median()), least_scale))
        if turn < ROUNDS // 2:
            fit = (HUBER * scale / residual.clamp_min(1e-12)).clamp_max(1.0)
        else:
            fit = (1 - (residual / (TUKEY * scale)).clamp_max(1.0) ** 2) ** 2
        line = _weighted_line(values, design, weight * fit, line)
    return line[0]


def _weighted_line(values: Tensor, design: Tensor, weight: Tensor, before: Tensor) -> Tensor:
    """Weighted least squares; a mean where the remaining times span no line, the line before where none remain."""
    if float(weight.sum()) < 1e-9:
        return before
    counted: Bool[Tensor, "count"] = weight > 1e-3 * weight.max()
    if int(counted.sum()) < 3:
        mean = (values * weight[:, None]).sum(0) / weight.sum()
        return torch.stack([mean, torch.zeros_like(mean)])
    normal = design.mT @ (design * weight[:, None])
    return torch.linalg.solve(normal, design.mT @ (values * weight[:, None]))
