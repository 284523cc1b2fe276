"""``equivox simulate motion``: the navigator experiment."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from equivox.cli.options import RUNNING, Output
from equivox.cli.speaking import print_document, say

if TYPE_CHECKING:
    from equivox.tasks.simulate.motion_stack import Stack

EXPERIMENT = Group("Experiment", sort_key=5)
_ONE = Parameter(group=EXPERIMENT, negative="")
_MANY = Parameter(group=EXPERIMENT, negative="", consume_multiple=True)
_RUN = Parameter(group=RUNNING)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """The experiment; None leaves the default."""

    orientations: Annotated[tuple[Literal["axial", "coronal", "sagittal"], ...] | None, _MANY] = None
    """Stacks of slices. [axial coronal sagittal]"""
    methods: Annotated[tuple[Literal["truth", "navigator", "model", "landmarks", "blind"], ...] | None, _MANY] = None
    """What steers the slices. [all five]"""
    thickness_mm: Annotated[float | None, _ONE] = None
    """Thickness and distance of slices. [3]"""
    slice_voxel_mm: Annotated[float | None, _ONE] = None
    """Voxel in the plane of a slice. [1]"""
    slice_size: Annotated[int | None, _ONE] = None
    """Voxels along either side of a slice. [256]"""
    interleave: Annotated[int | None, _ONE] = None
    """Sweeps over the stack. [4]"""
    navigator_mm: Annotated[float | None, _ONE] = None
    """Voxel of the navigator. [6]"""
    repetition_s: Annotated[float | None, _ONE] = None
    """Seconds from one navigator to the next. [2.5]"""
    delay_s: Annotated[float | None, _ONE] = None
    """Seconds from a navigator to its slice. [1]"""
    navigator_noise: Annotated[float | None, _ONE] = None
    """Noise of the navigator, over the scan's bright level. [0.03]"""
    bursts_per_minute: Annotated[float | None, _ONE] = None
    """Of sampled motion: how often the head turns. [2]"""
    burst_deg: Annotated[float | None, _ONE] = None
    """Of sampled motion: scale of such a turn. [15]"""


def motion(
    scan: Path,
    labels: Path,
    /,
    *,
    out: Path,
    pose: Path | None = None,
    trajectory: Path | None = None,
    sample: str | None = None,
    model: str = "fetal-head-epi",
    seed: int = 0,
    write_navigators: Annotated[bool, Parameter(negative="")] = False,
    device: Annotated[str, _RUN] = "auto",
    threads: Annotated[int | None, _RUN] = None,
    options: ExperimentOptions | None = None,
    output: Output | None = None,
) -> None:
    """Steer slices through a moving head by navigators, and see what of the head they cover.

    Before every slice a coarse navigator is taken; the pose found in it says where the slice shall lie a moment later.
    Compared are the true pose, the model, the landmark rule, and no correction. Writes trajectory.csv, slices.csv,
    coverage.csv, slices/ (affines in the head's frame), coverage/ (maps on the scan's grid), report.html and run.json.

    For example:

    equivox simulate motion scan.nii.gz labels.nii.gz --pose poses.csv --out motion

    equivox simulate motion scan.nii.gz labels.nii.gz --pose pose.json --trajectory motion.csv --methods truth blind
    --out quick --seed 3

    Parameters
    ----------
    scan
        One volume of a head at rest.
    labels
        Its labels: 1 brain, 2 eyes.
    out
        Output folder.
    pose
        Its true pose: a poses.csv or a transform file; by default the model's own pose at rest.
    trajectory
        Motion: .csv with the columns sample, t, tx, ty, tz and rx, ry, rz (Euler) or r0x, r0y, r0z (rotation vector),
        in s, mm and degrees; by default it is drawn.
    sample
        Which sample of the table comes first; where it ends, the others follow.
    model
        Name or folder of the model that looks at the navigators.
    seed
        Of everything random.
    write_navigators
        Also write the navigators.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of this process.
    options
        The experiment.
    output
        How the command speaks.
    """
    from equivox.tasks.simulate.motion import MotionInputs, simulate_motion
    from equivox.tasks.simulate.motion_config import MotionConfig

    chosen = options or ExperimentOptions()
    given = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    config = MotionConfig(**{name: value for name, value in given.items() if value is not None})
    speak = output or Output()
    inputs = MotionInputs(scan=scan, labels=labels, pose=pose, trajectory=trajectory, sample=sample)
    run = simulate_motion(
        inputs, out, config, seed=seed, model=model, device=device, threads=threads,
        write_navigators=write_navigators, overwrite=speak.overwrite, command=sys.argv,
        progress=None if speak.quiet else _print_stack,
    )  # fmt: skip
    if speak.json:
        print_document(run.as_dict())
    if not speak.quiet:
        say([*(f"note: {text}" for text in run.warnings), f"page: {out / 'report.html'}"])


def _print_stack(done: int, total: int, stack: Stack) -> None:
    """One line on stderr per finished stack."""
    found = stack.summary()
    line = f"[{done}/{total}] {stack.orientation} {stack.method}: {found['slices']} slices"
    line += f"  covered {found['covered_percent']:.1f} %  obliqueness {found['oblique_mean_deg']:.1f} deg"
    if found["without_estimate"]:
        line += f"  without an answer {found['without_estimate']}"
    say([line])
