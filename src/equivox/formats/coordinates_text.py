"""Coordinates in text: topaz tables, CSV, EMAN boxes and EMAN2's JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equivox.errors import InputError
from equivox.formats.coordinates import Coordinates, require_numbers
from equivox.formats.micrograph_names import micrograph_stem

NAME_COLUMNS = ("image_name", "micrograph", "micrograph_name", "filename", "file_name", "image", "rlnmicrographname")
X_COLUMNS = ("x_coord", "x_px", "x", "x-coordinate", "x_coordinate", "center_x", "rlncoordinatex")
Y_COLUMNS = ("y_coord", "y_px", "y", "y-coordinate", "y_coordinate", "center_y", "rlncoordinatey")
SCORE_COLUMNS = ("score", "log_odds", "confidence", "rlnautopickfigureofmerit", "probability")
SIZE_COLUMNS = ("diameter", "diameter_px", "box_size")
ANGLE_COLUMNS = ("rot_deg", "tilt_deg", "psi_deg")
HELIX_TAGS = {-1.0, -2.0, -3.0}
"""EMAN's marks of filament ends stand where others write a score."""


def read_text_table(path: Path, micrograph: str | None) -> Coordinates:
    """A table with a header: topaz (tabs), CSV, or columns separated by blanks; InputError if it is none."""
    lines = _lines(path)
    separator = next((mark for mark in ("\t", ",", ";") if mark in lines[0][1]), None)
    rows = [(number, _cells(text, separator)) for number, text in lines]
    header = [cell.strip().strip("_").casefold() for cell in rows[0][1]]
    body = rows[1:]
    if "region_shape_attributes" in header:
        return _read_via(path, header, body)
    if all(_is_number(cell) for cell in rows[0][1][-2:]):
        raise InputError(
            f"{path} has no header: its first line is {lines[0][1]!r}; begin it with "
            f"image_name, x_coord, y_coord (and score)."
        )
    x, y = _place(header, X_COLUMNS), _place(header, Y_COLUMNS)
    for place, wanted in ((x, X_COLUMNS[0]), (y, Y_COLUMNS[0])):
        if place is None:
            raise InputError(f"{path} has no column {wanted}; it has {', '.join(header[:10])}.")
    assert x is not None
    assert y is not None
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise InputError(f"{path} has the column {twice!r} twice; remove one.")
    for number, cells in body:
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}, has {len(cells)} cells where the header has {len(header)}.")
    at = [number for number, _ in body]

    def column(place: int) -> list[str]:
        return [cells[place].strip() for _, cells in body]

    name, score, size = (_place(header, names) for names in (NAME_COLUMNS, SCORE_COLUMNS, SIZE_COLUMNS))
    names = column(name) if name is not None else [micrograph or own_name(path)] * len(body)
    for number, text in zip(at, names, strict=True):
        if not text:
            raise InputError(f"{path}, line {number}: the micrograph's name is empty; fill it in.")
    angles = [_place(header, (text,)) for text in ANGLE_COLUMNS]
    used = {x, y, name, score, size, *angles}
    width = None if size is None else require_numbers(path, header[size], column(size), at)
    turned = None
    if all(place is not None for place in angles):
        turned = np.stack([_numbers_or_nan(column(place)) for place in angles if place is not None], axis=1)
    return Coordinates(
        path, "topaz" if "image_name" in header and separator != "," else "csv", tuple(names),
        require_numbers(path, header[x], column(x), at), require_numbers(path, header[y], column(y), at),
        None if score is None else require_numbers(path, header[score], column(score), at),
        None if width is None else np.stack([width, width], axis=1), turned,
        {header[place]: tuple(column(place)) for place in range(len(header)) if place not in used},
    )  # fmt: skip


