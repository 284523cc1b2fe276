"""Particles written for RELION 3.0, 3.1 and 5 and for cryoSPARC, with every column that the target can hold.

Into the family that a table came from, its file goes back as it was, apart from poses and origins that changed. Into
another family, RELION's columns that are not known here are carried over as text; what has no place is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from equivox.errors import InputError
from equivox.formats.cryosparc import fields_of, write_cs
from equivox.formats.particles import TRANSLATED, Particles, particle_block
from equivox.formats.particles_write_cryosparc import cs_particles
from equivox.formats.relion_job import COMMENTS, RelionVersion
from equivox.formats.star import Star, StarBlock, make_block, write_star
from equivox.geometry.euler_relion import matrix_from_relion, relion_from_matrix

Columns = dict[str, Sequence[str | float | int]]
SMALLEST_CHANGE = 1e-7
MAGNIFICATION = 10000.0
"""With it, RELION 3.0's detector pixel [µm] is the pixel size [Å]."""


def write_particles(
    path: Path | str,
    particles: Particles,
    *,
    version: RelionVersion | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[str, ...]:
    """Write ``.star`` (of a version of RELION) or ``.cs``, by the ending of ``path``.

    Parameters
    ----------
    path
        The file.
    particles
        The table, read or made.
    version
        Of RELION; by default that of the table, else 3.1.
    shapes
        Rows and columns of the micrographs by name: cryoSPARC keeps coordinates as fractions of them.

    Returns
    -------
    tuple
        Sentences about columns that the target cannot hold.

    Raises
    ------
    InputError
        If something that the target needs (pixel size, voltage, micrographs) is not known.
    """
    path = Path(path)
    if path.suffix.lower() == ".cs":
        table, lost = cs_particles(particles, shapes)
        write_cs(path, table)
        return lost
    if version is None:
        version = {"relion-3.0": "3.0", "relion-5": "5"}.get(particles.layout, "3.1")  # type: ignore[assignment]
    assert version is not None
    blocks, lost = relion_blocks(particles, version)
    write_star(path, blocks)
    return lost


def relion_blocks(particles: Particles, version: RelionVersion) -> tuple[list[StarBlock], tuple[str, ...]]:
    """Blocks of the STAR file, and what had no place in it."""
    old = version == "3.0"
    if particles.star is not None and (particles.layout == "relion-3.0") == old:
        return _same_family(particles, particles.star, version), ()
    block = None if particles.star is None else particle_block(particles.star)
    others = [] if block is None else [label for label in block.labels if label not in TRANSLATED]
    carried: Columns = {}
    if block is not None and others:
        carried = dict(zip(others, block.columns(*others), strict=True))
    lost = _lost_optics(particles) + _lost_fields(particles)
    if old:
        return [make_block("", _rows_30(particles) | carried)], lost
    optics, groups = _optics(particles)
    rows = _rows(particles) | {"rlnOpticsGroup": groups} | _origins_angstrom(particles) | carried
    number = COMMENTS[version]
    return [make_block("optics", optics, version=number), make_block("particles", rows, version=number)], lost


def _same_family(particles: Particles, star: Star, version: RelionVersion) -> list[StarBlock]:
    """The file as it was, with poses, origins and places replaced where they changed and the version's number set."""
    block = particle_block(star)
    changes: Columns = {}
    if particles.rotations is not None:
        changes |= _changed(block, _angles(particles))
    if particles.origin_angstrom is not None:
        changes |= _changed(block, _origins_px(particles) if version == "3.0" else _origins_angstrom(particles))
    if particles.x_px is not None and particles.y_px is not None:
        places: Columns = {"rlnCoordinateX": particles.x_px.tolist(), "rlnCoordinateY": particles.y_px.tolist()}
        changes |= _changed(block, places)
    if changes:
        star = star.with_block(block.with_columns(changes))
    number = COMMENTS[version]
    if number is None:
        return list(star.blocks)
    return [replace(b, head=re.sub(r"# version [35]0001", f"# version {number}", b.head)) for b in star.blocks]


def _changed(block: StarBlock, columns: Columns) -> Columns:
    """All of these columns if one of them is new or holds other numbers."""
    for label, values in columns.items():
        if not block.has(label):
            return columns
        if len(block) and np.abs(block.numbers(label) - np.array(values, dtype=np.float64)).max() > SMALLEST_CHANGE:
            if label.startswith("rlnAngle") and _same_rotations(block, columns):
                return {}
            return columns
    return {}


def _same_rotations(block: StarBlock, columns: Columns) -> bool:
    """Whether other angles mean the same matrices (tilt 0, negative tilts)."""
    labels = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    first = matrix_from_relion(*(torch.from_numpy(block.numbers(label)) for label in labels))
    second = matrix_from_relion(*(torch.tensor(columns[label], dtype=torch.float64) for label in labels))
    return float((first - second).abs().max()) < SMALLEST_CHANGE


def _rows(particles: Particles) -> Columns:
    """Columns that all versions share."""
    columns: Columns = {}
    if particles.x_px is not None and particles.y_px is not None:
        columns |= {"rlnCoordinateX": particles.x_px.tolist(), "rlnCoordinateY": particles.y_px.tolist()}
    if particles.image_path is not None and particles.image_index is not None:
        numbered = zip(particles.image_index.tolist(), particles.image_path, strict=True)
        columns["rlnImageName"] = [f"{index + 1:06d}@{path}" for index, path in numbered]
    if particles.micrograph is not None:
        columns["rlnMicrographName"] = particles.micrograph
    for label, values in (
        ("rlnDefocusU", particles.defocus_u_angstrom), ("rlnDefocusV", particles.defocus_v_angstrom),
        ("rlnDefocusAngle", particles.defocus_angle_deg), ("rlnPhaseShift", particles.phase_shift_deg),
    ):  # fmt: skip
        if values is not None:
            columns[label] = values.tolist()
    if particles.rotations is not None:
        columns |= _angles(particles)
    if particles.class_number is not None:
        columns["rlnClassNumber"] = particles.class_number.tolist()
    if particles.half_set is not None:
        columns["rlnRandomSubset"] = particles.half_set.tolist()
    if particles.score is not None:
        columns["rlnAutopickFigureOfMerit"] = particles.score.tolist()
    return columns


def _rows_30(particles: Particles) -> Columns:
    """The one table of RELION 3.0, with the microscope in every row."""
    columns = _rows(particles)
    for label, values in (
        ("rlnVoltage", particles.voltage_kv), ("rlnSphericalAberration", particles.cs_mm),
        ("rlnAmplitudeContrast", particles.amplitude_contrast),
        ("rlnDetectorPixelSize", particles.pixel_size_angstrom),
    ):  # fmt: skip
        if values is not None:
            columns[label] = values.tolist()
    if particles.pixel_size_angstrom is not None:
        columns["rlnMagnification"] = [MAGNIFICATION] * len(particles)
    return columns | _origins_px(particles)


def _optics(particles: Particles) -> tuple[Columns, list[int]]:
    """The optics table, and the group of every particle."""
    count = len(particles)
    if particles.pixel_size_angstrom is None:
        raise InputError(
            f"{particles.path} says no pixel size, which RELION's optics table needs; give it in Å, for example "
            f"--pixel-size-angstrom 1.5."
        )

    fields = {
        "rlnVoltage": particles.voltage_kv,
        "rlnSphericalAberration": particles.cs_mm,
        "rlnAmplitudeContrast": particles.amplitude_contrast,
        "rlnImagePixelSize": particles.pixel_size_angstrom,
        "rlnImageSize": particles.image_size_px,
        "rlnMicrographPixelSize": particles.micrograph_pixel_size_angstrom,
    }
    known = {label: values.tolist() for label, values in fields.items() if values is not None}
    given = [0] * count if particles.optics_group is None else particles.optics_group.tolist()
    keys = list(zip(given, *known.values(), strict=True))
    groups = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    columns: Columns = {
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in groups.values()],
        "rlnOpticsGroup": list(groups.values()),
    }
    for place, label in enumerate(known, start=1):
        columns[label] = [key[place] for key in groups]
    if particles.image_size_px is not None:
        columns["rlnImageDimensionality"] = [2] * len(groups)
    return columns, [groups[key] for key in keys]


