"""One input of `equivox pose predict`: read it, estimate its pose, write its files. This is what a worker runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import EquivoxError, InputError
from equivox.formats.markers import marker_path
from equivox.formats.nifti import Scan, open_scan, read_mask
from equivox.formats.nifti_series import frame_seconds, write_series
from equivox.formats.scans import ScanInput, mask_of_scan
from equivox.geometry.space import Volume
from equivox.run.record import file_sha256
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.estimate import PoseEstimate
from equivox.tasks.pose.model import PoseModel
from equivox.tasks.pose.outputs import (
    FrameResult,
    head_grid,
    write_aligned,
    write_matrix,
    write_pictures,
    write_transforms,
    write_viewer_page,
)
from equivox.tasks.pose.published import PublishedEstimator
from equivox.tasks.pose.published_frames import published_matrix
from equivox.tasks.pose.results import InputResult, file_digests
from equivox.tasks.pose.series import Surface, finish_series, surface_of


@dataclass(frozen=True)
class InputJob:
    """One input with everything that its worker needs to know."""

    entry: ScanInput
    out: Path
    config: PredictConfig
    viewer: bool
    digest: str
    mask: str | None

    @property
    def traces(self) -> tuple[Path, ...]:
        """Its marker."""
        return (marker_path(self.out, self.entry.stem),)


def predict_input(model: PoseModel, job: InputJob) -> InputResult:
    """Work on one input and write its files, the marker last.

    A frame that cannot be used is a row with status ``failed``; a file that cannot be opened raises.
    """
    if job.entry.problem:
        raise InputError(job.entry.problem)
    scan = open_scan(job.entry.path)
    input_sha256 = file_sha256(job.entry.path)
    grid = head_grid(job.config)
    stem, out = job.entry.stem, job.out
    examined = _examine(model, scan, job)
    frames, names = examined.frames, examined.names
    if scan.is_series:
        frames, motion_names = finish_series(out, stem, scan, frames, examined.surface, job.config)
        names += motion_names
    names += write_matrix(out, stem, frames, job.config)
    names += write_transforms(out, stem, frames, job.config, grid)
    if job.config.write_aligned:
        names += write_aligned(out, stem, scan, frames, grid)
    warnings = list(dict.fromkeys([*scan.warnings, *(w for frame in frames for w in frame.estimate.warnings)]))
    pictures = write_pictures(out, stem, frames) if job.config.report else []
    if job.viewer:
        pages, trouble = write_viewer_page(out, stem, frames)
        names += pages
        warnings += [trouble] if trouble else []
    result = InputResult(
        input=job.entry.name,
        stem=stem,
        input_sha256=input_sha256,
        digest=job.digest,
        frames=tuple({"frame": frame.index, **frame.estimate.as_dict()} for frame in frames),
        files=file_digests(out, [*names, *(name for _, _, name in pictures)]),
        warnings=tuple(warnings),
        pictures=tuple(pictures),
    )
    result.write(out)
    return result


@dataclass(slots=True)
class _Examined:
    """What the pass over the frames leaves behind."""

    frames: list[FrameResult] = field(default_factory=list)
    surface: Surface | None = None
    names: list[str] = field(default_factory=list)


def _examine(model: PoseModel, scan: Scan, job: InputJob) -> _Examined:
    """Every frame in turn; its mask goes to its file at once and its voxels are dropped: memory stays constant.

    Raises
    ------
    InputError
        If no frame can be read.
    """
    kept = _Examined()

    def masks() -> Iterator[Float[Tensor, "x y z"]]:
        before: PoseEstimate | None = None
        for index in range(scan.frame_count):
            frame = _predict_frame(model, scan, index, job, before)
            before = frame.estimate if frame.estimate.has_pose else before
            found = frame.estimate.mask
            if scan.is_series:
                kept.surface = surface_of(frame, kept.surface)
            yield torch.zeros(scan.shape) if found is None else found.data[0]
            shown = any(other.estimate.has_pose for other in kept.frames)
            kept.frames.append(_needed(frame, first=not kept.frames, shown=shown))
        if all(frame.volume is None for frame in kept.frames):
            raise InputError(kept.frames[0].estimate.reason)

    if job.config.write_mask:
        name = f"{job.entry.stem}_mask.nii.gz"
        write_series(
            job.out / name, masks(), affine=scan.affine, shape=scan.shape, count=scan.frame_count,
            seconds=frame_seconds(scan), dtype="uint8",
        )  # fmt: skip
        kept.names.append(name)
    else:
        deque(masks(), maxlen=0)
    return kept


def _predict_frame(model: PoseModel, scan: Scan, index: int, job: InputJob, before: PoseEstimate | None) -> FrameResult:
    """Estimate the pose in one frame, given the last one found; a user's mistake becomes status ``failed``."""
    started = time.perf_counter()
    volume: Volume | None = None
    try:
        volume = scan.frame(index)
        mask = None if job.mask is None else read_mask(mask_of_scan(job.mask, job.entry), volume, frame=index)
        estimate = model.follow(volume, before) if mask is None else model.estimate(volume, mask=mask)
    except EquivoxError as error:
        failed = PoseEstimate("failed", reason=str(error), seconds=time.perf_counter() - started)
        return FrameResult(index, volume if volume is not None and job.mask is None else None, failed)
    matrix = None
    if job.config.published and estimate.world_from_head is not None:
        flags = {
            "scanner_space": job.config.matrix_frame == "world",
            "input_to_canonical": job.config.direction == "input-to-canonical",
        }
        if isinstance(model.estimator, PublishedEstimator):
            matrix = model.estimator.published_matrix(volume, mask=mask, estimate=estimate, **flags)
        else:
            matrix = published_matrix(estimate.world_from_head, volume.affine, **flags)
    return FrameResult(index, volume, estimate, matrix)


def _needed(frame: FrameResult, *, first: bool, shown: bool) -> FrameResult:
    """The frame without the voxels that no picture will need: a long series must not fill the memory."""
    pictured = first or (frame.estimate.has_pose and not shown)
    if pictured or frame.volume is None:
        return frame
    volume = replace(frame.volume, data=torch.zeros(1, 1, 1, 1).expand(1, *frame.volume.shape))
    return replace(frame, volume=volume, estimate=replace(frame.estimate, mask=None))
