"""Pooled features of many views of each scan, made once and kept: what the head of an encoder is trained on.

A head costs nothing beside its convolutions. With the convolutions fixed, every view is pooled once and the head then
sees it as often as it likes; so a self-supervised head is a matter of minutes on one core of a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import OutputError
from equivox.formats.atomic import atomic_path
from equivox.geometry.rotations import random_rotations
from equivox.nets.brain_encoder import BrainEncoder
from equivox.run.seeds import generator_for
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.views import ScanViews

CLEAN = 2
"""The first views of a scan are undegraded: as it lies, and turned."""


@dataclass(frozen=True, slots=True)
class PooledScan:
    """The views of one scan, pooled.

    Parameters
    ----------
    polar, axial, statistics
        What :meth:`BrainEncoder.pooled` gives, one row per view.
    turns
        How every view is turned; the identity for the first.
    """

    polar: Float[Tensor, "view polar 3"]
    axial: Float[Tensor, "view axial 3"]
    statistics: Float[Tensor, "view statistic"]
    turns: Float[Tensor, "view 3 3"]


@torch.no_grad()
def pool_scan(
    encoder: BrainEncoder, scan: ScanViews, views: int, ranges: DegradationRange, *, seed: int, index: int
) -> PooledScan:
    """Make and pool the views of one scan: as it lies, turned, then turned and degraded. Haar turns."""
    parts = []
    turns = []
    for view in range(views):
        draw = generator_for(seed, "view", index, view)
        turn = torch.eye(3, dtype=torch.float64) if view == 0 else random_rotations(1, generator=draw)[0]
        degradation = ranges.draw(generator=draw) if view >= CLEAN else None
        brain = scan.view(side=encoder.side, turn=turn, degradation=degradation, generator=draw)
        parts.append(encoder.pooled(brain.volume[None], brain.mask[None]))
        turns.append(turn)
    polar, axial, statistics = (torch.cat(one) for one in zip(*parts, strict=True))
    return PooledScan(polar, axial, statistics, torch.stack(turns))


def pool_scans(
    encoder: BrainEncoder,
    paths: Sequence[Path],
    views: int,
    ranges: DegradationRange,
    *,
    seed: int,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[PooledScan]:
    """Pool all scans, one file each in ``cache``; what is there already is read, so an interrupted run goes on.

    Raises
    ------
    InputError
        If a scan cannot be used.
    OutputError
        If a file of the cache is damaged.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for index, path in enumerate(paths):
        kept = cache / f"{path.name.removesuffix('.gz').removesuffix('.nii')}.npz"
        if kept.exists():
            found.append(_read(kept, views))
        else:
            scan = ScanViews.open(path, voxel_size_mm=encoder.voxel_size_mm)
            found.append(pool_scan(encoder, scan, views, ranges, seed=seed, index=index))
            _write(kept, found[-1])
        if progress is not None:
            progress(index + 1, len(paths))
    return found


def _write(path: Path, scan: PooledScan) -> None:
    arrays = {name: getattr(scan, name).numpy() for name in ("polar", "axial", "statistics", "turns")}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _read(path: Path, views: int) -> PooledScan:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = ("polar", "axial", "statistics", "turns")
            arrays = {name: torch.from_numpy(archive[name]) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{path} cannot be read ({error}); remove it and run again.") from error
    if len(arrays["turns"]) != views:
        raise OutputError(f"{path} holds {len(arrays['turns'])} views, {views} are asked for; use another folder.")
    return PooledScan(**arrays)
