"""The place of an image without its values: what LTA and FSL files need to know of both images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.space import Volume, require_affine


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape and affine (4x4 float64, voxel index to RAS mm) of an image, and the name of its file.

    Raises
    ------
    GeometryError
        If the affine cannot place a rectangular grid.
    """

    affine: Float[Tensor, "4 4"]
    shape: tuple[int, int, int]
    name: str = "image"

    def __post_init__(self) -> None:
        require_affine(self.affine, name=self.name)

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """The grid that a volume lies on."""
        return cls(volume.affine.double(), volume.shape, volume.name)

    @property
    def voxel_size_mm(self) -> Float[Tensor, "3"]:
        """Length of a voxel along (i, j, k)."""
        return self.affine[:3, :3].norm(dim=0)


def require_transform(matrix: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The matrix in float64 on the CPU; ValueError unless it is finite, invertible and affine."""
    work = matrix.detach().cpu().double()
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if not bool(torch.isfinite(work).all()) or not torch.equal(work[3], last):
        raise ValueError(
            f"a finite 4x4 matrix with last row (0, 0, 0, 1) is needed, got {work.tolist()}; write it again."
        )
    if abs(float(torch.linalg.det(work[:3, :3]))) < 1e-12:
        raise ValueError("the matrix of a transform must be invertible; write it again.")
    return work
