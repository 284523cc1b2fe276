"""``equivox pose apply``, ``convert`` and ``average``: what is done with poses that are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from equivox.cli.options import Output
from equivox.cli.speaking import print_results, say

_FLAG = Parameter(negative="")
_NUMBERS = Parameter(consume_multiple=True, negative="")


def register(app: App) -> None:
    """Add the three commands to the group ``pose``."""
    for command in (apply, convert, average):
        app.command(command)


def apply(
    scan: Path,
    pose: Path,
    /,
    *,
    out: Path,
    plane: Literal["head", "axial", "coronal", "sagittal"] | None = None,
    spacing_mm: Annotated[list[float] | None, _NUMBERS] = None,
    size: Annotated[list[int] | None, _NUMBERS] = None,
    interpolation: Literal["linear", "cubic", "nearest"] = "linear",
    out_frame: Literal["head", "world"] = "head",
    reference: Path | None = None,
    moving: Path | None = None,
    row: str | None = None,
    invert: Annotated[bool, _FLAG] = False,
    output: Output | None = None,
) -> int:
    """Reslice a scan into the head's own frame, or along planes prescribed in it.

    The pose maps head mm to world mm (RAS+), as pose predict writes it; the value at a head point is the scan's at the
    world point. A series takes one pose, or one per frame. Slices lie along the output's third axis; points are
    sampled, not averaged over a slice's thickness; 0 outside the scan.

    For example:

    equivox pose apply scan.nii.gz poses/scan_pose.npy --out upright.nii.gz

    equivox pose apply scan.nii.gz poses/poses.csv --plane coronal --spacing-mm 1 1 3 --size 160 160 50 --out cor.nii.gz

    Parameters
    ----------
    scan
        NIfTI or MGH file, a 3D volume or a 4D series.
    pose
        Our .npy or .json, ITK .tfm, .mat or .h5, .lta, .x5, FSL .mat (with --reference), or a poses.csv.
    out
        The file to write: .nii or .nii.gz.
    plane
        Plane of the slices in the head's frame; by default head: 1 mm cubes along its right, anterior, superior axes.
    spacing_mm
        Distance of voxels in mm: one number, or two in the plane and one across; along a plane the scan's finest,
        finest and coarsest by default.
    size
        Voxels: one number, or two in the plane and one across; by default they cover 160 mm.
    interpolation
        Between the scan's voxels: linear, cubic (B-spline), or nearest for label maps.
    out_frame
        What the output's affine maps to: head mm, or world mm, so that it lies over the scan in a viewer.
    reference
        Image in the head's frame: what an FSL matrix refers to; without --plane, --spacing-mm and --size also the
        output's grid.
    moving
        Image that an FSL matrix was made for; the scan by default.
    row
        Which input of a poses.csv is meant; the scan's own name by default.
    invert
        The pose file maps world to head (pose predict --direction input-to-canonical).
    output
        How the command speaks.
    """
    from equivox.tasks.pose.apply import apply_pose
    from equivox.tasks.pose.apply_grid import ApplyConfig

    speak = output or Output()
    config = ApplyConfig(
        plane=plane, spacing_mm=None if spacing_mm is None else tuple(spacing_mm),
        size=None if size is None else tuple(size), interpolation=interpolation, out_frame=out_frame, invert=invert,
    )  # fmt: skip
    applied = apply_pose(
        scan, pose, out, config, reference=reference, moving=moving, row=row, overwrite=speak.overwrite,
        progress=None if speak.quiet else _print_frame,
    )  # fmt: skip
    if speak.json:
        errors = [{"code": "EQV-INPUT", "message": text} for text in applied.lost]
        print_results("equivox.pose-apply/1", [applied.as_dict()], applied.warnings, errors)
    if not speak.quiet:
        lines = [f"note: {text}" for text in applied.warnings[:10]]
        lines += [f"empty: {text}" for text in applied.lost[:20]]
        lines.append(f"{' x '.join(str(count) for count in applied.shape)} voxels: {applied.out}")
        say(lines)
    return applied.exit_code


def convert(
    source: Path,
    out: Path,
    /,
    *,
    to: Literal["itk", "lta", "fsl", "x5", "json", "npy"] | None = None,
    reference: Path | None = None,
    moving: Path | None = None,
    row: str | None = None,
    frame: int | None = None,
    invert: Annotated[bool, _FLAG] = False,
    output: Output | None = None,
) -> int:
    """Write a pose or another linear transform in the file format of another program.

    Every format is read and written in its own direction, and the meaning stays: points of the reference (the head's
    frame) go to points of the moving image (the scan). ITK (in LPS), X5, json and npy hold this matrix; LTA and FSL
    hold its inverse, FSL's in scaled voxels of both images. All units are mm.

    For example:

    equivox pose convert poses/scan_pose.npy pose.h5

    equivox pose convert pose.tfm pose.mat --to fsl --reference head_grid.nii.gz --moving scan.nii.gz

    Parameters
    ----------
    source
        ITK .tfm, .mat or .h5, .lta, FSL .mat, .x5, our .json or .npy, or a poses.csv; told apart by content.
    out
        The file to write: .tfm, .txt, .h5 or .mat for ITK, .lta, .mat for FSL, .x5, .json or .npy.
    to
        Format of the output, where its ending does not say (.mat may be ITK's or FSL's).
    reference
        Image that the transform maps from (in the head's frame); needed for FSL, and to write LTA.
    moving
        Image that the transform maps to (the scan); needed for FSL, and to write LTA.
    row
        Which input of a poses.csv is meant.
    frame
        Which frame of a series is meant, counted from 0.
    invert
        Write the transform the other way round, from the moving image to the reference.
    output
        How the command speaks.
    """
    from equivox.tasks.pose.convert import convert_pose

    speak = output or Output()
    done = convert_pose(
        source, out, to=to, reference=reference, moving=moving, row=row, frame=frame, invert=invert,
        overwrite=speak.overwrite,
    )  # fmt: skip
    if speak.json:
        print_results("equivox.pose-convert/1", [done.as_dict()])
    if not speak.quiet:
        written = done.written
        print(
            f"{done.read.format} to {done.format}, {written.moving}_from_{written.fixed}: {done.out}", file=sys.stderr
        )
    return 0


def average(
    poses: list[Path],
    /,
    *,
    out: Path,
    to: Literal["itk", "lta", "fsl", "x5", "json", "npy"] | None = None,
    reference: Path | None = None,
    moving: Path | None = None,
    row: str | None = None,
    output: Output | None = None,
) -> int:
    """Average poses between the same two frames, and print how far they lie apart.

    The chordal mean of the rotations (the rotation nearest to all in the least-squares sense) and the mean of the
    translations. Every frame of a series counts as one pose. Poses of mixed frames are refused.

    For example:

    equivox pose average rater1.json rater2.json --out mean.json

    equivox pose average poses/series_pose.npy --out mean.tfm --json

    Parameters
    ----------
    poses
        Files as for pose convert; where a file does not name its frames, head to world is taken.
    out
        The file to write, as for pose convert.
    to
        Format of the output, where its ending does not say.
    reference
        Image in the head's frame, for FSL and LTA.
    moving
        The scan, for FSL and LTA.
    row
        Which input of a poses.csv is meant.
    output
        How the command speaks.
    """
    from equivox.tasks.pose.average import average_poses

    speak = output or Output()
    found = average_poses(
        poses, out, to=to, reference=reference, moving=moving, row=row, overwrite=speak.overwrite
    )  # fmt: skip
    if speak.json:
        print_results("equivox.pose-average/1", [{"out": str(out), **found.as_dict()}], found.skipped)
    if not speak.quiet:
        spread = found.spread()
        lines = [f"note: {len(found.skipped)} frames have no pose and were left out"] if found.skipped else []
        lines += [
            f"{len(found.sources)} poses, {found.mean.target}_from_{found.mean.source}",
            *(
                f"from the mean {what}: rms {spread[f'rms_{key}']:.3f}, median {spread[f'median_{key}']:.3f}, "
                f"max {spread[f'max_{key}']:.3f} {unit}"
                for what, key, unit in (("rotation", "angle_deg", "degrees"), ("translation", "distance_mm", "mm"))
            ),
            f"mean: {out}",
        ]
        say(lines)
    return 0


def _print_frame(done: int, total: int) -> None:
    """One line per tenth frame of a series."""
    if total > 1 and (done % 10 == 0 or done == total):
        say([f"[{done}/{total}] frames"])
