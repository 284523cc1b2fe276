"""One stack of one method: navigators, estimates, slices as prescribed and as they come to lie in the moving head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import Pose, geodesic_angle, nearest_rotation
from equivox.geometry.space import Volume, isotropic_grid
from equivox.geometry.trajectories import Trajectory
from equivox.run.seeds import generator_for
from equivox.simulate.eye_rule import rotation_from_eyes
from equivox.simulate.navigator import Shadow, make_navigator, moved_mask, shadow_strength, shadow_width_mm
from equivox.simulate.slices import (
    Orientation,
    coverage,
    interleaved_order,
    obliqueness_deg,
    prescribed_slice,
    slice_axes,
    slice_positions_mm,
)
from equivox.tasks.simulate.motion_config import Method, MotionConfig

Estimate = Callable[[Volume], Pose | None]
"""A navigator to ``world_from_head``; None where no head is found."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A head at rest.

    Parameters
    ----------
    volume
        The scan.
    brain, eyes
        Masks on the scan's grid; no eyes, no landmark rule.
    world_from_head
        The true pose.
    points_mm
        Centres of the brain's voxels in the head's frame: what slices should cover.
    """

    volume: Volume
    brain: Volume
    eyes: Volume | None
    world_from_head: Pose
    points_mm: Float[Tensor, "point 3"]

    def motion(self, trajectory: Trajectory, time_s: float) -> Float[Tensor, "4 4"]:
        """World from world: where points at rest are at a time. The motion's centre is the head's origin at rest."""
        center = self.world_from_head.translation_mm.double()
        motion = trajectory.matrices(torch.tensor([time_s], dtype=torch.float64))[0]
        motion[:3, 3] += center - motion[:3, :3] @ center
        return motion

    def pose_at(self, trajectory: Trajectory, time_s: float) -> Pose:
        """The true pose at a time."""
        return Pose.from_matrix(
            self.motion(trajectory, time_s) @ self.world_from_head.matrix().double(), source="head", target="world"
        )


@dataclass(slots=True)
class Stack:
    """What one method made of one orientation."""

    orientation: Orientation
    method: Method
    rows: list[dict[str, Any]] = field(default_factory=list)
    head_from_slices: list[Tensor] = field(default_factory=list)
    counts: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """Coverage [%] and obliqueness [degrees] of the stack, and the errors that made them."""
        counts = self.counts if self.counts is not None else torch.zeros(1)
        oblique = [row["oblique_deg"] for row in self.rows]
        turned = sorted(row["error_deg"] for row in self.rows)
        return {
            "orientation": self.orientation,
            "method": self.method,
            "slices": len(self.rows),
            "covered_percent": round(100 * float((counts > 0).float().mean()), 3),
            "gap_percent": round(100 * float((counts == 0).float().mean()), 3),
            "twice_percent": round(100 * float((counts > 1).float().mean()), 3),
            "oblique_mean_deg": round(sum(oblique) / len(oblique), 4),
            "oblique_max_deg": round(max(oblique), 4),
            "error_median_deg": round(turned[len(turned) // 2], 4),
            "without_estimate": sum(not row["estimated"] for row in self.rows),
        }


def slice_count(scene: Scene, orientation: Orientation, config: MotionConfig) -> int:
    """Slices of a stack, from the brain's extent along their normal."""
    return len(_positions(scene, orientation, config))


