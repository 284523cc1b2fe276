"""``pose convert``: a transform from one program's file into another's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivox.errors import ConfigError
from equivox.formats.atomic import require_absent
from equivox.formats.nifti import open_scan
from equivox.formats.transforms.files import (
    TransformFormat,
    TransformSet,
    output_format,
    read_transforms,
    write_transforms,
)
from equivox.formats.transforms.grid import Grid


@dataclass(frozen=True, slots=True)
class Converted:
    """What was read, and what was written where."""

    read: TransformSet
    written: TransformSet
    format: TransformFormat
    out: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``matrices`` are ``moving_from_fixed`` in RAS mm of the written file."""
        return {
            "input": str(self.read.path),
            "input_format": self.read.format,
            "out": str(self.out),
            "format": self.format,
            "fixed": self.written.fixed,
            "moving": self.written.moving,
            "matrices": [None if matrix is None else matrix.tolist() for matrix in self.written.matrices],
        }


def convert_pose(
    source: Path | str,
    out: Path | str,
    *,
    to: str | None = None,
    reference: Path | str | None = None,
    moving: Path | str | None = None,
    row: str | None = None,
    frame: int | None = None,
    invert: bool = False,
    overwrite: bool = False,
) -> Converted:
    """Read a transform, and write what it means in another format.

    Parameters
    ----------
    source
        Any file that ``read_transforms`` knows.
    out
        The file to write; its ending chooses the format where ``to`` does not.
    to
        ``itk``, ``lta``, ``fsl``, ``x5``, ``json`` or ``npy``.
    reference, moving
        Images that the read transform lies between: it maps points of the reference (head frame) to the moving image
        (the scan). FSL and LTA need both.
    row
        The input whose row of a ``poses.csv`` is meant.
    frame
        One frame of a series, counted from 0.
    invert
        Write the transform the other way: from the moving image to the reference. The images change places too.
    overwrite
        Replace an existing file.

    Raises
    ------
    ConfigError
        If the format is not clear, an image is missing, or a series is to go into a file for one.
    InputError
        If a file cannot be read.
    OutputError
        If ``out`` exists already, or cannot be written.
    """
    out = Path(out)
    kind = output_format(out, to)
    require_absent([out], overwrite=overwrite)
    fixed_grid, moving_grid = grid_of(reference), grid_of(moving)
    read = read_transforms(source, moving=moving_grid, fixed=fixed_grid, row=row)
    written = read if frame is None else read.frame(frame)
    if invert:
        written, fixed_grid, moving_grid = written.inverse(), moving_grid, fixed_grid
    if all(matrix is None for matrix in written.matrices):
        raise ConfigError(f"{source} has no pose in any of its frames; there is nothing to write.")
    write_transforms(out, written, kind, moving=moving_grid, fixed=fixed_grid)
    return Converted(read, written, kind, out)


def grid_of(path: Path | str | None) -> Grid | None:
    """Where the voxels of an image lie; None for None. Its values are not read."""
    if path is None:
        return None
    scan = open_scan(path)
    return Grid(scan.affine, scan.shape, scan.name)
