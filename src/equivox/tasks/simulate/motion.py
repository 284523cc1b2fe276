"""`equivox simulate motion`: slices steered by navigators through a moving head, and what of the head they cover.

The published experiment with its defects mended: one motion model and one seed for all methods, slice counts from the
extent along the slices' normal, and a ground truth that is the ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equivox import __version__
from equivox.errors import ConfigError, EquivoxError, InputError
from equivox.formats.atomic import atomic_path, require_absent, require_folder, write_json, write_text
from equivox.formats.nifti import open_scan, write_volume
from equivox.formats.tables import records_as_csv
from equivox.formats.trajectories import read_trajectories, write_trajectories
from equivox.formats.transforms.files import HEAD, WORLD, read_transforms
from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume
from equivox.geometry.trajectories import Trajectory, chained
from equivox.run.device import choose_device
from equivox.run.items import limit_threads
from equivox.run.record import RunRecord
from equivox.run.seeds import generator_for
from equivox.simulate.motion import sample_trajectory
from equivox.tasks.load import load_model
from equivox.tasks.simulate.motion_config import MotionConfig
from equivox.tasks.simulate.motion_stack import Estimate, Scene, Stack, run_stack, slice_count

TRAJECTORY, SLICES, COVERAGE, SUMMARY = "trajectory.csv", "slices.csv", "coverage.csv", "coverage.json"
RUN_JSON, REPORT = "run.json", "report.html"
BRAIN, EYES = 1, 2
Progress = Callable[[int, int, Stack], None]


@dataclass(frozen=True, kw_only=True)
class MotionInputs:
    """What the experiment starts from."""

    scan: Path
    """One volume of a head at rest."""
    labels: Path
    """Its labels, on its grid: 1 brain, 2 eyes."""
    pose: Path | None = None
    """The true pose (``poses.csv``, a transform file); None: the model's pose at rest is taken for the truth."""
    trajectory: Path | None = None
    """Table of motion; None: drawn."""
    sample: str | None = None
    """Which sample of the table comes first; the others follow where it is too short."""


@dataclass(frozen=True)
class MotionRun:
    """A finished experiment."""

    out: Path
    stacks: tuple[Stack, ...]
    warnings: tuple[str, ...]
    files: tuple[str, ...]

    def table(self) -> list[dict[str, Any]]:
        """One row per stack: coverage, obliqueness, errors."""
        return [stack.summary() for stack in self.stacks]

    def as_dict(self) -> dict[str, Any]:
        """The document of ``--json`` (schema ``equivox.simulate.motion/1``)."""
        return {
            "schema": "equivox.simulate.motion/1",
            "version": __version__,
            "out": str(self.out),
            "results": self.table(),
            "files": list(self.files),
            "warnings": list(self.warnings),
            "errors": [],
        }


def simulate_motion(
    inputs: MotionInputs,
    out: Path,
    config: MotionConfig,
    *,
    seed: int = 0,
    model: str = "fetal-head-epi",
    device: str = "auto",
    threads: int | None = None,
    write_navigators: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = ("equivox", "simulate", "motion"),
    progress: Progress | None = None,
) -> MotionRun:
    """Run every method over every orientation and write slices, coverage maps, tables and a page.

    Parameters
    ----------
    inputs
        Scan, labels, true pose, motion.
    out
        Output folder.
    config
        The experiment.
    seed
        Of the sampled motion, recovery times and noise.
    model
        For the method ``model``, and for the pose at rest where none is given.
    device, threads
        Where the model runs.
    write_navigators
        Also write every navigator that the model sees.
    overwrite
        Replace an earlier experiment's files.
    command
        For the record.
    progress
        Called with (stacks done, stacks, stack).

    Raises
    ------
    EquivoxError
        If an input or the model cannot be used, or results are in the way.
    """
    if threads is not None:
        limit_threads(threads)
    chosen = choose_device(device)
    require_folder(out)
    require_absent([out / name for name in (TRAJECTORY, SLICES, COVERAGE, RUN_JSON, REPORT)], overwrite=overwrite)
    record = RunRecord(command, {**config.as_dict(), "model": model}, seed=seed, device=chosen.as_dict())
    warnings: list[str] = []
    estimate: Estimate | None = None
    if "model" in config.methods or inputs.pose is None:
        estimate = _estimator(model, str(chosen.device))
    scene = read_scene(inputs, estimate, warnings)
    for path in (inputs.scan, inputs.labels, inputs.pose, inputs.trajectory):
        if path is not None:
            record.add_input(path)
    if "landmarks" in config.methods and scene.eyes is None:
        warnings.append(f"{inputs.labels} marks no eyes (label {EYES}): the landmark rule never answers.")
    starts, until_s = [], 0.0
    for orientation in config.orientations:
        starts.append(until_s)
        until_s += slice_count(scene, orientation, config) * config.repetition_s
    trajectory = _trajectory(inputs, until_s, config, seed)
    files = [TRAJECTORY]
    write_trajectories(out / TRAJECTORY, {"0": trajectory})
    stacks: list[Stack] = []
    total = len(config.orientations) * len(config.methods)
    with record.timed("stacks"):
        for orientation, start_s in zip(config.orientations, starts, strict=True):
            for method in config.methods:
                keep = None
                if write_navigators and method == "model":
                    keep = _navigator_writer(out / "navigators" / orientation, files, out)
                stack = run_stack(
                    scene, trajectory, orientation, method, config, start_s=start_s, seed=seed, estimate=estimate,
                    on_navigator=keep,
                )  # fmt: skip
                stacks.append(stack)
                files += _write_stack(out, scene, stack)
                if progress is not None:
                    progress(len(stacks), total, stack)
    run = MotionRun(out, tuple(stacks), tuple(warnings), (*files, SLICES, COVERAGE, SUMMARY, REPORT, RUN_JSON))
    write_text(out / SLICES, records_as_csv([row for stack in stacks for row in stack.rows]))
    write_text(out / COVERAGE, records_as_csv(run.table()))
    write_json(out / SUMMARY, run.as_dict())
    from equivox.tasks.simulate.motion_page import render_motion_page

    write_text(out / REPORT, render_motion_page(run, scene, config, seed=seed))
    for text in warnings:
        record.add_warning(text)
    record.write(out / RUN_JSON, "done")
    return run


