"""The grids of `pose apply` in the head's frame, and a volume sampled on one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.formats.nifti import Scan
from equivox.formats.transforms.grid import Grid
from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume, sample_at
from equivox.geometry.splines import CubicSampler

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


def output_grid(
    config: ApplyConfig, reference: Grid | None, scan: Scan
) -> tuple[Float[Tensor, "4 4"], tuple[int, int, int]]:
    """The output's grid in head mm: the reference's, unless the configuration asks for another.

    Raises
    ------
    ConfigError
        If it would have more than 2^28 voxels.
    """
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
