"""What `equivox orient predict` writes: ``orientations.csv``, and the particle table with its new poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.formats.atomic import write_text
from equivox.formats.cryosparc import write_cs
from equivox.formats.particles import Particles, particle_block
from equivox.formats.star import Star, write_star
from equivox.formats.tables import as_csv
from equivox.geometry.euler_relion import relion_from_matrix, rotation_vector_from_matrix
from equivox.tasks.orient.stacks import ParticleStack

COLUMNS = ("index", "image", "hypothesis", "rot_deg", "tilt_deg", "psi_deg", "confidence")
MERIT_LIMIT = 1e4
Array = np.ndarray[Any, np.dtype[Any]]


def image_names(particles: Particles) -> list[str]:
    """``000001@stack.mrcs`` of every particle, images counted from 1 as RELION does."""
    paths, indices = particles.require_images()
    return [f"{index + 1:06d}@{path}" for path, index in zip(paths, indices.tolist(), strict=True)]


def write_orientations(
    path: Path,
    names: list[str],
    rotations: Float[Tensor, "particle answer 3 3"],
    confidence: Float[Tensor, "particle answer"],
    usable: Bool[Tensor, "particle"],
) -> None:
    """``orientations.csv``: one row per particle and hypothesis; particles without an answer have none."""
    rows: list[list[object]] = []
    angles = relion_from_matrix(rotations.double()).numpy()
    told = confidence.numpy()
    for index in torch.nonzero(usable)[:, 0].tolist():
        for place in range(rotations.shape[1]):
            if place and told[index, place] <= 0.0:
                continue
            rot, tilt, psi = angles[index, place]
            rows.append(
                [index, names[index], place + 1, f"{rot:.4f}", f"{tilt:.4f}", f"{psi:.4f}", f"{told[index, place]:.4f}"]
            )
    write_text(path, as_csv(COLUMNS, rows))


def write_table(
    path: Path,
    stack: ParticleStack,
    rotations: Float[Tensor, "particle 3 3"],
    confidence: Float[Tensor, "particle"],
    merit: Float[Tensor, "particle"],
    shifts_angstrom: Float[Tensor, "particle 2"] | None,
    usable: Bool[Tensor, "particle"],
) -> None:
    """The table with the best pose of every particle; cells of other columns keep their text, or their bytes.

    STAR: ``rlnAngleRot/Tilt/Psi``, ``rlnMaxValueProbDistribution`` (the confidence), ``rlnParticleFigureOfMerit`` (log
    density of the mixture at the answer) and, where shifts are estimated, the origins. cryoSPARC:
    ``alignments3D/pose``, ``shift``, ``psize_A`` and two columns ``equivox/confidence`` and ``equivox/log_density``. A
    particle without an answer keeps the pose it had (else 0) and has the confidence 0.
    """
    particles = stack.particles
    sure = torch.where(usable, confidence.double(), torch.zeros(()).double()).numpy()
    level = torch.where(usable, merit.double().clamp(-MERIT_LIMIT, MERIT_LIMIT), torch.zeros(()).double()).numpy()
    poses = rotations.double()
    if particles.rotations is not None:
        poses = torch.where(usable[:, None, None], poses, particles.rotations)
    else:
        poses = torch.where(usable[:, None, None], poses, torch.eye(3, dtype=torch.float64))
    origins = _origins(particles, shifts_angstrom, usable)
    if particles.table is not None:
        write_cs(path, _cs_table(stack, poses, origins, sure, level))
    elif particles.star is not None:
        write_star(path, _star(stack, poses, origins, sure, level))


def _origins(particles: Particles, shifts_angstrom: Tensor | None, usable: Tensor) -> Array | None:
    """The shift to apply to the image: minus where the centre lies; None where none is estimated."""
    if shifts_angstrom is None:
        return None
    before = particles.origin_angstrom
    kept = np.zeros((particles.count, 2)) if before is None else before
    return np.where(usable.numpy()[:, None], -shifts_angstrom.double().numpy(), kept)


def _star(
    stack: ParticleStack,
    poses: Tensor,
    origins: Array | None,
    sure: Array,
    level: Array,
) -> Star:
    particles = stack.particles
    assert particles.star is not None
    block = particle_block(particles.star)
    angles = relion_from_matrix(poses).numpy()
    columns: dict[str, Any] = {
        "rlnAngleRot": angles[:, 0].tolist(),
        "rlnAngleTilt": angles[:, 1].tolist(),
        "rlnAnglePsi": angles[:, 2].tolist(),
        "rlnMaxValueProbDistribution": sure.tolist(),
        "rlnParticleFigureOfMerit": level.tolist(),
    }
    if origins is not None and particles.layout == "relion-3.0":
        columns |= {"rlnOriginX": (origins[:, 0] / stack.pixel_size_angstrom).tolist()}
        columns |= {"rlnOriginY": (origins[:, 1] / stack.pixel_size_angstrom).tolist()}
    elif origins is not None:
        columns |= {"rlnOriginXAngst": origins[:, 0].tolist(), "rlnOriginYAngst": origins[:, 1].tolist()}
    return particles.star.with_block(block.with_columns(columns))


def _cs_table(
    stack: ParticleStack,
    poses: Tensor,
    origins: Array | None,
    sure: Array,
    level: Array,
) -> Array:
    table = stack.particles.table
    assert table is not None
    assert table.dtype.names is not None
    pixel = stack.pixel_size_angstrom
    values: dict[str, tuple[Any, Array]] = {
        "alignments3D/pose": (("<f4", (3,)), rotation_vector_from_matrix(poses).numpy()),
        "alignments3D/psize_A": (("<f4",), np.full(len(table), pixel)),
        "equivox/confidence": (("<f4",), sure),
        "equivox/log_density": (("<f4",), level),
    }
    if origins is not None or "alignments3D/shift" not in table.dtype.names:
        moved = np.zeros((len(table), 2)) if origins is None else origins / pixel
        values["alignments3D/shift"] = (("<f4", (2,)), moved)
    described = [(name, table.dtype.fields[name][0]) for name in table.dtype.names]  # type: ignore[index]
    described += [(name, *kind) for name, (kind, _) in values.items() if name not in table.dtype.names]
    found = np.empty(len(table), dtype=described)
    for name in table.dtype.names:
        found[name] = table[name]
    for name, (_, column) in values.items():
        found[name] = column
    return found