def _angles(particles: Particles) -> Columns:
    assert particles.rotations is not None
    angles = relion_from_matrix(particles.rotations).tolist()
    labels = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return {label: [row[place] for row in angles] for place, label in enumerate(labels)}


def _origins_angstrom(particles: Particles) -> Columns:
    origin = particles.origin_angstrom
    if origin is None:
        return {}
    return {"rlnOriginXAngst": origin[:, 0].tolist(), "rlnOriginYAngst": origin[:, 1].tolist()}


def _origins_px(particles: Particles) -> Columns:
    origin, pixel = particles.origin_angstrom, particles.pixel_size_angstrom
    if origin is None or pixel is None:
        return {}
    return {"rlnOriginX": (origin[:, 0] / pixel).tolist(), "rlnOriginY": (origin[:, 1] / pixel).tolist()}


def _lost_optics(particles: Particles) -> tuple[str, ...]:
    """Columns of an optics table that have no place in another family."""
    optics = None if particles.star is None else particles.star.find("optics")
    lost = [] if optics is None else [label for label in optics.labels if label not in TRANSLATED]
    return (f"{particles.path}: columns of data_optics left out: {', '.join(lost)}.",) if lost else ()


def _lost_fields(particles: Particles) -> tuple[str, ...]:
    """Columns of a ``.cs`` table that RELION has no name for."""
    if particles.table is None:
        return ()
    known = ("uid", "blob/", "location/", "ctf/", "alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A",
             "alignments3D/split", "alignments3D/class", "pick_stats/ncc_score")  # fmt: skip
    lost = [name for name in fields_of(particles.table) if not name.startswith(known)]
    return (f"{particles.path}: columns without a place in RELION left out: {', '.join(lost)}.",) if lost else ()