def read_box(path: Path, micrograph: str | None) -> Coordinates:
    """EMAN ``.box``: x and y of the corner with the smaller indices, width, height, and perhaps a score."""
    lines = _lines(path)
    rows = [text.replace(",", " ").split() for _, text in lines]
    at = [number for number, _ in lines]
    for number, cells in zip(at, rows, strict=True):
        if len(cells) < 4:
            raise InputError(f"{path}, line {number}, has {len(cells)} values; a box is x, y, width, height.")
    x, y, width, height = (
        require_numbers(path, name, [cells[place] for cells in rows], at)
        for place, name in enumerate(("x", "y", "width", "height"))
    )
    flat = np.flatnonzero((width <= 0) | (height <= 0))
    if flat.size:
        row = int(flat[0])
        raise InputError(f"{path}, line {at[row]}: a box of {width[row]:g} x {height[row]:g}; sizes are positive.")
    score = None
    if rows and all(len(cells) > 4 for cells in rows):
        last = require_numbers(path, "score", [cells[4] for cells in rows], at)
        score = None if set(last.tolist()) <= HELIX_TAGS else last
    names = (micrograph or own_name(path),) * len(rows)
    size = np.stack([width, height], axis=1)
    return Coordinates(path, "box", names, x + width / 2, y + height / 2, score, size)


def read_info_json(path: Path, micrograph: str | None) -> Coordinates:
    """EMAN2's ``<name>_info.json``: ``"boxes": [[x, y, tag], ...]`` with centres."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        boxes = document["boxes"]
        centres = np.array([[float(box[0]), float(box[1])] for box in boxes], dtype=np.float64).reshape(-1, 2)
    except (ValueError, KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f'{path} is no EMAN2 file with "boxes": [[x, y, tag], ...]; give another file.') from error
    if not np.isfinite(centres).all():
        raise InputError(f"{path} holds a box at a place that is no finite number; remove it.")
    name = micrograph or path.name.removesuffix(".json").removesuffix("_info")
    return Coordinates(path, "json", (name,) * len(centres), centres[:, 0].copy(), centres[:, 1].copy())


def own_name(path: Path) -> str:
    """The micrograph that a file is about by its own name."""
    stem = micrograph_stem(path.name)
    stem = stem.removesuffix(".csv").removesuffix(".tsv")
    for suffix in ("_autopick", "_manualpick", "_picks", "_coords"):
        stem = stem.removesuffix(suffix)
    return stem


def _read_via(path: Path, header: Sequence[str], body: Sequence[tuple[int, list[str]]]) -> Coordinates:
    """VGG image annotator: circles, points or rectangles as JSON in one column."""
    name, shape = _place(header, ("filename",)), list(header).index("region_shape_attributes")
    if name is None:
        raise InputError(f"{path} has no column filename; it is no annotation table of VIA.")
    names, found = [], []
    for number, cells in body:
        try:
            values = json.loads(cells[shape])
            if not values:
                continue  # a picture without regions has one empty row
            if "cx" in values:
                found.append((float(values["cx"]), float(values["cy"]), 2.0 * float(values.get("r", 0.0))))
            else:
                width, height = float(values["width"]), float(values["height"])
                found.append((values["x"] + width / 2, values["y"] + height / 2, max(width, height)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path}, line {number}: the region is no circle, point or rectangle of VIA.") from error
        names.append(cells[name])
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    size = np.stack([table[:, 2], table[:, 2]], axis=1)
    known = bool((table[:, 2] > 0).all()) and len(table) > 0
    return Coordinates(path, "csv", tuple(names), table[:, 0].copy(), table[:, 1].copy(), None, size if known else None)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank and no comments, with their numbers."""
    content = path.read_bytes()
    if b"\0" in content:
        raise InputError(f"{path} is no text; a table of coordinates is needed.")
    text = content.decode("utf-8-sig", "surrogateescape")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if not lines:
        raise InputError(f"{path} holds no line of data; give a file with coordinates.")
    return lines


def _cells(text: str, separator: str | None) -> list[str]:
    return text.split() if separator is None else next(csv.reader([text], delimiter=separator))


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Index of the first of these columns that is there."""
    return next((list(header).index(name) for name in names if name in header), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers_or_nan(texts: Sequence[str]) -> np.ndarray:
    return np.array([float(text) if _is_number(text) else np.nan for text in texts], dtype=np.float64)
