"""Tables of motion in the published layout: ``sample, t, tx, ty, tz`` and three columns for the rotation.

The rotation is either Euler angles ``rx, ry, rz`` about the fixed axes x, y, z, or a rotation vector ``r0x, r0y, r0z``;
both in degrees. Times are in seconds, translations in mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from equivox.errors import GeometryError, InputError
from equivox.formats.atomic import write_text
from equivox.formats.tables import as_csv, read_header, read_table
from equivox.geometry.rotations import rotation_from_euler_xyz, rotation_from_vector, rotation_vector
from equivox.geometry.trajectories import Trajectory

SHARED = ("sample", "t", "tx", "ty", "tz")
EULER, VECTOR = ("rx", "ry", "rz"), ("r0x", "r0y", "r0z")


def read_trajectories(path: Path | str) -> dict[str, Trajectory]:
    """Read every sample of a table, in the order of its first row.

    Raises
    ------
    InputError
        If columns are missing, a cell is no number, or the times of a sample do not increase.
    """
    header = set(read_header(path))
    turn = VECTOR if set(VECTOR) <= header else EULER
    rows: dict[str, list[list[float]]] = {}
    for row in read_table(path, required=(*SHARED, *turn), unique=("sample", "t")):
        numbers = [row.number(name) for name in ("t", "tx", "ty", "tz", *turn)]
        rows.setdefault(row.text("sample"), []).append(numbers)
    found = {}
    for sample, listed in rows.items():
        table = torch.tensor(listed, dtype=torch.float64)
        angles = torch.deg2rad(table[:, 4:])
        rotations = rotation_from_euler_xyz(angles) if turn is EULER else rotation_from_vector(angles)
        try:
            found[sample] = Trajectory(table[:, 0], rotations, table[:, 1:4])
        except GeometryError as error:
            raise InputError(f"{path}, sample {sample}: {error}") from error
    if not found:
        raise InputError(f"{path} has no rows; a trajectory needs at least one.")
    return found


def write_trajectories(path: Path | str, trajectories: Mapping[str, Trajectory]) -> None:
    """Write the newer of the published layouts (rotation vectors in degrees), whole or not at all; 9 decimals."""
    rows: list[list[str]] = []
    for sample, trajectory in trajectories.items():
        vectors = torch.rad2deg(rotation_vector(trajectory.rotations))
        for time, shift, vector in zip(trajectory.times_s, trajectory.translations_mm, vectors, strict=True):
            numbers = [float(time), *shift.tolist(), *vector.tolist()]
            rows.append([sample, *(f"{round(value, 9) + 0.0:.9f}" for value in numbers)])
    write_text(path, as_csv([*SHARED, *VECTOR], rows))
