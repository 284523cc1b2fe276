"""Coordinates written for other programs, each in its own meaning of the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equivox.errors import ConfigError, InputError
from equivox.formats.atomic import atomic_path
from equivox.formats.coordinates import CoordinateFormat, Coordinates
from equivox.formats.coordinates_cryosparc import cs_table
from equivox.formats.coordinates_star import UNSET, picks_below_job
from equivox.formats.cryosparc import write_cs
from equivox.formats.micrograph_names import micrograph_stem
from equivox.formats.relion_job import (
    COMMENTS,
    LARGEST_MERIT,
    LIST_NAME,
    MICROGRAPHS_NAME,
    SUFFIX_NAME,
    RelionVersion,
    write_picks,
)
from equivox.formats.star import make_block, make_pairs, write_star
from equivox.formats.tables import as_csv

FOLDER_FORMATS: tuple[CoordinateFormat, ...] = ("relion", "box", "cbox")
"""These need a file per micrograph; the others hold all micrographs in one file."""
ENDINGS: dict[str, CoordinateFormat] = {
    ".txt": "topaz", ".tsv": "topaz", ".csv": "csv", ".star": "star", ".cs": "cs", ".box": "box", ".cbox": "cbox",
}  # fmt: skip


def format_for(out: Path, to: CoordinateFormat | None) -> CoordinateFormat:
    """The format asked for, else that of the ending.

    Raises
    ------
    ConfigError
        If neither says it, or EMAN2's JSON is asked for.
    """
    if to == "json":
        raise ConfigError("EMAN2's JSON is read, not written; choose --to box, which EMAN2 imports.")
    if to is not None:
        return to
    found = ENDINGS.get(out.suffix.lower())
    if found is None:
        raise ConfigError(
            f"{out} does not say the format by its ending; add --to topaz, csv, star, relion, box, cbox or cs."
        )
    return found


def planned_files(out: Path | str, coordinates: Coordinates, to: CoordinateFormat) -> list[Path]:
    """The files that :func:`write_coordinates` is going to write."""
    out = Path(out)
    names = coordinates.by_micrograph()
    if to == "relion":
        picks = [out / picks_below_job(name) for name in names]
        return [out / LIST_NAME, out / SUFFIX_NAME, out / MICROGRAPHS_NAME, *picks]
    if to in ("box", "cbox") and out.suffix.lower() != f".{to}":
        return [out / f"{micrograph_stem(name)}.{to}" for name in names]
    return [out]


def write_coordinates(
    out: Path | str,
    coordinates: Coordinates,
    to: CoordinateFormat,
    *,
    box_px: float | None = None,
    version: RelionVersion = "5",
    shapes: Mapping[str, tuple[int, int]] | None = None,
    pixel_sizes: Mapping[str, float] | None = None,
    micrographs_star: str | None = None,
    micrographs: Sequence[str] = (),
) -> list[Path]:
    """Write picks in one format.

    Parameters
    ----------
    out
        The file; the folder for ``relion``, ``box`` and ``cbox`` (for one micrograph also a file).
    coordinates
        The picks; ``micrograph`` holds the names to write.
    to
        ``topaz`` (names without endings, whole pixels), ``csv``, ``star`` (one table), ``relion`` (a file per
        micrograph and the job's lists), ``box``, ``cbox`` (corner and size), ``cs``.
    box_px
        Edge of the boxes; needed for ``box`` and ``cbox`` unless every pick brings its own.
    version
        Of RELION, for ``star`` and ``relion``.
    shapes
        Rows and columns of every micrograph by name, for ``cs``.
    pixel_sizes
        Å per pixel by name, for ``cs``.
    micrographs_star, micrographs
        As in :func:`equivox.formats.relion_job.write_picks`.

    Raises
    ------
    ConfigError
        If a box size is needed and unknown.
    InputError
        If a shape is needed and unknown, or two micrographs would be written into one file.
    """
    out = Path(out)
    if to == "relion":
        return write_picks(
            out, coordinates, version=version, micrographs_star=micrographs_star, micrographs=micrographs
        )
    if to in ("box", "cbox"):
        return _write_boxes(out, coordinates, to, box_px)
    if to == "topaz":
        _write_text(out, _topaz_text(coordinates))
    elif to == "csv":
        _write_text(out, _csv_text(coordinates))
    elif to == "star":
        _write_star_table(out, coordinates, version)
    elif to == "cs":
        write_cs(out, cs_table(coordinates, shapes or {}, pixel_sizes))
    else:
        raise ConfigError(f"--to {to} is not written; choose topaz, csv, star, relion, box, cbox or cs.")
    return [out]


def _write_text(path: Path, text: str) -> None:
    """Write text whole or not at all; bytes of names that are no UTF-8 come back as they were read."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def _topaz_text(coordinates: Coordinates) -> str:
    """Topaz reads whole pixels and names without endings."""
    header = ["image_name", "x_coord", "y_coord", *(["score"] if coordinates.score is not None else [])]
    lines = ["\t".join(header)]
    x, y = np.floor(coordinates.x_px + 0.5).astype(int).tolist(), np.floor(coordinates.y_px + 0.5).astype(int).tolist()
    for index, name in enumerate(coordinates.micrograph):
        cells = [micrograph_stem(name), str(x[index]), str(y[index])]
        if coordinates.score is not None:
            cells.append(f"{coordinates.score[index]:.6g}")
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def _csv_text(coordinates: Coordinates) -> str:
    """Our own table: nothing is rounded away, further columns are kept."""
    columns: dict[str, Sequence[object]] = {
        "micrograph": coordinates.micrograph,
        "x_px": [f"{x:.4f}" for x in coordinates.x_px.tolist()],
        "y_px": [f"{y:.4f}" for y in coordinates.y_px.tolist()],
    }
    if coordinates.score is not None:
        columns["score"] = [f"{score:.8g}" for score in coordinates.score.tolist()]
    if coordinates.box_px is not None:
        columns["diameter"] = [f"{size:g}" for size in coordinates.box_px.max(axis=1).tolist()]
    if coordinates.rot_tilt_psi_deg is not None:
        for place, name in enumerate(("rot_deg", "tilt_deg", "psi_deg")):
            angles = coordinates.rot_tilt_psi_deg[:, place].tolist()
            columns[name] = ["" if np.isnan(angle) else f"{angle:.4f}" for angle in angles]
    columns |= {name: cells for name, cells in coordinates.columns.items() if name not in columns}
    return as_csv(columns, zip(*columns.values(), strict=True))


def _write_star_table(out: Path, coordinates: Coordinates, version: RelionVersion) -> None:
    """One table with the micrograph's name in each row, and the columns of RELION that were read."""
    columns: dict[str, Sequence[str | float | int]] = {
        "rlnMicrographName": coordinates.micrograph,
        "rlnCoordinateX": coordinates.x_px.tolist(),
        "rlnCoordinateY": coordinates.y_px.tolist(),
    }
    if coordinates.score is not None:
        columns["rlnAutopickFigureOfMerit"] = np.clip(coordinates.score, -LARGEST_MERIT, LARGEST_MERIT).tolist()
    if coordinates.rot_tilt_psi_deg is not None:
        known = np.where(np.isnan(coordinates.rot_tilt_psi_deg), UNSET, coordinates.rot_tilt_psi_deg)
        for place, label in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")):
            if bool((known[:, place] != UNSET).any()):
                columns[label] = known[:, place].tolist()
    columns |= {label: cells for label, cells in coordinates.columns.items() if label.startswith("rln")}
    write_star(out, [make_block("" if version == "3.0" else "particles", columns, version=COMMENTS[version])])


def _write_boxes(out: Path, coordinates: Coordinates, to: CoordinateFormat, box_px: float | None) -> list[Path]:
    """A file per micrograph with corners and sizes."""
    if box_px is not None:
        sizes = np.full((len(coordinates), 2), box_px)
    elif coordinates.box_px is not None:
        sizes = coordinates.box_px
    else:
        raise ConfigError(f"A .{to} file holds boxes; give their edge in pixels, for example --box-px 180.")
    groups = coordinates.by_micrograph()
    single = out.suffix.lower() == f".{to}"
    if single and len(groups) > 1:
        raise ConfigError(f"{out} is one file for {len(groups)} micrographs; give a folder as --out.")
    written: dict[Path, str] = {}
    for name, indices in groups.items():
        path = out if single else out / f"{micrograph_stem(name)}.{to}"
        if path in written:
            raise InputError(f"{written[path]} and {name} would both be written to {path}; convert them one by one.")
        written[path] = name
        write = _write_box if to == "box" else _write_cbox
        write(path, coordinates.select(indices), sizes[indices])
    return list(written)


def _write_box(path: Path, picks: Coordinates, sizes: np.ndarray) -> None:
    lines = []
    for index in range(len(picks)):
        width, height = sizes[index].tolist()
        cells = [picks.x_px[index] - width / 2, picks.y_px[index] - height / 2, width, height]
        text = "\t".join(f"{cell:.10g}" for cell in cells)
        lines.append(text if picks.score is None else f"{text}\t{picks.score[index]:.8g}")
    _write_text(path, "".join(f"{line}\n" for line in lines))


def _write_cbox(path: Path, picks: Coordinates, sizes: np.ndarray) -> None:
    count = len(picks)
    confidence: Sequence[float] = [1.0] * count
    if "probability" in picks.columns:  # crYOLO's thresholds are 0 to 1
        confidence = [float(text) for text in picks.columns["probability"]]
    elif picks.score is not None:
        confidence = picks.score.tolist()
    columns: dict[str, Sequence[str | float | int]] = {
        "CoordinateX": (picks.x_px - sizes[:, 0] / 2).tolist(),
        "CoordinateY": (picks.y_px - sizes[:, 1] / 2).tolist(),
        "CoordinateZ": ["<NA>"] * count,
        "Width": sizes[:, 0].tolist(),
        "Height": sizes[:, 1].tolist(),
        "Depth": ["<NA>"] * count,
        "EstWidth": sizes[:, 0].tolist(),
        "EstHeight": sizes[:, 1].tolist(),
        "Confidence": confidence,
        "NumBoxes": ["<NA>"] * count,
        "Angle": ["<NA>"] * count,
    }
    blocks = [make_pairs("global", {"cbox_format_version": "1.0"}), make_block("cryolo", columns)]
    write_star(path, [*blocks, make_block("cryolo_include", {"slice_index": [], "included": []})])
