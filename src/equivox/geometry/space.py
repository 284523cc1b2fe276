"""Volumes in space: a tensor, and the affine that says where its voxels are.

``affine`` maps the index ``(i, j, k)`` of a voxel's centre to world millimetres, RAS+. Tensor axes (X, Y, Z) are the
file's axes (i, j, k). A volume is immutable: every method returns a new one whose affine is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import GeometryError

AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes that still counts as rectangular (files store affines in float32)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A 3D image (or several channels of one) with its place in the world.

    Parameters
    ----------
    data
        Tensor (C, X, Y, Z).
    affine
        4x4 float64, voxel index to world mm (RAS+). Checked: finite, invertible, last row (0, 0, 0, 1), axes at
        right angles within 1e-3.
    name
        What to call it in messages and results; usually the file's name.

    Raises
    ------
    GeometryError
        If the affine cannot place a rectangular grid.
    """

    data: Float[Tensor, "channel x y z"]
    affine: Float[Tensor, "4 4"]
    name: str = "volume"

    def __post_init__(self) -> None:
        require_affine(self.affine, name=self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (i, j, k)."""
        _, x, y, z = self.data.shape
        return (x, y, z)

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Length of a voxel along (i, j, k) in mm."""
        x, y, z = self.affine[:3, :3].norm(dim=0).tolist()
        return (x, y, z)

    @property
    def direction(self) -> Float[Tensor, "3 3"]:
        """Unit vectors of the voxel axes in the world, as columns; determinant +1 or -1."""
        return self.affine[:3, :3] / self.affine[:3, :3].norm(dim=0)

    @property
    def axis_codes(self) -> str:
        """World direction towards which each voxel axis mostly runs, for example ``"RAS"`` or ``"LIP"``."""
        rows = _axis_assignment(self.direction)
        return "".join(AXIS_LETTERS[row][int(self.direction[row, axis] > 0)] for axis, row in enumerate(rows))

    def world_from_voxel(self, index: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        """World mm of (fractional) voxel indices."""
        return index.double() @ self.affine[:3, :3].mT + self.affine[:3, 3]

    def voxel_from_world(self, points_mm: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        """Fractional voxel indices of world points."""
        return (points_mm.double() - self.affine[:3, 3]) @ torch.linalg.inv(self.affine[:3, :3]).mT

    def center_mm(self) -> Float[Tensor, "3"]:
        """World position of the grid's centre, index ``(n - 1) / 2``."""
        return self.world_from_voxel((torch.tensor(self.shape, dtype=torch.float64) - 1) / 2)

    def reorient(self, codes: str = "RAS") -> Volume:
        """Permute and flip voxel axes (no interpolation) so that they run mostly towards ``codes``.

        The world position of every value stays the same. ``"RAS"`` makes any grid right-handed.
        """
        source_rows = _axis_assignment(self.direction)
        wanted_rows = [next(row for row, pair in enumerate(AXIS_LETTERS) if letter in pair) for letter in codes]
        if sorted(wanted_rows) != [0, 1, 2]:
            raise GeometryError(f"{codes!r} does not name three axes; use letters like RAS or LPS.")
        order = [source_rows.index(row) for row in wanted_rows]
        data = self.data.permute(0, *(axis + 1 for axis in order))
        affine = self.affine[:, [*order, 3]].clone()
        for axis, letter in enumerate(codes):
            row = wanted_rows[axis]
            if (affine[row, axis] > 0) != (letter == AXIS_LETTERS[row][1]):
                data = data.flip(axis + 1)
                affine[:3, 3] += affine[:3, axis] * (data.shape[axis + 1] - 1)
                affine[:3, axis] *= -1
        return replace(self, data=data.contiguous(), affine=affine)

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Volume:
        """Cut voxels ``start <= index < stop`` per axis; what lies outside the grid is filled with zeros."""
        pads: list[int] = []
        slices = [slice(None)]
        for axis in range(3):
            size = self.shape[axis]
            slices.append(slice(min(max(start[axis], 0), size), max(min(stop[axis], size), 0)))
            before, after = max(-start[axis], 0), max(stop[axis] - size, 0)
            pads = [before, after, *pads]
        data = functional.pad(self.data[tuple(slices)], pads)
        affine = self.affine.clone()
        affine[:3, 3] = self.world_from_voxel(torch.tensor([float(s) for s in start]))
        return replace(self, data=data, affine=affine)

    def resample(
        self,
        affine: Float[Tensor, "4 4"],
        shape: Sequence[int],
        *,
        interpolation: Literal["linear", "nearest"] = "linear",
        padding: Literal["zeros", "border"] = "zeros",
    ) -> Volume:
        """Interpolate onto another grid, given by its affine (voxel to the same world) and shape.

        With ``"zeros"`` a voxel counts down to half a voxel beyond the outermost centres, then 0.
        """
        sampled = sample_at(self, grid_points_mm(affine, shape), interpolation=interpolation, padding=padding)
        return replace(self, data=sampled, affine=affine.double().clone())

    def valid_on(self, affine: Float[Tensor, "4 4"], shape: Sequence[int]) -> Bool[Tensor, "x y z"]:
        """Which voxels of another grid lie inside this volume's field of view (voxel edges included)."""
        index = self.voxel_from_world(grid_points_mm(affine, shape))
        limit = torch.tensor(self.shape, dtype=torch.float64) - 0.5
        return ((index >= -0.5) & (index <= limit)).all(-1)

    def to(self, device: torch.device | str) -> Volume:
        """Move the values; the affine stays on the CPU in float64."""
        return replace(self, data=self.data.to(device))


def require_affine(affine: Float[Tensor, "4 4"], *, name: str) -> None:
    """Raise :class:`GeometryError` with one sentence if ``affine`` cannot place a rectangular grid."""
    if not bool(torch.isfinite(affine).all()):
        raise GeometryError(f"{name} has an affine with NaN or infinite entries; repair its header.")
    linear = affine[:3, :3].double()
    sizes = linear.norm(dim=0)
    if float(sizes.min()) <= 0.0 or abs(float(torch.linalg.det(linear / sizes.clamp_min(1e-30)))) < 1e-6:
        shown = [round(s, 6) for s in sizes.tolist()]
        raise GeometryError(f"{name} has a singular affine (voxel sizes {shown} mm); repair its header.")
    if not torch.equal(affine[3].double(), torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)):
        raise GeometryError(f"{name} has an affine whose last row is not (0, 0, 0, 1); repair its header.")
    direction = linear / sizes
    shear = float((direction.mT @ direction - torch.eye(3, dtype=torch.float64)).abs().max())
    if shear > SHEAR_TOLERANCE:
        angle = math.degrees(math.asin(min(shear, 1.0)))
        raise GeometryError(
            f"{name} has a sheared affine (two voxel axes are {angle:.2f} degrees off a right angle); "
            f"resample it to a rectangular grid first."
        )


def grid_points_mm(affine: Float[Tensor, "4 4"], shape: Sequence[int]) -> Float[Tensor, "x y z 3"]:
    """World positions (float64) of all voxel centres of a grid."""
    axes = [torch.arange(size, dtype=torch.float64) for size in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return index @ affine[:3, :3].double().mT + affine[:3, 3].double()


def sample_at(
    volume: Volume,
    points_mm: Float[Tensor, "x y z 3"],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    padding: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "channel x y z"]:
    """Values of ``volume`` at world points. ``"zeros"``: 0 beyond the outer voxel edges, clamped inside them."""
    index = volume.voxel_from_world(points_mm)
    size = torch.tensor(volume.shape, dtype=torch.float64)
    normal = torch.where(size > 1, 2 * index / (size - 1).clamp_min(1) - 1, torch.zeros_like(index))
    grid = normal.flip(-1).to(volume.data)[None]
    mode = "bilinear" if interpolation == "linear" else "nearest"
    values = functional.grid_sample(volume.data[None], grid, mode=mode, padding_mode="border", align_corners=True)[0]
    if padding == "zeros":
        inside = ((index >= -0.5) & (index <= size - 0.5)).all(-1).to(volume.data)
        values = values * inside
    return values


def isotropic_grid(volume: Volume, voxel_size_mm: float) -> tuple[Float[Tensor, "4 4"], tuple[int, int, int]]:
    """Affine and shape of a world-axis-aligned (RAS) isotropic grid that covers the volume's field of view."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)], dtype=torch.float64)
    index = corners * torch.tensor(volume.shape, dtype=torch.float64) - 0.5
    world = volume.world_from_voxel(index)
    low, high = world.amin(0), world.amax(0)
    x, y, z = ((high - low) / voxel_size_mm - 1e-6).ceil().clamp_min(1).long().tolist()
    affine = torch.diag(torch.tensor([voxel_size_mm] * 3 + [1.0], dtype=torch.float64))
    center = (low + high) / 2
    affine[:3, 3] = center - voxel_size_mm * (torch.tensor([x, y, z], dtype=torch.float64) - 1) / 2
    return affine, (x, y, z)


def _axis_assignment(direction: Float[Tensor, "3 3"]) -> list[int]:
    """For each voxel axis, the world axis that it follows most, every world axis used once."""
    weight = direction.abs()
    return max(
        ([a, b, c] for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3),
        key=lambda rows: float(sum(weight[row, axis] for axis, row in enumerate(rows))),
    )
