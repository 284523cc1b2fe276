"""Particles as a cryoSPARC table: counted from 0, angles in radians, the transpose of RELION's matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equivox.formats.cryosparc import fields_of
from equivox.formats.particles import TRANSLATED, Particles, particle_block
from equivox.geometry.euler_relion import rotation_vector_from_matrix

Field = tuple[str, tuple[int, ...], Any]
"""NumPy type, shape of one entry, and the values of a column."""


def cs_particles(
    particles: Particles, shapes: Mapping[str, tuple[int, int]] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The table for a ``.cs`` file, and what had no place in it.

    ``shapes`` gives rows and columns (ny, nx) of each micrograph by name; without them coordinates have no place.
    """
    if particles.table is not None:
        return _changed_table(particles), ()
    kinds: dict[str, Field] = {"uid": ("<u8", (), _uids(particles))}
    if particles.image_path is not None and particles.image_index is not None:
        kinds["blob/path"] = (_bytes_kind(particles.image_path), (), _encoded(particles.image_path))
        kinds["blob/idx"] = ("<u4", (), particles.image_index)
        if particles.image_size_px is not None:
            kinds["blob/shape"] = ("<u4", (2,), np.stack([particles.image_size_px] * 2, axis=1))
        if particles.pixel_size_angstrom is not None:
            kinds["blob/psize_A"] = ("<f4", (), particles.pixel_size_angstrom)
        kinds["blob/sign"] = ("<f4", (), np.ones(len(particles)))
    lost: list[str] = []
    if particles.micrograph is not None:
        kinds["location/micrograph_path"] = (
            _bytes_kind(particles.micrograph), (), _encoded(particles.micrograph),
        )  # fmt: skip
        lost += _locations(particles, particles.micrograph, shapes or {}, kinds)
    for name, values, scale in (
        ("ctf/accel_kv", particles.voltage_kv, 1.0), ("ctf/cs_mm", particles.cs_mm, 1.0),
        ("ctf/amp_contrast", particles.amplitude_contrast, 1.0), ("ctf/df1_A", particles.defocus_u_angstrom, 1.0),
        ("ctf/df2_A", particles.defocus_v_angstrom, 1.0),
        ("ctf/df_angle_rad", particles.defocus_angle_deg, np.pi / 180),
        ("ctf/phase_shift_rad", particles.phase_shift_deg, np.pi / 180),
        ("pick_stats/ncc_score", particles.score, 1.0),
    ):  # fmt: skip
        if values is not None:
            kinds[name] = ("<f4", (), values * scale)
    if particles.optics_group is not None:
        kinds["ctf/exp_group_id"] = ("<u4", (), particles.optics_group)
    for name, integers in (("split", particles.half_set), ("class", particles.class_number)):
        if integers is not None:
            kinds[f"alignments3D/{name}"] = ("<u4", (), np.maximum(integers - 1, 0))
    kinds |= _poses(particles)
    table = np.zeros(len(particles), dtype=[(name, kind, shape) for name, (kind, shape, _) in kinds.items()])
    for name, (_, _, values) in kinds.items():
        table[name] = values
    return table, (*lost, *_lost_labels(particles))


def _locations(
    particles: Particles, names: Sequence[str], shapes: Mapping[str, tuple[int, int]], kinds: dict[str, Field]
) -> list[str]:
    """Add the centres as fractions of the micrographs' sizes; a sentence if those are not known."""
    if particles.x_px is None or particles.y_px is None:
        return []
    if particles.micrograph_shape is not None:
        kinds |= _fractions(particles.x_px, particles.y_px, particles.micrograph_shape.astype(np.float64))
        return []
    unknown = next((name for name in names if name not in shapes), None)
    if unknown is not None:
        return [
            f"Coordinates were left out: a .cs file holds them as fractions of the micrograph's size, and that of "
            f"{unknown} is not known; give the micrographs."
        ]
    sizes = np.array([shapes[name] for name in names], dtype=np.float64).reshape(-1, 2)
    kinds |= _fractions(particles.x_px, particles.y_px, sizes)
    return []


def _fractions(x_px: np.ndarray, y_px: np.ndarray, sizes: np.ndarray) -> dict[str, Field]:
    """CryoSPARC's columns of a place; ``sizes`` are rows and columns."""
    return {
        "location/micrograph_shape": ("<u4", (2,), sizes),
        "location/center_x_frac": ("<f4", (), x_px / sizes[:, 1]),
        "location/center_y_frac": ("<f4", (), y_px / sizes[:, 0]),
    }


def _poses(particles: Particles) -> dict[str, Field]:
    """CryoSPARC's alignment columns."""
    found: dict[str, Field] = {}
    if particles.rotations is not None:
        found["alignments3D/pose"] = ("<f4", (3,), rotation_vector_from_matrix(particles.rotations).numpy())
    if particles.origin_angstrom is not None and particles.pixel_size_angstrom is not None:
        shift = particles.origin_angstrom / particles.pixel_size_angstrom[:, None]
        found["alignments3D/shift"] = ("<f4", (2,), shift)
        found["alignments3D/psize_A"] = ("<f4", (), particles.pixel_size_angstrom)
    return found


def _changed_table(particles: Particles) -> np.ndarray:
    """The table as it was read, with other poses, origins and places."""
    table = particles.table
    assert table is not None
    poses = _poses(particles)
    if particles.x_px is not None and particles.y_px is not None and particles.micrograph_shape is not None:
        poses |= _fractions(particles.x_px, particles.y_px, particles.micrograph_shape.astype(np.float64))
    added = [(name, kind, shape) for name, (kind, shape, _) in poses.items() if name not in fields_of(table)]
    described = [(name, table.dtype[name]) for name in fields_of(table)]
    changed = np.zeros(len(table), dtype=[*described, *added])
    for name in fields_of(table):
        changed[name] = table[name]
    for name, (_, _, values) in poses.items():
        changed[name] = values
    return changed


def _lost_labels(particles: Particles) -> tuple[str, ...]:
    """RELION's columns that a ``.cs`` table has no place for."""
    if particles.star is None:
        return ()
    lost = [label for label in particle_block(particles.star).labels if label not in TRANSLATED]
    return (f"{particles.path}: columns without a place in cryoSPARC left out: {', '.join(lost)}.",) if lost else ()


def _uids(particles: Particles) -> list[int]:
    """Numbers of 63 bits from what tells particles apart."""
    found = []
    for index in range(len(particles)):
        image = None if particles.image_path is None else particles.image_path[index]
        place = None if particles.image_index is None else int(particles.image_index[index])
        at = (
            None if particles.x_px is None or particles.y_px is None else (particles.x_px[index], particles.y_px[index])
        )
        name = None if particles.micrograph is None else particles.micrograph[index]
        text = repr((image, place, name, at, index if image is None and at is None else None))
        found.append(
            int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1
        )
    return found


def _bytes_kind(texts: Sequence[str]) -> str:
    return f"S{max((len(text) for text in _encoded(texts)), default=1) or 1}"


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """Bytes as they were read, also where they are no UTF-8."""
    return [text.encode("utf-8", "surrogateescape") for text in texts]
