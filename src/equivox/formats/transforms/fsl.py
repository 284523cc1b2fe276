"""FSL FLIRT matrices (``.mat``): 4x4 text from moving to reference, in each image's own scaled voxels.

``F = S_ref A_ref^-1 M^-1 A_mov S_mov^-1`` with the affines ``A``, ``M = moving_from_fixed`` in RAS mm, and ``S`` the
voxel sizes, with x flipped (``x' = (n_x - 1) v_x - x``) where det A > 0. The file does not name its images: without
both grids it means nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import write_text
from equivox.formats.transforms.grid import Grid, require_transform


def write_fsl(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"], *, moving: Grid, fixed: Grid) -> None:
    """Write the FLIRT matrix that takes the ``moving`` image to the ``fixed`` (reference) one, with 17 digits.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    fixed_from_moving = torch.linalg.inv(require_transform(moving_from_fixed))
    stored = _scaled_from_world(fixed) @ fixed_from_moving @ torch.linalg.inv(_scaled_from_world(moving))
    write_text(path, "".join("  ".join(f"{n + 0.0:.17g}" for n in row) + "\n" for row in stored.tolist()))


def read_fsl(path: Path | str, *, moving: Grid, fixed: Grid) -> Float[Tensor, "4 4"]:
    """Read ``moving_from_fixed`` (RAS mm, float64) of a FLIRT matrix between two known images.

    Raises
    ------
    InputError
        If the file is missing, not 4x4 numbers, or singular.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a FLIRT .mat file.")
    try:
        rows = [
            [float(word) for word in line.split()]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        stored = torch.tensor(rows, dtype=torch.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no FLIRT matrix ({error}); it must hold four rows of four numbers.") from error
    if stored.shape != (4, 4) or not bool(torch.isfinite(stored).all()):
        raise InputError(
            f"{path} is no FLIRT matrix (shape {tuple(stored.shape)}); it must hold four rows of four numbers."
        )
    if abs(float(torch.linalg.det(stored[:3, :3]))) < 1e-12:
        raise InputError(f"{path} holds a singular matrix; a transform must be invertible.")
    fixed_from_moving = torch.linalg.inv(_scaled_from_world(fixed)) @ stored @ _scaled_from_world(moving)
    return torch.linalg.inv(fixed_from_moving)


def _scaled_from_world(grid: Grid) -> Float[Tensor, "4 4"]:
    """FLIRT's coordinates [mm] of world points: voxels times voxel sizes, x flipped in right-handed images."""
    scale = torch.diag(torch.cat([grid.voxel_size_mm, torch.ones(1, dtype=torch.float64)]))
    if float(torch.linalg.det(grid.affine[:3, :3])) > 0:
        scale[0, 3] = (grid.shape[0] - 1) * scale[0, 0]
        scale[0, 0] *= -1
    return scale @ torch.linalg.inv(grid.affine)
