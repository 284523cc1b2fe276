"""``pose apply``: a scan resliced into the head's own frame, or along planes prescribed in it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from equivox.geometry.space import Volume, sample_at
from equivox.geometry.splines import CubicSampler
from equivox.tasks.pose.convert import grid_of

logger = logging.getLogger(__name__)

Plane = Literal["head", "axial", "coronal", "sagittal"]
AXES: dict[Plane, tuple[tuple[float, float, float], ...]] = {
    "head": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
}
"""Directions of the output's voxel axes (i, j, slices) in the head's frame (right, anterior, superior); det +1."""
SIDE_MM, HEAD_VOXEL_MM = 160.0, 1.0
"""Field of view, and the voxels of the plane ``head``, by default (as ``pose predict --write-aligned``)."""
LARGEST_VOXELS = 2**28
SLAB_POINTS = 2_000_000
"""Points that are sampled at a time."""


@dataclass(frozen=True, kw_only=True)
class ApplyConfig:
    """What the output looks like."""

    plane: Plane | None = None
    """Plane of the slices; None is ``head``: 1 mm cubes in the head's own axes."""
    spacing_mm: tuple[float, ...] | None = None
    """Distance of voxels: one number, or (i, j, slices). None: 1 mm; along a plane the scan's own finest, finest and
    coarsest."""
    size: tuple[int, ...] | None = None
    """Voxels: one number, or (i, j, slices). None: as many as cover 160 mm."""
    interpolation: Literal["linear", "cubic", "nearest"] = "linear"
    """Between the scan's voxels."""
    out_frame: Literal["head", "world"] = "head"
    """What the output's affine maps to: head mm, or world mm, so that it lies over the scan."""
    invert: bool = False
    """The pose file maps world to head."""

    def __post_init__(self) -> None:
        for name, values in (("--spacing-mm", self.spacing_mm), ("--size", self.size)):
            if values is None:
                continue
            if len(values) not in (1, 3):
                raise ConfigError(
                    f"{name} has {len(values)} numbers; give one, or three (two in the plane, then slices)."
                )
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise ConfigError(f"{name} is {' '.join(f'{value:g}' for value in values)}; it must be above 0.")

    @property
    def is_default_grid(self) -> bool:
        """Whether nothing was said about the grid."""
        return self.plane is None and self.spacing_mm is None and self.size is None


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


def plane_grid(
    plane: Plane, *, spacing_mm: Sequence[float], size: Sequence[int]
) -> tuple[Float[Tensor, "4 4"], tuple[int, int, int]]:
    """Affine (voxel to head mm) and shape of a grid along a plane, centred on the head's origin.

    Slices lie along the third axis: axial (right, anterior, superior), coronal (right, superior, posterior), sagittal
    (anterior, superior, right). All are right-handed.
    """
    step = torch.tensor([*spacing_mm], dtype=torch.float64).expand(3)
    x, y, z = torch.tensor([*size]).expand(3).tolist()
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.tensor(AXES[plane], dtype=torch.float64).mT * step
    affine[:3, 3] = -affine[:3, :3] @ ((torch.tensor([x, y, z], dtype=torch.float64) - 1) / 2)
    return affine, (x, y, z)


def reslice(
    volume: Volume,
    world_from_head: Pose,
    affine: Float[Tensor, "4 4"],
    shape: tuple[int, int, int],
    *,
    interpolation: Literal["linear", "cubic", "nearest"] = "linear",
) -> Volume:
    """The volume on a grid in the head's frame: the value at head point ``p`` is the scan's at ``world_from_head p``.

    Points are sampled, not averaged over the thickness of a slice; 0 beyond the outer edges of the scan's voxels.

    Parameters
    ----------
    volume
        The scan, in world mm.
    world_from_head
        Rigid pose from ``head`` to ``world``.
    affine, shape
        The grid: voxel index to head mm.
    interpolation
        Between the scan's voxels.
    """
    world_from_voxel = world_from_head.matrix().double() @ affine.double()
    cubic = CubicSampler(volume) if interpolation == "cubic" else None
    thick = max(1, SLAB_POINTS // (shape[0] * shape[1]))
    slabs = []
    for first in range(0, shape[2], thick):
        count = min(thick, shape[2] - first)
        axes = [torch.arange(size, dtype=torch.float64) for size in (shape[0], shape[1], count)]
        axes[2] += first
        index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        points = index @ world_from_voxel[:3, :3].mT + world_from_voxel[:3, 3]
        if cubic is not None:
            slabs.append(cubic(points))
        else:
            mode: Literal["linear", "nearest"] = "nearest" if interpolation == "nearest" else "linear"
            slabs.append(sample_at(volume, points, interpolation=mode))
    return Volume(torch.cat(slabs, dim=3), affine.double(), name=volume.name)


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
    affine, shape = _grid(config, fixed_grid, scan)
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


def _grid(config: ApplyConfig, reference: Grid | None, scan: Scan) -> tuple[Float[Tensor, "4 4"], tuple[int, int, int]]:
    """The output's grid in head mm."""
    if reference is not None and config.is_default_grid:
        return reference.affine, reference.shape
    plane = config.plane or "head"
    own = (min(scan.voxel_size_mm), min(scan.voxel_size_mm), max(scan.voxel_size_mm))
    by_default = (HEAD_VOXEL_MM,) if plane == "head" else own
    spacing = [*(config.spacing_mm or by_default)]
    spacing = spacing * 3 if len(spacing) == 1 else spacing
    size = [*(config.size or [max(1, round(SIDE_MM / step)) for step in spacing])]
    size = size * 3 if len(size) == 1 else size
    if math.prod(size) > LARGEST_VOXELS:
        raise ConfigError(
            f"The output would have {' x '.join(str(count) for count in size)} voxels; "
            f"give a larger --spacing-mm or a smaller --size."
        )
    return plane_grid(plane, spacing_mm=spacing, size=size)
