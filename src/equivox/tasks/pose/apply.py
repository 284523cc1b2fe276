"""``pose apply``: a scan resliced into the head's own frame, or along planes prescribed in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, EquivoxError, InputError
from equivox.formats.atomic import require_absent
from equivox.formats.nifti import Scan, open_scan
from equivox.formats.nifti_series import frame_seconds, write_series
from equivox.formats.transforms.files import HEAD, WORLD, TransformSet, read_transforms
from equivox.formats.transforms.grid import Grid
from equivox.geometry.rotations import Pose
from equivox.tasks.pose.apply_grid import ApplyConfig, output_grid, reslice
from equivox.tasks.pose.convert import grid_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """The file that was written, its grid, and what could not be filled."""

    out: Path
    scan: Path
    pose: Path
    affine: Float[Tensor, "4 4"]
    shape: tuple[int, int, int]
    frame_count: int
    warnings: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where frames are empty for want of a pose or of values, else 0."""
        return 1 if self.lost else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "out": str(self.out),
            "scan": str(self.scan),
            "pose": str(self.pose),
            "shape": list(self.shape),
            "frames": self.frame_count,
            "affine": self.affine.tolist(),
        }


def apply_pose(
    scan_path: Path | str,
    pose_path: Path | str,
    out: Path | str,
    config: ApplyConfig,
    *,
    reference: Path | str | None = None,
    moving: Path | str | None = None,
    row: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Applied:
    """Reslice a scan, or every frame of a series with its own pose, and write it as NIfTI.

    Frames are read, resliced and written one at a time. A frame without a pose, or that cannot be read, becomes zeros
    and is listed.

    Parameters
    ----------
    scan_path
        NIfTI or MGH, 3D or 4D.
    pose_path
        Any file that ``read_transforms`` knows: one pose, or one per frame.
    out
        ``.nii`` or ``.nii.gz``.
    config
        Grid and interpolation.
    reference
        An image in the head's frame: what an FSL matrix refers to, and the output's grid unless ``config`` asks for
        another.
    moving
        The image that an FSL matrix was made for; the scan itself by default.
    row
        The input whose rows of a ``poses.csv`` are meant; the scan's own name by default.
    overwrite
        Replace an existing file.
    progress
        Called with (frames done, frames) after each.

    Raises
    ------
    ConfigError
        If options exclude each other.
    InputError
        If a file cannot be read, the poses do not fit the frames, or no frame has one.
    OutputError
        If ``out`` exists already, or cannot be written.
    """
    out = Path(out)
    if not out.name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"{out} does not end in .nii or .nii.gz; name the output so.")
    require_absent([out], overwrite=overwrite)
    scan = open_scan(scan_path)
    if out.exists() and out.samefile(scan.path):
        raise ConfigError(f"{out} is the scan itself; choose another --out.")
    moving_grid = Grid(scan.affine, scan.shape, scan.name) if moving is None else grid_of(moving)
    fixed_grid = grid_of(reference)
    read = read_transforms(pose_path, moving=moving_grid, fixed=fixed_grid, row=row or str(scan_path))
    poses = _world_from_head(read, config, scan)
    affine, shape = output_grid(config, fixed_grid, scan)
    shown = affine
    if config.out_frame == "world":
        single = poses[0]
        if len(set(map(id, poses))) > 1 or single is None:
            raise ConfigError(
                f"--out-frame world needs one pose, and {pose_path} has {len(poses)}; frames that move have no common "
                f"place in the world, so leave it out."
            )
        shown = single.matrix().double() @ affine
    lost: list[str] = []
    empty: list[str] = []

    def frames() -> Iterator[Float[Tensor, "x y z"]]:
        for index, pose in enumerate(poses):
            where = f"{scan.path}, frame {index}" if scan.is_series else f"{scan.path}"
            yield _frame(scan, index, pose, affine, shape, config, where, lost, empty)
            if progress is not None:
                progress(index + 1, len(poses))

    write_series(out, frames(), affine=shown, shape=shape, count=len(poses), seconds=frame_seconds(scan))
    warnings = [*scan.warnings, *(f"{where}: nothing of the scan lies on the output's grid." for where in empty)]
    return Applied(out, scan.path, Path(pose_path), shown, shape, len(poses), tuple(warnings), tuple(lost))


def _frame(
    scan: Scan,
    index: int,
    pose: Pose | None,
    affine: Float[Tensor, "4 4"],
    shape: tuple[int, int, int],
    config: ApplyConfig,
    where: str,
    lost: list[str],
    empty: list[str],
) -> Float[Tensor, "x y z"]:
    """One frame of the output; zeros, and an entry in ``lost``, where there is nothing to show."""
    if pose is None:
        lost.append(f"{where}: it has no pose; the output is 0 there.")
        return torch.zeros(shape)
    try:
        volume = scan.frame(index)
    except EquivoxError as error:
        if not scan.is_series:
            raise
        logger.debug("%s cannot be read", where, exc_info=True)
        lost.append(f"{error} The output is 0 there.")
        return torch.zeros(shape)
    values = reslice(volume, pose, affine, shape, interpolation=config.interpolation).data[0]
    if not bool(values.any()):
        empty.append(where)
    return values


def _world_from_head(read: TransformSet, config: ApplyConfig, scan: Scan) -> list[Pose | None]:
    """One pose per frame of the scan, the right way round."""
    if config.invert:
        if read.named:
            raise ConfigError(f"{read.path} names its own frames ({read.fixed} to {read.moving}); leave out --invert.")
        read = read.inverse()
        read = TransformSet(read.path, read.format, read.matrices)
    elif (read.fixed, read.moving) == (WORLD, HEAD):
        read = read.inverse()
    if (read.fixed, read.moving) != (HEAD, WORLD):
        raise InputError(f"{read.path} maps {read.fixed} to {read.moving}; a pose from {HEAD} to {WORLD} is needed.")
    poses = read.poses()
    if len(poses) == 1 and scan.frame_count > 1:
        poses = poses * scan.frame_count
    if len(poses) != scan.frame_count:
        raise InputError(
            f"{read.path} has {len(poses)} poses, but {scan.path} has {scan.frame_count} frame(s); "
            f"give one pose, or one per frame."
        )
    if all(pose is None for pose in poses):
        raise InputError(f"{read.path} has no pose for {scan.path}; there is nothing to apply.")
    return poses
