"""Coordinates in cryoSPARC's tables: fractions of the micrograph's size become pixels, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equivox.errors import InputError
from equivox.formats.coordinates import Coordinates
from equivox.formats.cryosparc import fields_of, numbers_of, read_cs, texts_of

LARGEST_PX, MOST_FRACTIONS = 1e6, 10.0
"""Sides of micrographs, and places as fractions of them, beyond which a file is damaged."""
SCORES = ("pick_stats/log_odds", "pick_stats/ncc_score")
NEEDED = (
    "location/micrograph_path", "location/micrograph_shape", "location/center_x_frac", "location/center_y_frac",
)  # fmt: skip


def read_cs_coordinates(path: Path, passthrough: Sequence[Path | str] = ()) -> Coordinates:
    """Centres from ``location/center_*_frac`` times the micrograph's shape (ny, nx).

    Raises
    ------
    InputError
        If the columns are not there (a passthrough file may hold them), or a number is not finite.
    """
    table = read_cs(path, passthrough=passthrough)
    missing = [name for name in NEEDED if name not in fields_of(table)]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; give the job's passthrough file too (--passthrough).")
    shape = numbers_of(path, table, "location/micrograph_shape", width=2, positive=True, most=LARGEST_PX)
    x = numbers_of(path, table, "location/center_x_frac", most=MOST_FRACTIONS) * shape[:, 1]
    y = numbers_of(path, table, "location/center_y_frac", most=MOST_FRACTIONS) * shape[:, 0]
    scored = next((name for name in SCORES if name in fields_of(table)), None)
    score = None if scored is None else numbers_of(path, table, scored)
    names = tuple(texts_of(path, table, "location/micrograph_path"))
    columns = {
        "uid": tuple(str(uid) for uid in table["uid"].tolist()),
        "width_px": tuple(str(int(columns)) for columns in shape[:, 1].tolist()),
        "height_px": tuple(str(int(rows)) for rows in shape[:, 0].tolist()),
    }
    return Coordinates(path, "cs", names, x, y, score, None, None, columns)


def cs_table(
    coordinates: Coordinates, shapes: Mapping[str, tuple[int, int]], pixel_sizes: Mapping[str, float] | None = None
) -> np.ndarray:
    """A table of picks as cryoSPARC's import of particles takes it.

    Parameters
    ----------
    coordinates
        The picks.
    shapes
        Rows and columns (ny, nx) of each micrograph, by the name that the picks give it.
    pixel_sizes
        Å per pixel by name; a column is written only if all are known.

    Raises
    ------
    InputError
        If a micrograph's shape is not known.
    """
    names = coordinates.micrograph
    lost = next((name for name in names if name not in shapes), None)
    if lost is not None:
        raise InputError(f"A .cs file needs the size of the micrograph {lost}; give the micrographs (--micrographs).")
    widest = max((len(name.encode("utf-8", "surrogateescape")) for name in names), default=1)
    sized = pixel_sizes is not None and all(name in pixel_sizes for name in names)
    kinds: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [
        ("uid", "<u8"), ("location/micrograph_uid", "<u8"), ("location/exp_group_id", "<u4"),
        ("location/micrograph_path", f"S{widest}"), ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"), ("location/center_y_frac", "<f4"),
    ]  # fmt: skip
    kinds += [("location/micrograph_psize_A", "<f4")] if sized else []
    kinds += [("pick_stats/ncc_score", "<f4")] if coordinates.score is not None else []
    kinds += [("pick_stats/angle_rad", "<f4")] if coordinates.rot_tilt_psi_deg is not None else []
    table = np.zeros(len(coordinates), dtype=kinds)
    rows = np.array([shapes[name] for name in names], dtype=np.float64).reshape(-1, 2)
    table["uid"] = _uids(coordinates)
    table["location/micrograph_uid"] = [_number(name) for name in names]
    table["location/exp_group_id"] = 1
    table["location/micrograph_path"] = [name.encode("utf-8", "surrogateescape") for name in names]
    table["location/micrograph_shape"] = rows
    table["location/center_x_frac"] = coordinates.x_px / rows[:, 1]
    table["location/center_y_frac"] = coordinates.y_px / rows[:, 0]
    if sized and pixel_sizes is not None:
        table["location/micrograph_psize_A"] = [pixel_sizes[name] for name in names]
    if coordinates.score is not None:
        table["pick_stats/ncc_score"] = coordinates.score
    if coordinates.rot_tilt_psi_deg is not None:
        table["pick_stats/angle_rad"] = np.deg2rad(np.nan_to_num(coordinates.rot_tilt_psi_deg[:, 2]))
    return table


def _uids(coordinates: Coordinates) -> list[int]:
    """The uids that were read, else numbers made from name and place."""
    if "uid" in coordinates.columns:
        return [int(text) for text in coordinates.columns["uid"]]
    places = zip(coordinates.micrograph, coordinates.x_px.tolist(), coordinates.y_px.tolist(), strict=True)
    return [_number(f"{name}/{x!r}/{y!r}") for name, x, y in places]


def _number(text: str) -> int:
    """A number of 63 bits that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1