def run_stack(
    scene: Scene,
    trajectory: Trajectory,
    orientation: Orientation,
    method: Method,
    config: MotionConfig,
    *,
    start_s: float,
    seed: int,
    estimate: Estimate | None = None,
    on_navigator: Callable[[int, Volume], None] | None = None,
) -> Stack:
    """Acquire one stack: before each slice a navigator, whose pose steers the slice a moment later.

    Parameters
    ----------
    scene, trajectory, config
        What moves, how, and the experiment.
    orientation, method
        Which stack.
    start_s
        Time of its first navigator on the trajectory.
    seed
        Of recovery times and noise; the same for all methods, which see the same motion.
    estimate
        The model, for the method ``model``.
    on_navigator
        Called with the number and the volume of every navigator that is made.
    """
    positions = _positions(scene, orientation, config)
    order = interleaved_order(len(positions), config.interleave)
    known = scene.pose_at(trajectory, start_s)  # prescribed by hand on the first image
    stack = Stack(orientation, method)
    before: tuple[Tensor, float] | None = None
    for number, position in enumerate(order):
        navigator_s = start_s + number * config.repetition_s
        slice_s = navigator_s + config.delay_s
        truth = scene.pose_at(trajectory, slice_s)
        at_navigator = scene.pose_at(trajectory, navigator_s)
        found: Pose | None
        if method == "truth":
            found = truth
        elif method == "navigator":
            found = at_navigator
        elif method == "blind":
            found = known
        elif method == "landmarks":
            found = _by_eyes(scene, scene.motion(trajectory, navigator_s), config)
        else:
            image = _navigator(scene, trajectory, navigator_s, before, config, generator_for(seed, orientation, number))
            if on_navigator is not None:
                on_navigator(number, image)
            found = None if estimate is None else estimate(image)
        estimated = found is not None
        known = found if found is not None else known
        world_from_slice = prescribed_slice(
            known, orientation, float(positions[position]), voxel_mm=config.slice_voxel_mm,
            thickness_mm=config.thickness_mm, size=config.slice_size,
        )  # fmt: skip
        before = (world_from_slice, slice_s)
        head_from_slice = truth.inverse().matrix().double() @ world_from_slice
        stack.head_from_slices.append(head_from_slice)
        middle = torch.tensor([(config.slice_size - 1) / 2] * 2 + [0.0, 1.0], dtype=torch.float64)
        aim = slice_axes(orientation)[:, 2] @ (head_from_slice @ middle)[:3]
        stack.rows.append(
            {
                "orientation": orientation, "method": method, "number": number, "slice": position,
                "navigator_s": round(navigator_s, 4), "slice_s": round(slice_s, 4),
                "position_mm": round(float(positions[position]), 4), "estimated": int(estimated),
                "error_deg": _degrees(known, at_navigator),
                "error_mm": round(float((known.translation_mm - at_navigator.translation_mm).norm()), 4),
                "oblique_deg": round(obliqueness_deg(head_from_slice, orientation), 4),
                "off_mm": round(float(aim - positions[position]), 4),
            }
        )  # fmt: skip
    stack.counts = coverage(scene.points_mm, stack.head_from_slices, size=config.slice_size)
    return stack


def _positions(scene: Scene, orientation: Orientation, config: MotionConfig) -> Tensor:
    along = scene.points_mm @ slice_axes(orientation)[:, 2]
    return slice_positions_mm(float(along.min()), float(along.max()), config.thickness_mm)


def _navigator(
    scene: Scene, trajectory: Trajectory, time_s: float, before: tuple[Tensor, float] | None, config: MotionConfig,
    generator: torch.Generator,
) -> Volume:  # fmt: skip
    motion = scene.motion(trajectory, time_s)
    low, high = config.t1_s
    t1_s = low + (high - low) * float(torch.rand((), generator=generator))
    shadow = None
    if before is not None:
        affine, then_s = before
        middle = torch.tensor([(config.slice_size - 1) / 2] * 2 + [0.0, 1.0], dtype=torch.float64)
        shadow = Shadow(
            normal=affine[:3, 2] / affine[:3, 2].norm(),
            point_mm=(affine @ middle)[:3],
            moved=motion @ torch.linalg.inv(scene.motion(trajectory, then_s)),
            sigma_mm=shadow_width_mm(config.thickness_mm, config.navigator_mm),
            strength=shadow_strength(time_s - then_s, t1_s),
        )
    return make_navigator(
        scene.volume, scene.brain, motion, navigator_mm=config.navigator_mm, noise=config.navigator_noise,
        generator=generator, shadow=shadow,
    )  # fmt: skip


def _by_eyes(scene: Scene, motion: Tensor, config: MotionConfig) -> Pose | None:
    """The landmark rule on the true labels carried along by the motion; its centre is the brain's centroid."""
    if scene.eyes is None:
        return None
    affine, shape = isotropic_grid(scene.volume, config.navigator_mm)
    brain, eyes = (moved_mask(mask, motion, affine, shape) for mask in (scene.brain, scene.eyes))
    rotation = rotation_from_eyes(brain.data[0] > 0.5, eyes.data[0] > 0.5)
    if rotation is None:
        return None
    # the left-right axis is found up to its sense; handedness has settled the rest
    center = brain.world_from_voxel((brain.data[0] > 0.5).nonzero().double()).mean(0)
    return Pose(nearest_rotation(rotation), center, source="head", target="world")


def _degrees(first: Pose, second: Pose) -> float:
    return round(math.degrees(float(geodesic_angle(first.rotation.double(), second.rotation.double()))), 4)
