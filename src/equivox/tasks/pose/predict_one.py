"""One input of `equivox pose predict`: read it, estimate its pose, write its files. This is what a worker runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from equivox.errors import EquivoxError, InputError
from equivox.formats.nifti import SCAN_ENDINGS, Scan, open_scan, read_mask
from equivox.formats.scans import ScanInput
from equivox.geometry.space import Volume
from equivox.run.record import file_sha256
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.estimate import PoseEstimate
from equivox.tasks.pose.model import PoseModel
from equivox.tasks.pose.outputs import (
    FrameResult,
    head_grid,
    write_aligned,
    write_masks,
    write_matrix,
    write_pictures,
    write_transforms,
    write_viewer_page,
)
from equivox.tasks.pose.published import PublishedEstimator
from equivox.tasks.pose.published_frames import published_matrix
from equivox.tasks.pose.results import InputResult, file_digests


@dataclass(frozen=True)
class InputJob:
    """One input with everything that its worker needs to know."""

    scan: ScanInput
    out: Path
    config: PredictConfig
    viewer: bool
    digest: str
    mask: str | None


def predict_input(model: PoseModel, job: InputJob) -> InputResult:
    """Work on one input and write its files, the marker last.

    A frame that cannot be used is a row with status ``failed``; a file that cannot be opened raises.
    """
    if job.scan.problem:
        raise InputError(job.scan.problem)
    scan = open_scan(job.scan.path)
    input_sha256 = file_sha256(job.scan.path)
    grid = head_grid(job.config)
    frames: list[FrameResult] = []
    for index in range(scan.frame_count):
        shown = any(frame.estimate.has_pose for frame in frames)
        frames.append(_needed(_predict_frame(model, scan, index, job), job.config, first=not frames, shown=shown))
    if all(frame.volume is None for frame in frames):
        raise InputError(frames[0].estimate.reason)
    stem, out = job.scan.stem, job.out
    names = write_matrix(out, stem, frames, job.config)
    names += write_transforms(out, stem, frames, job.config, grid)
    if job.config.write_mask:
        names += write_masks(out, stem, frames)
    if job.config.write_aligned:
        names += write_aligned(out, stem, frames, grid)
    warnings = list(dict.fromkeys([*scan.warnings, *(w for frame in frames for w in frame.estimate.warnings)]))
    pictures = write_pictures(out, stem, frames) if job.config.report else []
    if job.viewer:
        pages, trouble = write_viewer_page(out, stem, frames)
        names += pages
        warnings += [trouble] if trouble else []
    result = InputResult(
        input=job.scan.name,
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


def _predict_frame(model: PoseModel, scan: Scan, index: int, job: InputJob) -> FrameResult:
    """Estimate the pose in one frame; a user's mistake becomes status ``failed``."""
    started = time.perf_counter()
    volume: Volume | None = None
    try:
        volume = scan.frame(index)
        mask = None if job.mask is None else read_mask(mask_path(job), volume, frame=index)
        estimate = model.estimate(volume, mask=mask)
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


def _needed(frame: FrameResult, config: PredictConfig, *, first: bool, shown: bool) -> FrameResult:
    """The frame without the voxels that no file will need: a long series must not fill the memory."""
    pictured = first or (frame.estimate.has_pose and not shown)
    if pictured or frame.volume is None:
        return frame
    volume, estimate = frame.volume, frame.estimate
    if not config.write_aligned:
        volume = replace(volume, data=torch.zeros(1, 1, 1, 1).expand(1, *volume.shape))
    if not config.write_mask:
        estimate = replace(estimate, mask=None)
    return replace(frame, volume=volume, estimate=estimate)


def mask_path(job: InputJob) -> Path:
    """The mask of an input: the file given, or in the folder given a file named after the scan."""
    path = Path(str(job.mask)).expanduser()
    if not path.is_dir():
        return path
    stem = job.scan.path.name
    for ending in SCAN_ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    candidates = [f"{name}{ending}" for name in (f"{stem}_mask", stem, job.scan.stem) for ending in SCAN_ENDINGS]
    for name in candidates:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path} holds no mask for {job.scan.name}; name it {stem}_mask.nii.gz or {stem}.nii.gz.")
