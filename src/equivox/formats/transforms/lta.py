"""FreeSurfer linear transforms (``.lta``).

The matrix maps points of the source (moving) image to points of the destination (reference): the inverse of ITK's
direction. We write type 1, RAS to RAS; type 0, voxel to voxel, is read too. Each image is described by a block whose
``cras`` is the RAS position of voxel ``shape / 2`` (not of the grid's centre).
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import write_text
from equivox.formats.transforms.grid import Grid, require_transform

VOXEL_TO_VOXEL, RAS_TO_RAS = 0, 1


def write_lta(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"], *, moving: Grid, fixed: Grid) -> None:
    """Write ``moving_from_fixed`` (RAS mm) with both images' geometry: source is ``moving``, destination ``fixed``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    stored = torch.linalg.inv(require_transform(moving_from_fixed))
    lines = [
        f"type      = {RAS_TO_RAS} # LINEAR_RAS_TO_RAS",
        "nxforms   = 1",
        "mean      = 0.0000 0.0000 0.0000",
        "sigma     = 1.0000",
        "1 4 4",
        *(" ".join(f"{number + 0.0:.17g}" for number in row) for row in stored.tolist()),
        "src volume info",
        *_geometry(moving),
        "dst volume info",
        *_geometry(fixed),
    ]
    write_text(path, "\n".join(lines) + "\n")


def read_lta(path: Path | str) -> Float[Tensor, "4 4"]:
    """Read ``moving_from_fixed`` (RAS mm, float64) of a file of type 0 or 1.

    Raises
    ------
    InputError
        If the file is missing, no LTA, of another type, holds several transforms or a matrix that is singular; or if
        it is of type 0 without the geometry of its images.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an .lta file.")
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines) if value}
    start = next((index for index, line in enumerate(lines) if line.split() == ["1", "4", "4"]), None)
    if start is None or "type" not in fields:
        raise InputError(f"{path} is no LTA file (it lacks its type or the line '1 4 4').")
    if fields.get("nxforms", "1") != "1":
        raise InputError(f"{path} holds {fields['nxforms']} transforms; give a file with one.")
    try:
        stored = torch.tensor(
            [[float(w) for w in lines[start + 1 + row].split()] for row in range(4)], dtype=torch.float64
        )
        stored = stored.reshape(4, 4)
    except (ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{path} does not hold a 4x4 matrix after '1 4 4' ({error}).") from error
    if fields["type"] == str(VOXEL_TO_VOXEL):
        source, destination = (_read_geometry(path, lines, name) for name in ("src", "dst"))
        stored = destination @ stored @ torch.linalg.inv(source)
    elif fields["type"] != str(RAS_TO_RAS):
        raise InputError(f"{path} is of type {fields['type']}; 0 (voxels) and 1 (RAS) can be read.")
    if not bool(torch.isfinite(stored).all()) or abs(float(torch.linalg.det(stored[:3, :3]))) < 1e-12:
        raise InputError(f"{path} holds a matrix that is not invertible; write it again.")
    return torch.linalg.inv(stored)


def _geometry(grid: Grid) -> list[str]:
    """Block of one image."""
    center = grid.affine[:3, :3] @ (torch.tensor(grid.shape, dtype=torch.float64) / 2) + grid.affine[:3, 3]
    axes = grid.affine[:3, :3] / grid.voxel_size_mm
    shown = {name: axes[:, index].tolist() for index, name in enumerate(("xras", "yras", "zras"))}
    return [
        "valid = 1  # volume info valid",
        f"filename = {grid.name}",
        f"volume = {' '.join(str(size) for size in grid.shape)}",
        f"voxelsize = {_row(grid.voxel_size_mm.tolist())}",
        *(f"{name}   = {_row(column)}" for name, column in shown.items()),
        f"cras   = {_row(center.tolist())}",
    ]


def _row(numbers: list[float]) -> str:
    return " ".join(f"{number + 0.0:.15e}" for number in numbers)


def _read_geometry(path: Path, lines: list[str], name: str) -> Float[Tensor, "4 4"]:
    """Affine (voxel index to RAS) from the block ``name volume info``."""
    try:
        start = lines.index(f"{name} volume info")
        block = {}
        for line in lines[start + 1 : start + 9]:
            key, _, value = line.partition("=")
            block[key.strip()] = value.split()
        if block["valid"] != ["1"]:
            raise ValueError("not valid")
        shape, size, *axes, center = (
            torch.tensor([float(word) for word in block[key]], dtype=torch.float64).reshape(3)
            for key in ("volume", "voxelsize", "xras", "yras", "zras", "cras")
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is of type 0, but does not describe its {name} image; write it as type 1.") from error
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.stack(axes, dim=1) * size
    affine[:3, 3] = center - affine[:3, :3] @ (shape / 2)
    return affine
