"""Particles in cryoSPARC's tables, which count from 0, keep angles in radians and the transpose of RELION's matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from equivox.errors import InputError
from equivox.formats.cryosparc import fields_of, numbers_of, read_cs, texts_of
from equivox.formats.particles import Numbers, Particles
from equivox.geometry.euler_relion import matrix_from_rotation_vector


def read_cryosparc_particles(
    path: Path, passthrough: Sequence[Path | str] = (), pixel_size_angstrom: float | None = None
) -> Particles:
    """Read a ``.cs`` table of particles.

    Raises
    ------
    InputError
        See :func:`equivox.formats.particles.read_particles`.
    """
    table = read_cs(path, passthrough=passthrough)
    names = fields_of(table)
    if not any(name.startswith(("blob/", "location/", "alignments")) for name in names):
        raise InputError(f"{path} holds no particles; its columns are {', '.join(names[:8])}.")

    def numbers(name: str, *, scale: float = 1.0, width: int = 1, positive: bool = False) -> np.ndarray | None:
        if name not in names:
            return None
        return numbers_of(path, table, name, width=width, positive=positive) * scale

    def integers(name: str, *, first: int = 0, width: int = 1) -> np.ndarray | None:
        if name not in names:
            return None
        return np.round(numbers_of(path, table, name, width=width)).astype(np.int64) + first

    pixel = _rounded(numbers("blob/psize_A", positive=True))
    if pixel is None:
        pixel = _rounded(numbers("alignments3D/psize_A", positive=True))
    if pixel_size_angstrom is not None:
        pixel = np.full(len(table), pixel_size_angstrom)
    pose = numbers("alignments3D/pose", width=3)
    shift = numbers("alignments3D/shift", width=2)
    shift_pixel = _rounded(numbers("alignments3D/psize_A", positive=True))
    shift_pixel = pixel if shift_pixel is None else shift_pixel
    shape = numbers("location/micrograph_shape", width=2, positive=True)
    x, y = numbers("location/center_x_frac"), numbers("location/center_y_frac")
    box = integers("blob/shape", width=2)
    index = integers("blob/idx")
    if index is not None and bool((index < 0).any()):
        raise InputError(
            f"{path}, row {int((index < 0).argmax()) + 1}: blob/idx is negative; images are counted from 0."
        )
    return Particles(
        path, "cryosparc", len(table),
        tuple(texts_of(path, table, "blob/path")) if "blob/path" in names else None, index,
        tuple(texts_of(path, table, "location/micrograph_path")) if "location/micrograph_path" in names else None,
        None if x is None or shape is None else x * shape[:, 1],
        None if y is None or shape is None else y * shape[:, 0],
        None if pose is None else matrix_from_rotation_vector(torch.from_numpy(pose)),
        None if shift is None or shift_pixel is None else shift * shift_pixel[:, None],
        pixel, _rounded(numbers("location/micrograph_psize_A")), numbers("ctf/accel_kv"), numbers("ctf/cs_mm"),
        numbers("ctf/amp_contrast"), numbers("ctf/df1_A"), numbers("ctf/df2_A"),
        numbers("ctf/df_angle_rad", scale=180.0 / np.pi), numbers("ctf/phase_shift_rad", scale=180.0 / np.pi),
        integers("ctf/exp_group_id"), integers("alignments3D/split", first=1),
        integers("alignments3D/class", first=1), numbers("pick_stats/ncc_score"), None if box is None else box[:, 1],
        None if shape is None else shape.astype(np.int64), None, table,
    )  # fmt: skip


def _rounded(sizes: Numbers | None) -> Numbers | None:
    """Pixel sizes to the seven digits that float32 carries, so that 1.31 is 1.31 again."""
    return None if sizes is None else np.array([float(f"{size:.7g}") for size in sizes.tolist()], dtype=np.float64)
