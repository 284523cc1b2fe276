"""The files of one input: matrix, transforms, mask, aligned volume, pictures, viewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import MissingExtraError
from equivox.formats.atomic import atomic_path
from equivox.formats.nifti import Scan, open_scan
from equivox.formats.nifti_series import frame_seconds, write_series
from equivox.formats.transforms.fsl import write_fsl
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.itk import write_itk
from equivox.formats.transforms.lta import write_lta
from equivox.formats.transforms.pose_json import write_pose_json
from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume, grid_points_mm, sample_at
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.estimate import PoseEstimate

HEAD_GRID = "head_grid.nii.gz"
ENDINGS = {"itk": "tfm", "lta": "lta", "fsl": "mat", "json": "json"}


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One frame of an input with what was found in it."""

    index: int
    volume: Volume | None
    estimate: PoseEstimate
    published: Float[Tensor, "4 4"] | None = None


def head_grid(config: PredictConfig) -> Volume:
    """The grid in the head's frame: that of ``--reference``, else a cube of 1 mm voxels centred on the head.

    Raises
    ------
    InputError
        If the reference cannot be read.
    """
    if config.reference is not None:
        scan = open_scan(config.reference)
        return Volume(torch.zeros(1, *scan.shape), scan.affine.clone(), name="head grid")
    count = round(config.aligned_side_mm / config.aligned_voxel_mm)
    affine = torch.diag(torch.tensor([config.aligned_voxel_mm] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = -config.aligned_voxel_mm * (count - 1) / 2
    return Volume(torch.zeros(1, count, count, count), affine, name="head grid")


def matrix_of_frame(frame: FrameResult, config: PredictConfig) -> Float[Tensor, "4 4"] | None:
    """The 4x4 of ``<stem>_pose.npy``, float64; None without a pose.

    ``world``: RAS mm. ``voxel``: the full map from head mm into voxel indices (no rotation where voxels are not 1 mm).
    With ``published`` the original's matrix instead. The direction is applied last.
    """
    if config.published:
        return frame.published
    pose = frame.estimate.world_from_head
    if pose is None:
        return None
    matrix = pose.matrix().double()
    if config.matrix_frame == "voxel" and frame.volume is not None:
        matrix = torch.linalg.inv(frame.volume.affine.double()) @ matrix
    return matrix if config.direction == "canonical-to-input" else torch.linalg.inv(matrix)


def write_matrix(out: Path, stem: str, frames: Sequence[FrameResult], config: PredictConfig) -> list[str]:
    """``<stem>_pose.npy``: (4, 4), or (T, 4, 4) for a series with NaN where a frame has no pose."""
    nothing = torch.full((4, 4), torch.nan, dtype=torch.float64)
    matrices = [matrix_of_frame(frame, config) for frame in frames]
    if all(matrix is None for matrix in matrices):
        return []
    stacked = torch.stack([nothing if matrix is None else matrix for matrix in matrices]).numpy()
    name = f"{stem}_pose.npy"
    with atomic_path(out / name) as temporary, temporary.open("wb") as file:
        np.save(file, stacked if len(frames) > 1 else stacked[0])
    return [name]


def write_transforms(
    out: Path, stem: str, frames: Sequence[FrameResult], config: PredictConfig, grid: Volume
) -> list[str]:
    """One transform file per frame with a pose: ``<stem>_pose.tfm``, or ``<stem>_frame-003_pose.tfm`` of a series.

    ``canonical-to-input`` is what brings the scan upright: the head's grid is the reference (fixed) image, the scan the
    moving one. ``input-to-canonical`` swaps the two.
    """
    names = []
    for frame in frames:
        pose = frame.estimate.world_from_head
        if pose is None or frame.volume is None:
            continue
        part = f"_frame-{frame.index:03d}" if len(frames) > 1 else ""
        name = f"{stem}{part}_pose.{ENDINGS[config.transform_format]}"
        upright = config.direction == "canonical-to-input"
        moving_from_fixed = pose if upright else pose.inverse()
        head, scan = Grid.of(grid), Grid.of(frame.volume)
        grids = {"fixed": head, "moving": scan} if upright else {"fixed": scan, "moving": head}
        if config.transform_format == "itk":
            write_itk(out / name, moving_from_fixed.matrix())
        elif config.transform_format == "json":
            write_pose_json(out / name, moving_from_fixed)
        elif config.transform_format == "lta":
            write_lta(out / name, moving_from_fixed.matrix(), **grids)
        else:
            write_fsl(out / name, moving_from_fixed.matrix(), **grids)
        names.append(name)
    return names


def aligned(volume: Volume, world_from_head: Pose, grid: Volume) -> Volume:
    """The scan seen in the head's frame: value at head point ``p`` is the scan's at ``world_from_head p``."""
    points = world_from_head.apply(grid_points_mm(grid.affine, grid.shape))
    return Volume(sample_at(volume, points), grid.affine, name=volume.name)


def write_aligned(out: Path, stem: str, scan: Scan, frames: Sequence[FrameResult], grid: Volume) -> list[str]:
    """``<stem>_aligned.nii.gz`` in the head's own RAS mm, frame by frame; zeros where there is no pose."""
    if not any(frame.estimate.has_pose and frame.volume is not None for frame in frames):
        return []

    def resliced() -> Iterator[Float[Tensor, "x y z"]]:
        for frame in frames:
            pose = frame.estimate.world_from_head
            if pose is None or frame.volume is None:
                yield torch.zeros(grid.shape)
            else:
                volume = scan.frame(frame.index) if scan.is_series else frame.volume
                yield aligned(volume, pose, grid).data[0]

    name = f"{stem}_aligned.nii.gz"
    write_series(
        out / name, resliced(), affine=grid.affine, shape=grid.shape, count=len(frames), seconds=frame_seconds(scan)
    )
    return [name]


def write_pictures(out: Path, stem: str, frames: Sequence[FrameResult]) -> list[tuple[str, str, str]]:
    """Panels of the first frame with a pose (else of the first that was read): (kind, caption, file name) in order."""
    from equivox.report.panels import head_panels, overview_panels, scan_panels

    read = [frame for frame in frames if frame.volume is not None]
    if not read:
        return []
    frame = next((frame for frame in read if frame.estimate.has_pose), read[0])
    volume, pose, mask = frame.volume, frame.estimate.world_from_head, frame.estimate.mask
    if volume is None:
        return []
    if pose is None:
        panels = [("scan", panel) for panel in overview_panels(volume, mask)]
    else:
        panels = [("scan", panel) for panel in scan_panels(volume, pose, mask)]
        panels += [("head", panel) for panel in head_panels(volume, pose, mask)]
    written = []
    for kind, panel in panels:
        name = f"pictures/{stem}_{panel.name}.webp"
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(panel.webp)
        written.append((kind, panel.caption, name))
    return written


def write_viewer_page(out: Path, stem: str, frames: Sequence[FrameResult]) -> tuple[list[str], str]:
    """``viewer/<stem>.html`` of the first frame with a pose; the file names, and a warning where it cannot be made."""
    frame = next((frame for frame in frames if frame.estimate.has_pose and frame.volume is not None), None)
    if frame is None or frame.volume is None or frame.estimate.world_from_head is None:
        return [], ""
    from equivox.report.viewer import write_viewer

    name = f"viewer/{stem}.html"
    try:
        with atomic_path(out / name) as temporary:
            write_viewer(temporary, frame.volume, frame.estimate.world_from_head, frame.estimate.mask)
    except MissingExtraError as error:
        return [], f"No interactive viewer: {error}"
    return [name], ""
