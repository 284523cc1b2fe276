"""Picks written for people and for other programs: ``picks.csv``, RELION, EMAN, crYOLO, topaz, cryoSPARC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import write_text
from equivox.formats.coordinates import Coordinates
from equivox.formats.coordinates_write import write_coordinates
from equivox.formats.relion_job import RelionVersion
from equivox.formats.tables import as_csv
from equivox.tasks.pick.picker import Picks

PICKS_CSV = "picks.csv"
HEADER = (
    "micrograph", "x_px", "y_px", "x_angstrom", "y_angstrom", "log_odds", "probability", "rot_deg", "tilt_deg",
    "psi_deg", "pose_confidence",
)  # fmt: skip
Format = Literal["relion", "box", "cbox", "topaz", "cs"]
FORMATS: tuple[str, ...] = get_args(Format)
PLACES: dict[str, str] = {"box": "box", "cbox": "cbox", "topaz": "picks_topaz.txt", "cs": "picks.cs"}
"""Below the results' folder; RELION's files lie in the folder itself, which may be a job's."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Names of formats from ``"relion,box"``; ``"all"`` and ``"none"`` are understood.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    if text == "all":
        return FORMATS
    if text in ("none", ""):
        return ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--formats names {name!r}; known are {', '.join(FORMATS)}, all and none.")
    return tuple(dict.fromkeys(names))


def write_picks_csv(path: Path, picks: Sequence[Picks]) -> None:
    """``picks.csv``: one row per pick; angles are empty where the network knows no rotations."""
    rows: list[list[str]] = []
    for one in picks:
        pixel = one.pixel_size_angstrom
        poses = one.has_poses
        for index in range(len(one)):
            x, y = float(one.x_px[index]), float(one.y_px[index])
            row = [
                one.name, f"{x:.3f}", f"{y:.3f}", f"{x * pixel:.2f}", f"{y * pixel:.2f}",
                f"{one.log_odds[index]:.4f}", f"{one.probability[index]:.6f}",
            ]  # fmt: skip
            angles = (one.rot_deg, one.tilt_deg, one.psi_deg, one.pose_confidence)
            rows.append([*row, *(f"{values[index]:.3f}" if poses else "" for values in angles)])
    write_text(path, as_csv(HEADER, rows))


def as_coordinates(out: Path, picks: Sequence[Picks], *, names: Sequence[str] | None = None) -> Coordinates:
    """All picks as one table; ``names`` replaces the micrographs' names, one per entry of ``picks``."""
    shown = [one.name for one in picks] if names is None else list(names)
    poses = all(one.has_poses for one in picks if len(one)) and any(len(one) for one in picks)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in picks]) if picks else np.zeros(0)

    return Coordinates(
        path=out / PICKS_CSV,
        format="csv",
        micrograph=tuple(name for name, one in zip(shown, picks, strict=True) for _ in range(len(one))),
        x_px=column("x_px"),
        y_px=column("y_px"),
        score=column("log_odds"),
        rot_tilt_psi_deg=np.stack([column(f"{name}_deg") for name in ("rot", "tilt", "psi")], axis=1)
        if poses
        else None,
    )


def write_all(
    out: Path,
    picks: Sequence[Picks],
    formats: Sequence[str],
    *,
    radius_angstrom: float,
    version: RelionVersion,
    micrographs_star: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Write picks in every format asked for; RELION's lists name micrographs without a pick too, as its own do.

    Returns
    -------
    Files, and sentences about what could not be written (two micrographs of one name in a folder of boxes).
    """
    written = [out / PICKS_CSV]
    write_picks_csv(written[0], picks)
    notes: list[str] = []
    table = as_coordinates(out, picks)
    shapes = {one.name: one.file_size_px for one in picks}
    pixels = {one.name: one.pixel_size_angstrom for one in picks}
    probability = np.concatenate([one.probability for one in picks]) if picks else np.zeros(0)
    edges = np.concatenate([np.full(len(one), 2.0 * radius_angstrom / one.pixel_size_angstrom) for one in picks] or
                           [np.zeros(0)])  # fmt: skip
    for name in formats:
        place = out / PLACES.get(name, "")
        try:
            if name == "relion":
                # names of the job's list are paths: RELION looks for the picks below them
                written += write_coordinates(
                    place, table, "relion", version=version, micrographs_star=micrographs_star,
                    micrographs=list(shapes),
                )  # fmt: skip
            elif name in ("box", "cbox"):
                sizes = np.round(np.stack([edges, edges], axis=1))
                boxed = replace(table, box_px=sizes, score=probability if name == "cbox" else table.score)
                written += write_coordinates(place, boxed, name)  # type: ignore[arg-type]
            elif name == "topaz":
                written += write_coordinates(place, table, "topaz")
            elif name == "cs":
                written += write_coordinates(place, table, "cs", shapes=shapes, pixel_sizes=pixels)
        except InputError as error:
            notes.append(str(error))
    return written, notes
