"""The interactive slice viewer: nilearn's page, which works without a network."""

from __future__ import annotations

import html
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from equivox.errors import MissingExtraError
from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume

SIDE_MM = 220.0
STEP_MM = 1.5


def write_viewer(path: Path, volume: Volume, world_from_head: Pose, mask: Volume | None = None) -> None:
    """Write a page with three linked planes of the scan around the head, the mask over it.

    The scan is resampled to an axis-aligned RAS grid of 1.5 mm, 220 mm wide, about the head's centre, so that planes
    and coordinates are true millimetres of the scanner also for oblique scans. About 1.2 MB, 2 CPU seconds.

    Raises
    ------
    MissingExtraError
        If nilearn is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nibabel
            from nilearn.plotting import view_img
    except ImportError as error:
        raise MissingExtraError("nilearn", "mri", "the interactive viewer") from error
    count = round(SIDE_MM / STEP_MM)
    affine = torch.diag(torch.tensor([STEP_MM] * 3 + [1.0], dtype=torch.float64))
    center = world_from_head.translation_mm.double()
    affine[:3, 3] = center - STEP_MM * (count - 1) / 2
    shape = (count, count, count)
    scan = volume.resample(affine, shape).data[0].double().clamp_min(0).numpy()
    inside = np.zeros(shape) if mask is None else (mask.resample(affine, shape).data[0] > 0.5).double().numpy()
    high = float(np.percentile(scan[scan > 0], 99.0)) if (scan > 0).any() else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = view_img(
            nibabel.Nifti1Image(inside.astype(np.float32), affine.numpy()),
            bg_img=nibabel.Nifti1Image(np.minimum(scan, high).astype(np.float32), affine.numpy()),
            cut_coords=tuple(center.tolist()),
            threshold=0.5,
            cmap="autumn",
            symmetric_cmap=False,
            vmin=0,
            vmax=1,
            opacity=0.3,
            colorbar=False,
            black_bg=True,
            resampling_interpolation="nearest",
            title="",
        )
    text = page.get_standalone()
    drawn = re.search(r"div_viewer-([0-9a-f]{32})", text)
    if drawn is not None:  # drawn anew for every page; alone on its page it needs no name of its own
        text = text.replace(drawn[1], "scan")
    start = text.index("<body>") + len("<body>")
    path.write_text(text[:start] + _headline(volume.name) + text[start:], encoding="utf-8")


def _headline(name: str) -> str:
    return (
        '<p style="font: 15px sans-serif; margin: .6rem 0"><a href="../report.html">report</a> &nbsp; '
        f"<b>{html.escape(name)}</b> &nbsp; coordinates: RAS mm of the scanner. "
        "For research, not a medical device.</p>"
    )