def read_scene(inputs: MotionInputs, estimate: Estimate | None, warnings: list[str]) -> Scene:
    """The head at rest with its masks and its true pose.

    Raises
    ------
    InputError
        If the labels lie on another grid or mark no brain, or there is no pose.
    """
    scan = open_scan(inputs.scan)
    if scan.is_series:
        raise InputError(f"{inputs.scan} is a series of {scan.frame_count} frames; give one volume of a head at rest.")
    volume = scan.frame(0)
    marked = open_scan(inputs.labels)
    labels = marked.labels()
    if marked.shape != scan.shape or not torch.allclose(marked.affine, scan.affine, atol=1e-2):
        raise InputError(f"{inputs.labels} lies on another grid than {inputs.scan}; resample it to the scan's grid.")
    brain = Volume((labels == BRAIN).float()[None], scan.affine, "brain")
    if int(brain.data.sum()) < 10:
        raise InputError(f"{inputs.labels} marks no brain (label {BRAIN}); slices need something to cover.")
    eyes = Volume((labels == EYES).float()[None], scan.affine, "eyes") if bool((labels == EYES).any()) else None
    if inputs.pose is not None:
        read = read_transforms(inputs.pose, row=str(inputs.scan))
        if (read.fixed, read.moving) == (WORLD, HEAD):
            read = read.inverse()
        pose = read.poses()[0]
    else:
        pose = None if estimate is None else estimate(volume)
        warnings.append("No --pose was given: the model's pose at rest is taken for the truth, its own error unseen.")
    if pose is None:
        raise InputError(f"There is no pose for {inputs.scan}; give its true pose with --pose.")
    points = pose.inverse().apply(brain.world_from_voxel((brain.data[0] > 0.5).nonzero().double())).double()
    return Scene(volume, brain, eyes, pose, points)


def _estimator(model: str, device: str) -> Estimate:
    loaded: Any = load_model(model, device)
    if not hasattr(loaded, "follow"):
        raise ConfigError(f"--model {model} is a model for another task; give one for poses.")

    before: Any = None

    def estimate(volume: Volume) -> Pose | None:
        nonlocal before
        try:
            answer = loaded.follow(volume, before)  # as in a series: a slice's shadow may hide the head from the finder
        except EquivoxError:
            return None
        found: Pose | None = answer.world_from_head
        before = answer if found is not None else before
        return found

    return estimate


def _trajectory(inputs: MotionInputs, until_s: float, config: MotionConfig, seed: int) -> Trajectory:
    if inputs.trajectory is None:
        return sample_trajectory(
            until_s, generator=generator_for(seed, "motion"), bursts_per_minute=config.bursts_per_minute,
            burst_deg=config.burst_deg,
        )  # fmt: skip
    samples = read_trajectories(inputs.trajectory)
    first = inputs.sample if inputs.sample is not None else next(iter(samples))
    if first not in samples:
        raise ConfigError(f"--sample {first} is not in {inputs.trajectory}; it has {', '.join(list(samples)[:8])}.")
    order = list(samples)
    turn = order.index(first)
    parts = [samples[name] for name in order[turn:] + order[:turn]]
    if float(parts[0].times_s[0]) > 0:
        raise InputError(f"{inputs.trajectory}, sample {first}, begins at {float(parts[0].times_s[0]):g} s, not at 0.")
    return chained(parts, until_s)


def _write_stack(out: Path, scene: Scene, stack: Stack) -> list[str]:
    """The slices' affines in the head's frame; how often each voxel of the brain was covered, on the scan's grid."""
    name = f"{stack.orientation}_{stack.method}"
    path = out / "slices" / f"{name}.npy"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, torch.stack(stack.head_from_slices).numpy())
    counted = torch.zeros_like(scene.brain.data)
    if stack.counts is not None:
        counted[scene.brain.data > 0.5] = stack.counts.clamp_max(255).float()
    write_volume(out / "coverage" / f"{name}.nii.gz", Volume(counted, scene.brain.affine, name), dtype="uint8")
    return [f"slices/{name}.npy", f"coverage/{name}.nii.gz"]


def _navigator_writer(folder: Path, files: list[str], out: Path) -> Callable[[int, Volume], None]:
    def write(number: int, volume: Volume) -> None:
        path = folder / f"frame_{number:03d}.nii.gz"
        write_volume(path, volume)
        files.append(path.relative_to(out).as_posix())

    return write
