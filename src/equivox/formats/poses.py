"""Poses as tables: our own ``poses.csv`` and ``poses.json``, and landmark tables to compare with.

All hold ``world_from_head``: ``p_world = R p_head + t`` in RAS mm, quaternion ``(x, y, z, w)`` with ``w >= 0``, Euler
angles in degrees about the fixed axes x, then y, then z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from equivox.errors import InputError
from equivox.formats.atomic import write_json, write_text
from equivox.formats.nifti import without_ending
from equivox.formats.tables import Row, as_csv, read_header, read_table
from equivox.geometry.rotations import Pose, rotation_from_quaternion

QUATERNION = ("qx", "qy", "qz", "qw")
TRANSLATION = ("tx_mm", "ty_mm", "tz_mm")
EULER = ("euler_x_deg", "euler_y_deg", "euler_z_deg")
POSE_COLUMNS = (
    "input", "frame", "status", "reason", *QUATERNION, *TRANSLATION, *EULER, "confidence", "mask_volume_ml", "seconds",
)  # fmt: skip
LANDMARK_COLUMNS = ("id", "file", *QUATERNION, "tx", "ty", "tz")
STATUSES = ("ok", "low_confidence", "no_object", "failed")
NORM_TOLERANCE = 1e-2
"""How far from 1 the length of a stored quaternion may be."""


@dataclass(frozen=True, slots=True)
class PoseRow:
    """One line of ``poses.csv``: the pose of one frame of one input, or why there is none."""

    input: str
    frame: int
    status: str
    reason: str = ""
    world_from_head: Pose | None = None
    confidence: float = 0.0
    mask_volume_ml: float = 0.0
    seconds: float = 0.0

    @property
    def stem(self) -> str:
        """The input's file name without its ending."""
        return without_ending(Path(self.input).name)


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One line of a truth table; ``columns`` keeps every cell of it (fetus, fold, flags ...)."""

    id: str
    file: str
    frame: int
    world_from_head: Pose | None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def write_poses_csv(path: Path | str, rows: Sequence[PoseRow]) -> None:
    """Write our table, whole or not at all; numbers without a pose are left empty.

    Quaternions to 9 decimals, mm and degrees to 6, the rest to 4.
    """
    lines: list[list[object]] = []
    for row in rows:
        pose = row.world_from_head
        numbers = [""] * 10
        if pose is not None:
            numbers = [_fixed(v, 9) for v in pose.quaternion_xyzw().double().tolist()]
            numbers += [_fixed(v, 6) for v in pose.translation_mm.double().tolist()]
            numbers += [_fixed(v, 6) for v in pose.euler_xyz_deg().double().tolist()]
        rest = [_fixed(v, 4) for v in (row.confidence, row.mask_volume_ml, row.seconds)]
        lines.append([row.input, row.frame, row.status, row.reason, *numbers, *rest])
    write_text(path, as_csv(POSE_COLUMNS, lines))


def write_poses_json(path: Path | str, rows: Sequence[PoseRow], *, version: str) -> None:
    """Write the same as JSON (schema ``equivox.poses/1``), with the 4x4 matrices in full precision."""
    write_json(path, {"schema": "equivox.poses/1", "version": version, "poses": [pose_record(row) for row in rows]})


def pose_record(row: PoseRow) -> dict[str, object]:
    """One row as plain JSON values; matrix, quaternion, translation and angles are None without a pose."""
    pose = row.world_from_head
    matrix = None if pose is None else pose.matrix().double()
    return {
        "input": row.input,
        "frame": row.frame,
        "status": row.status,
        "reason": row.reason,
        "world_from_head": None if matrix is None else matrix.tolist(),
        "quaternion_xyzw": None if pose is None else pose.quaternion_xyzw().double().tolist(),
        "translation_mm": None if pose is None else pose.translation_mm.double().tolist(),
        "euler_xyz_deg": None if pose is None else pose.euler_xyz_deg().double().tolist(),
        "confidence": row.confidence,
        "mask_volume_ml": row.mask_volume_ml,
        "seconds": row.seconds,
    }


def read_poses_csv(path: Path | str) -> list[PoseRow]:
    """Read our own table.

    Raises
    ------
    InputError
        If columns are wrong, missing or repeated, a frame of an input appears twice, a cell that must be a number is
        none, or a quaternion has no direction.
    """
    rows = []
    for row in read_table(path, required=POSE_COLUMNS, unique=("input", "frame")):
        status = row.choice("status", STATUSES)
        has_pose = status in ("ok", "low_confidence")
        rows.append(
            PoseRow(
                input=row.text("input"),
                frame=row.integer("frame"),
                status=status,
                reason=row.cells["reason"].strip(),
                world_from_head=_pose(row, TRANSLATION) if has_pose else None,
                confidence=row.number("confidence"),
                mask_volume_ml=row.number("mask_volume_ml"),
                seconds=row.number("seconds"),
            )
        )
    return rows


def read_truth_csv(path: Path | str) -> list[TruthRow]:
    """Read a table of true poses: landmark columns (``id, file, qx ... qw, tx, ty, tz``) or our own ``poses.csv``.

    Raises
    ------
    InputError
        As :func:`read_poses_csv`; a header of neither kind is told what the landmark kind needs.
    """
    if {"input", "status"} <= set(read_header(path)):
        return [TruthRow(row.stem, row.input, row.frame, row.world_from_head) for row in read_poses_csv(path)]
    return [
        TruthRow(
            id=row.text("id"),
            file=row.text("file"),
            frame=row.integer("frame") if "frame" in row.cells else 0,
            world_from_head=_pose(row, ("tx", "ty", "tz")),
            columns=MappingProxyType(dict(row.cells)),
        )
        for row in read_table(path, required=LANDMARK_COLUMNS, unique=("id",))
    ]


def _pose(row: Row, translation: Sequence[str]) -> Pose:
    """Pose of a row, from its quaternion and the three named columns [mm]."""
    quaternion = torch.tensor([row.number(column) for column in QUATERNION], dtype=torch.float64)
    norm = float(quaternion.norm())
    if abs(norm - 1) > NORM_TOLERANCE:
        raise InputError(
            f"{row.where}, columns qx to qw, hold a quaternion of length {norm:.4g}; a rotation has length 1."
        )
    shift = torch.tensor([row.number(column) for column in translation], dtype=torch.float64)
    return Pose(rotation_from_quaternion(quaternion), shift, source="head", target="world")


def _fixed(value: float, decimals: int) -> str:
    """Fixed decimals, with 0 for -0."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
