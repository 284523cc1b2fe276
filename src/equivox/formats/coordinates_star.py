"""Coordinates in STAR files: RELION's picks of one micrograph, lists of such files, particles, and crYOLO's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from equivox.errors import InputError
from equivox.formats.coordinates import Coordinates
from equivox.formats.coordinates_text import own_name
from equivox.formats.star import Star, StarBlock, read_star

UNSET = -999.0
"""RELION's number for an angle or a score that nobody determined."""
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
NAME_LABELS = ("rlnMicrographName", "rlnTomoName")


def read_star_coordinates(path: Path, micrograph: str | None) -> Coordinates:
    """Coordinates of whatever block has them; lists of files are followed.

    Raises
    ------
    InputError
        If no block has coordinates; if files in a list are missing, when all are.
    """
    suffix_list = _suffix_list(path)
    if suffix_list is not None:
        return _read_suffix_list(path, suffix_list)
    star = read_star(path)
    for block in star.blocks:
        if block.has("rlnMicrographName", "rlnMicrographCoordinates"):
            return _read_listed(star, block)
        if block.has("rlnCoordinateX", "rlnCoordinateY"):
            return _read_relion(block, micrograph)
        if block.has("CoordinateX", "CoordinateY") and block.has("Width", "Height"):
            return _read_cbox(block, micrograph)
    micrographs = any(block.has("rlnMicrographName") for block in star.blocks)
    what = "lists micrographs" if micrographs else "has no coordinates"
    raise InputError(
        f"{path} {what}: no block has the columns _rlnCoordinateX and _rlnCoordinateY; give the file of the picks."
    )


def _read_relion(block: StarBlock, micrograph: str | None) -> Coordinates:
    """Rows with centres in pixels of the micrograph."""
    path, count = block.path, len(block)
    named = next((label for label in NAME_LABELS if label in block.labels), None)
    names = block.texts(named) if named else [micrograph or own_name(path)] * count
    score = block.numbers("rlnAutopickFigureOfMerit") if block.has("rlnAutopickFigureOfMerit") else None
    angles = None
    if any(label in block.labels for label in ANGLES):
        angles = np.full((count, 3), np.nan)
        for place, label in enumerate(ANGLES):
            if block.has(label):
                values = block.numbers(label)
                angles[:, place] = np.where(values <= UNSET, np.nan, values)
        angles = None if bool(np.isnan(angles).all()) else angles
    used = {named, "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", *ANGLES}
    others = [label for label in block.labels if label not in used]
    columns = dict(zip(others, map(tuple, block.columns(*others)), strict=True)) if others else {}
    return Coordinates(
        path, "star", tuple(names), block.numbers("rlnCoordinateX"), block.numbers("rlnCoordinateY"), score, None,
        angles, columns,
    )  # fmt: skip


def _read_cbox(block: StarBlock, micrograph: str | None) -> Coordinates:
    """crYOLO: corner and size of each box, and its confidence."""
    x, y, width, height = (block.numbers(label) for label in ("CoordinateX", "CoordinateY", "Width", "Height"))
    score = block.numbers("Confidence") if block.has("Confidence") else None
    names = (micrograph or own_name(block.path),) * len(block)
    size = np.stack([width, height], axis=1)
    return Coordinates(block.path, "cbox", names, x + width / 2, y + height / 2, score, size)


def _read_listed(star: Star, block: StarBlock) -> Coordinates:
    """RELION's job-level list of micrographs and their files."""
    names, files = block.columns("rlnMicrographName", "rlnMicrographCoordinates")
    return _read_many(star.path, names, [_resolved(star.path, text) for text in files])


def _suffix_list(path: Path) -> str | None:
    """The one path that a ``coords_suffix_*.star`` of RELION 3.0 holds; None for any other file."""
    if not path.name.startswith("coords_suffix_") or path.stat().st_size > 4096:
        return None
    words = path.read_text(encoding="utf-8", errors="replace").split()
    return words[0] if len(words) == 1 else None


def _read_suffix_list(path: Path, listed: str) -> Coordinates:
    """RELION 3.0: beside this file lie the picks of the micrographs of the STAR file that it names."""
    star = read_star(_resolved(path, listed))
    block = next((block for block in star.blocks if block.has("rlnMicrographName")), None)
    if block is None:
        raise InputError(f"{star.path}, named by {path}, has no column _rlnMicrographName; give the picks themselves.")
    names = block.texts("rlnMicrographName")
    suffix = path.stem.removeprefix("coords_suffix_")
    files = [path.parent / picks_below_job(name, suffix) for name in names]
    return _read_many(path, names, files)


def picks_below_job(micrograph: str, suffix: str = "autopick") -> PurePosixPath:
    """Where RELION keeps the picks of a micrograph below the job's folder.

    >>> str(picks_below_job("MotionCorr/job002/mics/a_0001.mrc"))
    'mics/a_0001_autopick.star'
    """
    parts = PurePosixPath(micrograph.replace("\\", "/")).parts
    if len(parts) > 2 and parts[1].startswith("job") and parts[1][3:].isdigit():
        parts = parts[2:]
    parts = tuple(part for part in parts if part not in ("/", "..", "."))
    name = PurePosixPath(parts[-1]).stem
    return PurePosixPath(*parts[:-1], f"{name}_{suffix}.star")


def _read_many(path: Path, names: Sequence[str], files: Sequence[Path]) -> Coordinates:
    """The picks of all files that are there; InputError if none is."""
    found: list[Coordinates] = []
    warnings: list[str] = []
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            warnings.append(f"{path}: {file}, the picks of {name}, does not exist; left out.")
            continue
        try:
            part = read_star_coordinates(file, name)
        except InputError as error:
            warnings.append(f"{path}: {error}")
            continue
        found.append(part)
    if not found:
        reason = warnings[0] if warnings else f"{path} lists no file"
        raise InputError(f"{path} leads to no coordinates ({reason.rstrip('.')}); run this in the project's folder.")
    return joined(path, found).warn(*warnings)


def joined(path: Path, parts: Sequence[Coordinates]) -> Coordinates:
    """Several files as one; a score, box or angle is kept if all have it, further columns if all have them."""
    columns = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    angles = [
        np.full((len(part), 3), np.nan) if part.rot_tilt_psi_deg is None else part.rot_tilt_psi_deg for part in parts
    ]
    turned = any(part.rot_tilt_psi_deg is not None for part in parts)
    scores = [part.score for part in parts if part.score is not None]
    boxes = [part.box_px for part in parts if part.box_px is not None]
    return Coordinates(
        path, parts[0].format, tuple(name for part in parts for name in part.micrograph),
        np.concatenate([part.x_px for part in parts]), np.concatenate([part.y_px for part in parts]),
        np.concatenate(scores) if len(scores) == len(parts) else None,
        np.concatenate(boxes) if len(boxes) == len(parts) else None,
        np.concatenate(angles) if turned else None,
        {name: tuple(cell for part in parts for cell in part.columns[name]) for name in columns},
        tuple(text for part in parts for text in part.warnings),
    )  # fmt: skip


def _resolved(path: Path, text: str) -> Path:
    """A path of RELION's project folder: from here, else from the nearest folder above the file that has it."""
    given = Path(text)
    if given.is_absolute() or given.exists():
        return given
    for folder in path.resolve().parents:
        if (folder / given).exists():
            return folder / given
    return given
